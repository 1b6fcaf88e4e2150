// My bookings: reservations with their tickets, payments, wallet and coupons. It reads everything
// from the service, so it is right after a reload, in another tab and after a lost connection.

import { waitOrWake, whenVisible } from "./activity.js";
import { retryAfterMs, UsherError } from "./api.js";
import { repeatAttempt, sendOnce, storedAttempts } from "./attempts.js";
import { $, createElement, describeProblem, setNotice } from "./dom.js";
import { formatMoney, formatShortTime, formatTime, localizePage, message } from "./messages.js";
import { qrCode } from "./qr.js";
import { describeShow, isExpired, seatItems } from "./reservation_view.js";
import { readWallet, usher } from "./user.js";

// While a hold or a payment is open its state changes soon.
const REFRESH_OPEN_MS = 3000;
const REFRESH_MS = 60000;
const RETRY_MS = 3000;
const OPEN = ["held", "paying"];

let reservations = [];
let next = null;
let pageLimit = 50;
// The reservation whose cancellation waits for the confirmation of the user.
let confirming = null;
let wake = new AbortController();

localizePage();
document.title = message("bookings.title");
$("retry").addEventListener("click", refreshNow);
$("more").addEventListener("click", () => {
  pageLimit = Math.min(500, pageLimit + 50);
  refreshNow();
});
// Another tab held, paid or cancelled.
window.addEventListener("storage", refreshNow);
run();

function refreshNow() {
  wake.abort();
}

async function run() {
  for (;;) {
    wake = new AbortController();
    let wait = REFRESH_MS;
    try {
      await repeatLostAttempts();
      await load();
      setNotice("connection", null);
      if (reservations.some(({ status }) => OPEN.includes(status))) wait = REFRESH_OPEN_MS;
    } catch (problem) {
      if (!(problem instanceof UsherError)) throw problem;
      wait = Math.max(retryAfterMs(problem), problem.isTemporary ? RETRY_MS : REFRESH_MS);
      showProblem(problem);
    }
    $("retry-row").hidden = $("connection").hidden;
    await waitOrWake(wait, wake.signal);
    await whenVisible(wake.signal);
  }
}

// Learns the result of requests whose answer got lost.
async function repeatLostAttempts() {
  for (const name of storedAttempts()) await repeatAttempt(name);
}

function showProblem(problem) {
  const detail = describeProblem(problem);
  const isStale = !$("wallet").hidden;
  setNotice("connection", isStale ? message("bookings.stale", { detail }) : detail);
}

async function load() {
  const [list, wallet, entries, issues, payments] = await Promise.all([
    usher.listReservations({ limit: pageLimit }),
    readWallet(),
    usher.listWalletEntries({ limit: 20 }),
    usher.listCouponIssues(),
    usher.listPayments({ limit: 20 }),
  ]);
  const coupons = await Promise.all(issues.items.map((issue) => usher.getCoupon(issue.coupon_id)));
  ({ items: reservations, next } = list);
  showReservations();
  showTable("payment-list", payments.items, paymentRow, "bookings.payments.none");
  $("balance").textContent = formatMoney(wallet.balance);
  showTable("entry-list", entries.items, entryRow, "bookings.entries.none");
  showCoupons(issues.items, coupons);
  for (const id of ["payments", "wallet", "coupons"]) $(id).hidden = false;
}

function showReservations() {
  const cards = reservations.map(reservationCard);
  if (cards.length === 0) cards.push(emptyCard());
  replaceKeepingFocus($("reservations"), cards);
  $("more-row").hidden = !next || pageLimit >= 500;
}

// A refresh must not take the focus away from a button.
function replaceKeepingFocus(parent, children) {
  const focused = parent.contains(document.activeElement) && document.activeElement.id;
  parent.replaceChildren(...children);
  if (focused) $(focused)?.focus();
}

function emptyCard() {
  return createElement(
    "section",
    { class: "card" },
    createElement("p", {}, message("bookings.none")),
    createElement(
      "p", { class: "row" },
      createElement("a", { class: "button", href: "/" }, message("bookings.book")),
    ),
  );
}

function reservationCard(reservation) {
  const { id, status } = reservation;
  const isConfirmed = status === "confirmed";
  const time = formatTime(reservation.held_until);
  const card = createElement(
    "section",
    { class: isConfirmed ? "card ticket" : "card", "aria-labelledby": `title-${id}` },
    createElement("h2", { id: `title-${id}` }, describeShow(reservation)),
    createElement("p", { class: `status ${status}` }, message(`bookings.status.${status}`, { time })),
  );
  const facts = createElement(
    "div",
    { class: "facts-column" },
    createElement("ul", { class: "chosen", "aria-label": message("bookings.seats") },
      ...seatItems(reservation)),
    createElement("p", {}, `${message("bookings.column.amount")} `,
      createElement("strong", {}, formatMoney(reservation.amount))),
    createElement("p", { class: "muted number" }, `${message("bookings.number")} ${id}`),
  );
  const body = createElement("div", { class: "ticket-body" }, facts);
  if (isConfirmed) body.append(qrFigure(id));
  card.append(body, ...actions(reservation));
  return card;
}

function qrFigure(id) {
  return createElement(
    "figure",
    {},
    qrCode(id, message("bookings.qr", { id })),
    createElement("figcaption", { class: "muted" }, message("bookings.qr.help")),
  );
}

// What the user can do next with a reservation.
function actions({ id, status }) {
  if (OPEN.includes(status)) {
    const link = createElement("a", { class: "button", href: "/" }, message("bookings.pay"));
    return [createElement("p", { class: "row" }, link)];
  }
  if (status !== "confirmed") return [];
  const button = (name, text, onclick, secondary = true) =>
    createElement(
      "button", { id: `${name}-${id}`, class: secondary && "secondary", onclick }, message(text),
    );
  if (confirming !== id) {
    const ask = () => setConfirming(id);
    const row = createElement("p", { class: "row" }, button("cancel", "booking.cancel", ask));
    return [row];
  }
  return [
    createElement("p", {}, message("bookings.cancel.sure")),
    createElement(
      "p", { class: "row" },
      button("yes", "bookings.cancel.yes", () => cancel(id), false),
      button("no", "bookings.cancel.no", () => setConfirming(null)),
    ),
  ];
}

function setConfirming(id) {
  const before = confirming;
  confirming = id;
  showReservations();
  $(id ? `no-${id}` : `cancel-${before}`)?.focus();
}

async function cancel(id) {
  confirming = null;
  try {
    await sendOnce(`cancel-${id}`, `/reservations/${id}/cancel`, { token: null });
    refreshNow();
  } catch (problem) {
    if (!(problem instanceof UsherError)) throw problem;
    showReservations();
    setNotice("connection", describeProblem(problem));
    $("retry-row").hidden = false;
  }
}

function paymentRow(payment) {
  const { status } = payment;
  return [
    formatShortTime(payment.created_at),
    payment.concert_title,
    message(`bookings.payment.${status}`),
    formatMoney(payment.paid || payment.amount - payment.discount),
  ];
}

function entryRow({ created_at: at, kind, amount, balance }) {
  const isDebit = ["use", "payment", "reward_reversal"].includes(kind);
  const sign = isDebit ? "−" : "+";
  const text = `${sign}${formatMoney(amount)}`;
  return [formatShortTime(at), message(`bookings.entry.${kind}`), text, formatMoney(balance)];
}

// The columns of both tables end with an amount.
const COLUMNS = {
  "payment-list": ["date", "what", "status", "amount"],
  "entry-list": ["date", "what", "amount", "balance"],
};

function showTable(id, items, row, empty) {
  if (items.length === 0) {
    $(id).replaceChildren(createElement("p", { class: "muted" }, message(empty)));
    return;
  }
  const title = (name) =>
    message(name === "balance" ? "bookings.balance" : `bookings.column.${name}`);
  const line = (cells, tag) =>
    createElement("tr", {}, ...cells.map((cell) => createElement(tag, {}, cell)));
  $(id).replaceChildren(
    createElement(
      "table", {},
      createElement("thead", {}, line(COLUMNS[id].map(title), "th")),
      createElement("tbody", {}, ...items.map((item) => line(row(item), "td"))),
    ),
  );
}

function showCoupons(issues, coupons) {
  const items = issues.map((issue, index) => {
    const open = isExpired(issue) ? "expired" : "ready";
    const state = issue.used_at ? "used" : open;
    const name = state === "ready" ? "good" : "muted";
    return createElement("li", {}, `${coupons[index].title} · `,
      createElement("span", { class: name }, message(`bookings.coupon.${state}`)));
  });
  if (items.length === 0) {
    items.push(createElement("li", { class: "muted" }, message("bookings.coupons.none")));
  }
  $("coupon-list").replaceChildren(...items);
}
