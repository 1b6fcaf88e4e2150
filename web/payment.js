// The payment of a hold, and the confirmation.

import { startStep, waitOrWake } from "./activity.js";
import { ProblemError, retryAfterMs, serverNow, UsherError } from "./api.js";
import { repeatAttempt, sendOnce, storedAttempt } from "./attempts.js";
import { $, describeProblem, setNotice, setText, showView } from "./dom.js";
import { formatMoney, formatNumber, message } from "./messages.js";
import { describeShow, isExpired, seatItems } from "./reservation_view.js";
import { forgetToken, readWallet, usher } from "./user.js";

// The amount that one press of the charge button adds to the wallet.
const CHARGE_AMOUNT = 50000;
// The coupon that the demo data contains. The page offers no coupon if it does not exist.
const DEMO_COUPON = "demo-coupon";
const PENDING_POLL_MS = 500;
const RETRY_MS = 2000;

let reservation = null;
let balance = 0;
let couponIssue = null;
let isPaying = false;
let signal = null;
let events = null;

$("do-pay").addEventListener("click", () => pay(sendPayment));
$("charge").addEventListener("click", () => orShow(chargeWallet));
$("release").addEventListener("click", () => orShow(releaseSeats));
$("cancel").addEventListener("click", () => orShow(cancelBooking));
$("coupon-get").addEventListener("click", () => orShow(requestCoupon));
$("coupon").addEventListener("change", showPrice);

const attemptName = () => `payment-${reservation.id}`;

// `onEnd(reason)` shows why the hold is over, `onReleased()` returns to the seats.
export function startPayment(held, handlers) {
  signal = startStep();
  reservation = held;
  events = handlers;
  isPaying = false;
  couponIssue = null;
  $("held-seats").replaceChildren(...seatItems(reservation));
  setText("charge", message("booking.charge", { amount: formatMoney(CHARGE_AMOUNT) }));
  setNotice("pay-note", null);
  showView("pay");
  $("pay").focus();
  // The answer to a payment got lost before a reload.
  if (storedAttempt(attemptName())) pay(() => repeatAttempt(attemptName()));
  else if (reservation.status === "paying") pay(() => null);
  runCountdown(signal);
  orShow(loadBalance);
  loadCoupon().catch(() => ($("coupon-row").hidden = true));
}

// Shows an error of `action` below the price.
async function orShow(action) {
  try {
    await action();
  } catch (problem) {
    if (!(problem instanceof UsherError)) throw problem;
    const note = $("done").hidden ? "pay-note" : "done-note";
    setNotice(note, describeProblem(problem));
  }
}

async function runCountdown(until) {
  while (!until.aborted) {
    const seconds = Math.max(0, (Date.parse(reservation.held_until) - serverNow()) / 1000);
    // A payment that was sent in time is decided by the service.
    if (seconds <= 0 && !isPaying) return events.onEnd("booking.lapsed");
    const rest = String(Math.floor(seconds % 60)).padStart(2, "0");
    const time = `${Math.floor(seconds / 60)}:${rest}`;
    setText("countdown", message("booking.countdown", { time }));
    await waitOrWake(500, until);
  }
}

async function loadBalance() {
  ({ balance } = await readWallet());
  showPrice();
}

function showPrice() {
  const { amount } = reservation;
  const usesCoupon = $("coupon").checked && couponIssue;
  const due = amount - (usesCoupon ? Math.min(couponIssue.discount, amount) : 0);
  setText("price", formatMoney(due));
  setText("balance", formatMoney(balance));
  setText("do-pay", message("booking.pay", { amount: formatMoney(due) }));
  // Exactly one of the two buttons is the next step, and it has the primary style.
  const isShort = balance < due;
  $("do-pay").disabled = isShort || isPaying;
  $("charge").className = isShort ? "" : "secondary";
  $("charge").hidden = !isShort;
  $("release").disabled = isPaying;
}

// What the service will take off: the terms of the issue, rounded down.
function discountOf(issue, price) {
  if (issue.discount_kind === "amount") return issue.discount_amount;
  const share = Math.floor((price * issue.discount_percent) / 100);
  return Math.min(share, issue.discount_limit ?? share);
}

async function loadCoupon() {
  const coupon = await usher.getCoupon(DEMO_COUPON);
  const { items } = await usher.listCouponIssues();
  const issue = items.find((item) => item.coupon_id === DEMO_COUPON);
  const price = reservation.amount;
  const isUsable =
    issue && !issue.used_at && issue.min_available_amount <= price && !isExpired(issue);
  couponIssue = isUsable ? { id: issue.id, discount: discountOf(issue, price) } : null;
  $("coupon-row").hidden = Boolean(issue?.used_at);
  $("coupon-get").hidden = Boolean(issue);
  $("coupon-use").hidden = !couponIssue;
  const left = coupon.total_quantity - coupon.issued_quantity;
  setText("coupon-get", message("booking.coupon.get", { n: formatNumber(left) }));
  const terms = issue ?? coupon;
  const amount =
    terms.discount_kind === "percent"
      ? `${terms.discount_percent} %`
      : formatMoney(terms.discount_amount);
  setText("coupon-text", message("booking.coupon", { amount }));
  showPrice();
}

async function requestCoupon() {
  await usher.issueCoupon(DEMO_COUPON);
  await loadCoupon();
  $("coupon").checked = Boolean(couponIssue);
  showPrice();
}

async function chargeWallet() {
  const body = { amount: CHARGE_AMOUNT };
  await sendOnce("charge", "/wallet/charges", { body, token: null });
  await loadBalance();
}

function sendPayment() {
  const body = { reservation_id: reservation.id };
  if ($("coupon").checked && couponIssue) body.coupon_issue_id = couponIssue.id;
  return sendOnce(attemptName(), "/payments", { body });
}

// Sends the payment until its result is known. The attempt keeps its key, so the user pays once.
async function pay(firstTry) {
  const until = signal;
  let send = firstTry;
  isPaying = true;
  showPrice();
  while (!until.aborted) {
    try {
      const payment = await send();
      if (until.aborted) return;
      // From here on only the result is missing.
      send = () => payment;
      const result = await awaitResult(payment, until);
      if (result && !until.aborted) return showConfirmation(result);
      break;
    } catch (problem) {
      if (!(problem instanceof UsherError) || !problem.isTemporary) {
        isPaying = false;
        return showRefusal(problem);
      }
      setNotice("pay-note", message("booking.checking"));
      await waitOrWake(Math.max(retryAfterMs(problem), RETRY_MS), until);
      send = () => repeatAttempt(attemptName());
    }
  }
  if (until.aborted) return;
  isPaying = false;
  setNotice("pay-note", null);
  showPrice();
}

// Waits for the result of a payment. Without `payment`, another tab or device knows it: then the
// reservation has the result. Returns the payment or the reservation, or null if nothing was paid.
async function awaitResult(payment, until) {
  let current = payment;
  while (current?.status === "pending" && !until.aborted) {
    setNotice("pay-note", message("booking.pending"));
    await waitOrWake(PENDING_POLL_MS, until);
    current = await usher.getPayment(current.id);
  }
  if (current?.status === "confirmed") return current;
  if (current) throw new ProblemError(409, { code: "payment_failed" });
  while (!until.aborted) {
    reservation = await usher.getReservation(reservation.id);
    if (reservation.status === "confirmed") return reservation;
    if (reservation.status !== "paying") return null;
    setNotice("pay-note", message("booking.pending"));
    await waitOrWake(PENDING_POLL_MS, until);
  }
  return null;
}

function showRefusal(problem) {
  if (!(problem instanceof UsherError)) throw problem;
  if (problem.code === "hold_expired") return events.onEnd("booking.lapsed");
  setNotice("pay-note", describeProblem(problem));
  orShow(loadBalance);
  showPrice();
}

// `paid` is unknown when another tab has paid.
async function showConfirmation({ paid, balance_after: after }) {
  startStep();
  isPaying = false;
  forgetToken();
  setText("done-title", message("booking.done"));
  setText("done-show", describeShow(reservation));
  $("done-seats").replaceChildren(...seatItems(reservation));
  setText("paid", paid === undefined ? "–" : formatMoney(paid));
  setText("done-balance", after === undefined ? "–" : formatMoney(after));
  setNotice("done-note", null);
  $("cancel").hidden = false;
  showView("done");
  $("done").focus();
}

async function releaseSeats() {
  await usher.releaseReservation(reservation.id);
  events.onReleased();
}

async function cancelBooking() {
  const { id } = reservation;
  await sendOnce(`cancel-${id}`, `/reservations/${id}/cancel`, { token: null });
  setText("done-title", message("booking.cancelled"));
  $("cancel").hidden = true;
  const wallet = await readWallet();
  setText("done-balance", formatMoney(wallet.balance));
}
