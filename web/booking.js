// The booking demo: concerts, queue, seats, payment, ticket. The browser generates its own user.

import { call, ProblemError, randomUuid, sleep } from "./api.js";
import {
  $, createElement, describeProblem, NoticeStack, setNotice, setText, showView,
} from "./dom.js";
import {
  formatDateTime, formatDuration, formatMoney, formatNumber, formatTime, localizePage, message,
} from "./messages.js";
import { fetchQueueState, followTicket, leaveQueue } from "./queue.js";
import { SeatMap } from "./seatmap.js";

const SEAT_REFRESH_MS = 1000;
const STATE_REFRESH_MS = 5000;
// The amount that one press of the charge button adds to the wallet.
const CHARGE_AMOUNT = 50000;
const BEST_SEATS_QUANTITY = 2;
// The coupon that the demo data contains. The page offers no coupon if it does not exist.
const DEMO_COUPON = "demo-coupon";

const user = loadOrCreate("usher-user", randomUuid);
const visit = {
  concert: null,
  token: sessionStorage.getItem("usher-token"),
  reservation: null,
  balance: 0,
  paymentKey: null,
  couponIssue: null,
};
let abort = new AbortController();
let seatMap = null;
const notice = new NoticeStack("notice", ["connection", "queue"]);

localizePage();
addListeners();
showConcerts();

function loadOrCreate(name, create) {
  const value = localStorage.getItem(name) ?? create();
  localStorage.setItem(name, value);
  return value;
}

function callApi(method, path, { body, key, token = true } = {}) {
  const headers = { "Usher-User": user };
  if (token && visit.token) headers["Queue-Token"] = visit.token;
  if (key) headers["Idempotency-Key"] = key;
  return call(method, `/v1${path}`, { headers, body });
}

function addListeners() {
  const onClick = (id, action) => {
    $(id).addEventListener("click", () => Promise.resolve(action()).catch(showError));
  };
  onClick("leave", leave);
  onClick("again", () => (visit.concert ? joinQueue(visit.concert) : showConcerts()));
  onClick("another", showConcerts);
  onClick("hold", holdSelectedSeats);
  onClick("best", holdBestSeats);
  onClick("do-pay", pay);
  onClick("charge", chargeWallet);
  onClick("release", releaseSeats);
  onClick("cancel", cancelBooking);
  onClick("coupon-get", requestCoupon);
  $("schedule").addEventListener("change", () => watchSeats().catch(showError));
  $("coupon").addEventListener("change", showPrice);
}

// Starts a new step: ends the loops of the previous one and returns the signal for the new one.
function restartAbort() {
  abort.abort();
  abort = new AbortController();
  return abort.signal;
}

async function showConcerts() {
  try {
    visit.reservation = null;
    const { items } = await call("GET", "/v1/concerts");
    const cards = items.map(concertCard);
    if (cards.length === 0) cards.push(createElement("p", {}, message("booking.none")));
    $("concert-list").replaceChildren(...cards);
    const lastId = sessionStorage.getItem("usher-concert");
    const lastConcert = items.find((concert) => concert.id === lastId);
    if (lastConcert && visit.token) return await resume(lastConcert);
    showView("concerts");
  } catch (problem) {
    showError(problem);
  }
}

function concertCard(concert) {
  // The space keeps the height of the line until the queue's state has arrived.
  const state = createElement("p", { class: "muted" }, "\u00a0");
  const onclick = () => joinQueue(concert).catch(showError);
  const button = createElement("button", { onclick }, message("booking.join"));
  fetchQueueState(concert.queue_id).then(
    (queue) => (state.textContent = describeQueue(queue)),
    () => {},
  );
  const title = createElement("h2", {}, concert.title);
  return createElement("article", { class: "card" }, title, state, createElement("p", {}, button));
}

function describeQueue(queue) {
  if (queue.mode === "paused") return message("queue.paused.short");
  if (queue.waiting === 0) return message("booking.queue.empty");
  const wait = describeWait(queue.estimated_wait_seconds);
  return message("booking.queue", { n: formatNumber(queue.waiting), wait });
}

const describeWait = (seconds) =>
  seconds === null ? message("queue.estimate.unknown") : formatDuration(seconds);

// After a reload, returns to an open hold, or else to the same position in the queue.
async function resume(concert) {
  visit.concert = concert;
  const { items } = await callApi("GET", "/reservations/mine", { token: false });
  const isOpen = (item) => item.status === "held" && item.concert_id === concert.id;
  const held = items.find(isOpen);
  if (held) return showPayment(held);
  await joinQueue(concert);
}

async function joinQueue(concert) {
  const signal = restartAbort();
  visit.concert = concert;
  sessionStorage.setItem("usher-concert", concert.id);
  let ticket;
  try {
    ticket = await callApi("POST", `/queues/${concert.queue_id}/tokens`, { token: false });
  } catch (problem) {
    if (problem.code === "queue_closed") return showEnd("queue.closed");
    if (problem.code === "unauthenticated") return showEnd("queue.signin", "booking.header");
    if (problem.code !== "queue_full") throw problem;
    showEnd("queue.full");
    await sleep(Math.max(problem.retryAfterMs, 2000));
    return joinQueue(concert);
  }
  watchQueueState(signal);
  await followTicket(concert.queue_id, ticket, { onTicket, onConnection, signal });
}

function onTicket(ticket) {
  visit.token = ticket.token;
  sessionStorage.setItem("usher-token", ticket.token);
  if (ticket.status === "expired") return showEnd("queue.expired");
  if (ticket.status === "active") {
    abort.abort();
    setText("seats-until", message("queue.until", { time: formatTime(ticket.active_until) }));
    return showSeats().catch(showError);
  }
  showView("queue");
  const isNext = ticket.position === 1;
  const position = ticket.position === null ? "–" : formatNumber(ticket.position);
  setText("position", isNext ? message("queue.next") : position);
  setText("others", formatNumber(ticket.waiting));
  setText("wait", describeWait(ticket.estimated_wait_seconds));
}

function onConnection(connected) {
  notice.set("connection", connected ? null : message("queue.disconnected"));
}

async function watchQueueState(signal) {
  while (!signal.aborted) {
    const state = await fetchQueueState(visit.concert.queue_id).catch(() => null);
    if (signal.aborted) return;
    if (state) notice.set("queue", queueNotice(state));
    await sleep(STATE_REFRESH_MS);
  }
}

function queueNotice(state) {
  if (state.mode === "paused") return message("queue.paused");
  if (state.mode === "prequeue" && state.opens_at) {
    return message("queue.opens", { time: formatDateTime(state.opens_at) });
  }
  return state.sold_out ? message("queue.soldout") : null;
}

async function leave() {
  abort.abort();
  await leaveQueue(visit.concert.queue_id, visit.token).catch(() => {});
  showEnd("queue.expired");
}

async function showSeats() {
  const { items } = await callApi("GET", `/concerts/${visit.concert.id}/schedules`);
  const option = ({ id, starts_at }) =>
    createElement("option", { value: id }, formatDateTime(starts_at));
  $("schedule").replaceChildren(...items.map(option));
  setText("seats-help", message("booking.seats.help", { n: visit.concert.max_seats_per_user }));
  setText("best", message("booking.best", { n: BEST_SEATS_QUANTITY }));
  showView("seats");
  $("seats").focus();
  await watchSeats();
}

async function watchSeats() {
  const signal = restartAbort();
  const schedule = $("schedule").value;
  seatMap = new SeatMap($("map"), visit.concert.max_seats_per_user, showSelection);
  while (!signal.aborted) {
    try {
      const { items } = await callApi("GET", `/schedules/${schedule}/seats`);
      if (signal.aborted) return;
      seatMap.draw(items);
      const available = items.filter((seat) => seat.status === "available").length;
      const counts = { n: formatNumber(available), total: formatNumber(items.length) };
      setText("available", message("booking.available", counts));
    } catch (problem) {
      if (problem.code === "queue_token_expired") return showEnd("queue.expired");
      if (!(problem instanceof ProblemError)) throw problem;
    }
    await sleep(SEAT_REFRESH_MS);
  }
}

function showSelection(selected) {
  $("hold").disabled = selected.size === 0;
  const amount = formatMoney(seatMap?.totalPrice() ?? 0);
  const text = selected.size
    ? message("booking.hold", { n: selected.size, amount })
    : message("booking.hold.none");
  setText("hold", text);
}

async function holdSelectedSeats() {
  const body = { schedule_id: $("schedule").value, seats: [...seatMap.selected] };
  await holdSeats("/reservations", body);
}

async function holdBestSeats() {
  const body = { schedule_id: $("schedule").value, quantity: BEST_SEATS_QUANTITY };
  await holdSeats("/reservations/best", body);
}

async function holdSeats(path, body) {
  try {
    setNotice("seats-note", null);
    showPayment(await callApi("POST", path, { key: randomUuid(), body }));
  } catch (problem) {
    if (problem.code === "queue_token_expired") return showEnd("queue.expired");
    setNotice("seats-note", describeHoldProblem(problem));
  }
}

function describeHoldProblem(problem) {
  if (problem.code === "seat_taken") {
    return message("booking.taken", { seats: problem.body.seats.join(", ") });
  }
  if (problem.code === "not_enough_seats") return message("booking.notenough");
  return describeProblem(problem);
}

function showPayment(reservation) {
  const signal = restartAbort();
  seatMap?.clearSelection();
  visit.reservation = reservation;
  visit.paymentKey = randomUuid();
  $("held-seats").replaceChildren(...seatItems(reservation));
  setText("charge", message("booking.charge", { amount: formatMoney(CHARGE_AMOUNT) }));
  setNotice("pay-note", null);
  showView("pay");
  $("pay").focus();
  runCountdown(reservation, signal);
  loadBalance().catch(showError);
  loadCoupon().catch(() => {});
}

function seatItems(reservation) {
  return reservation.seats.map(({ number, section, price }) =>
    createElement(
      "li", {},
      createElement("strong", {}, String(number)), ` ${section} · ${formatMoney(price)}`,
    ));
}

async function runCountdown(reservation, signal) {
  while (!signal.aborted) {
    const seconds = (new Date(reservation.held_until) - Date.now()) / 1000;
    if (seconds <= 0) return showEnd("booking.lapsed");
    const rest = String(Math.floor(seconds % 60)).padStart(2, "0");
    const time = `${Math.floor(seconds / 60)}:${rest}`;
    setText("countdown", message("booking.countdown", { time }));
    await sleep(500);
  }
}

async function loadBalance() {
  const wallet = await callApi("GET", "/wallet", { token: false });
  visit.balance = wallet.balance;
  showPrice();
}

function showPrice() {
  const { amount } = visit.reservation;
  const usesCoupon = $("coupon").checked && visit.couponIssue;
  const due = amount - (usesCoupon ? Math.min(visit.couponIssue.discount, amount) : 0);
  setText("price", formatMoney(due));
  setText("balance", formatMoney(visit.balance));
  setText("do-pay", message("booking.pay", { amount: formatMoney(due) }));
  // Exactly one of the two buttons is the next step, and it has the primary style.
  const isShort = visit.balance < due;
  $("do-pay").disabled = isShort;
  $("charge").className = isShort ? "" : "secondary";
  $("charge").hidden = !isShort;
}

// What the service will take off: the terms of the issue, rounded down.
function discountOf(issue, price) {
  if (issue.discount_kind === "amount") return issue.discount_amount;
  const share = Math.floor((price * issue.discount_percent) / 100);
  return Math.min(share, issue.discount_limit ?? share);
}

async function loadCoupon() {
  const coupon = await call("GET", `/v1/coupons/${DEMO_COUPON}`);
  const { items } = await callApi("GET", "/coupons/issues/mine", { token: false });
  const issue = items.find((item) => item.coupon_id === DEMO_COUPON);
  const price = visit.reservation.amount;
  const isUsable =
    issue &&
    !issue.used_at &&
    issue.min_available_amount <= price &&
    (!issue.valid_until || Date.parse(issue.valid_until) > Date.now());
  visit.couponIssue = isUsable ? { id: issue.id, discount: discountOf(issue, price) } : null;
  $("coupon-row").hidden = Boolean(issue?.used_at);
  $("coupon-get").hidden = Boolean(issue);
  $("coupon-use").hidden = !visit.couponIssue;
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
  try {
    await callApi("POST", `/coupons/${DEMO_COUPON}/issues`, { token: false });
    await loadCoupon();
    $("coupon").checked = Boolean(visit.couponIssue);
    showPrice();
  } catch (problem) {
    const isGone = problem.code === "sold_out";
    setNotice("pay-note", isGone ? message("booking.coupon.gone") : describeProblem(problem));
  }
}

async function chargeWallet() {
  const body = { amount: CHARGE_AMOUNT };
  await callApi("POST", "/wallet/charges", { token: false, key: randomUuid(), body });
  await loadBalance();
}

// The idempotency key stays the same until the result is known. A second press, or a retry after a
// lost response, pays once.
async function pay() {
  $("do-pay").disabled = true;
  const body = { reservation_id: visit.reservation.id };
  if ($("coupon").checked && visit.couponIssue) body.coupon_issue_id = visit.couponIssue.id;
  try {
    let payment = await callApi("POST", "/payments", { key: visit.paymentKey, body });
    while (payment.status === "pending") {
      setNotice("pay-note", message("booking.pending"));
      await sleep(500);
      payment = await callApi("GET", `/payments/${payment.id}`);
    }
    if (payment.status !== "confirmed") {
      throw new ProblemError(409, { code: payment.status, detail: message("error.payment") });
    }
    showConfirmation(payment);
  } catch (problem) {
    if (problem.code === "hold_expired") return showEnd("booking.lapsed");
    // A refusal is final for its key. Without a response the result is unknown and the key stays.
    if (problem.status >= 400) visit.paymentKey = randomUuid();
    const isShort = problem.code === "insufficient_balance";
    setNotice("pay-note", isShort ? message("booking.insufficient") : describeProblem(problem));
    showPrice();
  }
}

function showConfirmation(payment) {
  const { reservation } = visit;
  forgetToken();
  abort.abort();
  setText("done-title", message("booking.done"));
  setText("done-show", `${reservation.concert_title} · ${formatDateTime(reservation.starts_at)}`);
  $("done-seats").replaceChildren(...seatItems(reservation));
  setText("paid", formatMoney(payment.paid));
  setText("done-balance", formatMoney(payment.balance_after));
  $("cancel").hidden = false;
  showView("done");
  $("done").focus();
}

async function releaseSeats() {
  await callApi("DELETE", `/reservations/${visit.reservation.id}`);
  visit.reservation = null;
  await joinQueue(visit.concert);
}

async function cancelBooking() {
  const { id } = visit.reservation;
  await callApi("POST", `/reservations/${id}/cancel`, { token: false, key: `cancel-${id}` });
  setText("done-title", message("booking.cancelled"));
  $("cancel").hidden = true;
  const { balance } = await callApi("GET", "/wallet", { token: false });
  setText("done-balance", formatMoney(balance));
}

function forgetToken() {
  visit.token = null;
  sessionStorage.removeItem("usher-token");
}

function showEnd(reason, detail) {
  abort.abort();
  forgetToken();
  setText("reason", message(reason));
  setText("detail", detail ? message(detail) : "");
  showView("over");
}

function showError(problem) {
  if (!(problem instanceof ProblemError)) throw problem;
  showEnd("queue.disconnected");
  setText("reason", message("error", { detail: describeProblem(problem) }));
}
