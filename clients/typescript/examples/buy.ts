// Buys two seats of the concert `demo` and prints them.
// Usage: node buy.js (address: USHER_URL, http://127.0.0.1:8080 by default)

import { ProblemError, UsherClient } from "usher-client";

declare const process: { env: Record<string, string | undefined> };

const url = process.env["USHER_URL"] ?? "http://127.0.0.1:8080";
const usher = new UsherClient({ url, user: crypto.randomUUID() });

// Wait for admission. The token resumes the visit after a restart: usher.resumeQueue("demo", token).
const visit = await usher.joinQueue("demo");
await visit.waitUntilActive({
  stream: true,
  onTicket: ({ position, estimated_wait_seconds: wait }) => {
    if (position != null) console.error(`position ${position}, estimated wait ${wait} s`);
  },
});

// Hold two adjacent seats of the first schedule that has them.
const schedules = await visit.listSchedules("demo");
const schedule = schedules.find((item) => item.available_seats >= 2);
if (!schedule) throw new Error("sold out");
const held = await visit.holdBestSeats(schedule.id, 2);

// Use a coupon if there is one, then pay from the wallet.
let couponIssueId: string | undefined;
try {
  couponIssueId = (await usher.issueCoupon("demo-coupon")).id;
} catch (error) {
  if (!(error instanceof ProblemError)) throw error;
  console.error(`no coupon: ${error.code}`);
}
await usher.chargeWallet(held.amount);
const payment = await visit.pay(held.id, couponIssueId === undefined ? {} : { couponIssueId });
if (payment.status !== "confirmed") throw new Error(`not paid: ${payment.status}`);
console.log(`bought: ${payment.seats.map((seat) => seat.number).join(",")} for ${payment.paid}`);
