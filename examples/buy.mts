// Buys two seats with nothing but `fetch`. usage: node buy.mjs [address]   (USHER_URL, http://127.0.0.1:8080)

declare const process: { argv: string[]; env: Record<string, string | undefined>; exit(code: number): never };

const base = (process.argv[2] ?? process.env["USHER_URL"] ?? "http://127.0.0.1:8080") + "/v1";
const TRIES = 8;

interface Ticket { token: string; status: "waiting" | "active" | "expired"; position: number | null; estimated_wait_seconds: number | null; poll_after_ms: number }
interface Schedules { items: { id: string; available_seats: number }[] }
interface Reservation { id: string; seats: { number: number; section: string; price: number }[]; amount: number; held_until: string }
interface Payment { id: string; status: "pending" | "confirmed" | "declined" | "voided" | "refunded"; paid: number }
interface Problem { code: string; detail: string }

/** The service said no. `problem.code` is a stable word to branch on (RFC 9457). */
class Refused extends Error {
  constructor(readonly status: number, readonly problem: Problem) {
    super(`${status} ${problem.code}: ${problem.detail}`);
  }
}

const pause = (ms: number) => new Promise<void>((done) => setTimeout(done, ms));

/** One user's calls. */
class Usher {
  #token: string | null = null;

  constructor(readonly user: string) {}

  /**
   * Asks again after 429 and 503, as late as Retry-After says, and after an answer that was lost. That is harmless where the call can
   * be repeated: every GET, joining, and all that carries a key.
   */
  async call<T>(method: string, path: string, { body, key }: { body?: unknown; key?: string } = {}): Promise<T> {
    const headers: Record<string, string> = { "Usher-User": this.user, "Content-Type": "application/json" };
    if (this.#token) headers["Queue-Token"] = this.#token;
    if (key) headers["Idempotency-Key"] = key;
    for (let left = TRIES - 1; ; left -= 1) {
      const answer = await fetch(base + path, { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) }).catch((lost: unknown) => {
        if (left === 0) throw lost;
        return null;
      });
      if (answer?.ok) return (await answer.json()) as T;
      if (answer && (left === 0 || ![429, 503].includes(answer.status))) throw new Refused(answer.status, (await answer.json()) as Problem);
      const seconds = Number(answer?.headers.get("Retry-After") ?? 1);
      // A little later each on their own, so that a crowd does not come back in one step.
      await pause(seconds * 1000 * (1 + Math.random() * 0.3));
    }
  }

  /** Gets in line, or back to the place there already is, and waits to be let in. */
  async enter(queue: string): Promise<void> {
    let ticket = await this.call<Ticket>("POST", `/queues/${queue}/tokens`);
    this.#token = ticket.token;
    while (ticket.status === "waiting") {
      console.error(`place ${ticket.position}, about ${ticket.estimated_wait_seconds} s`);
      await pause(ticket.poll_after_ms);
      ticket = await this.call<Ticket>("GET", `/queues/${queue}/tokens/me`);
    }
  }

  /** One key from the first try to the last: however often this is repeated, it debits once. */
  async pay(reservation: Reservation): Promise<Payment> {
    let payment = await this.call<Payment>("POST", "/payments", { body: { reservation_id: reservation.id }, key: crypto.randomUUID() });
    while (payment.status === "pending") {
      await pause(500);
      payment = await this.call<Payment>("GET", `/payments/${payment.id}`);
    }
    return payment;
  }
}

const usher = new Usher(crypto.randomUUID());
await usher.enter("demo");
const [schedule] = (await usher.call<Schedules>("GET", "/concerts/demo/schedules")).items;
if (!schedule) throw new Error("nothing is on sale");
const held = await usher.call<Reservation>("POST", "/reservations/best", { body: { schedule_id: schedule.id, quantity: 2 } });
await usher.call("POST", "/wallet/charges", { body: { amount: 50_000 }, key: crypto.randomUUID() });
const payment = await usher.pay(held);
if (payment.status !== "confirmed") throw new Error(`not paid: ${JSON.stringify(payment)}`);
console.log(`bought: ${held.seats.map((seat) => seat.number).join(",")} for ${payment.paid}`);

export {};
