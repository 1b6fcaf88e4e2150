// The booking demo: concerts → line → seats → payment → ticket, as one user whom this browser makes up.

import { call, pause, Problem, uuid } from "./api.js";
import { $, make, Note, say, show } from "./dom.js";
import { follow, leave, state } from "./line.js";
import { SeatMap } from "./seatmap.js";
import { clock, duration, fill, moment, money, number, word } from "./words.js";

// How often the map is looked at while seats are chosen.
const MAP_MS = 1000;
// What one press of the button puts into the wallet.
const CHARGE = 50000;
// The demo's coupon; without it the page has none to offer.
const COUPON = "demo-coupon";

const user = kept("usher-user", uuid);
const visit = { concert: null, token: sessionStorage.getItem("usher-token"), reservation: null };
let stop = new AbortController();
const note = new Note("notice", ["connection", "line"]);

fill();
wire();
start();

function kept(name, made) {
  const value = localStorage.getItem(name) ?? made();
  localStorage.setItem(name, value);
  return value;
}

function api(method, path, { body, key, token = true } = {}) {
  const headers = { "Usher-User": user };
  if (token && visit.token) headers["Queue-Token"] = visit.token;
  if (key) headers["Idempotency-Key"] = key;
  return call(method, `/v1${path}`, { headers, body });
}

function wire() {
  const safely = (id, work) => $(id).addEventListener("click", () => work().catch(failed));
  safely("leave", async () => {
    stop.abort();
    await leave(visit.concert.queue_id, visit.token).catch(() => {});
    over("line.expired");
  });
  safely("again", () => (visit.concert ? enter(visit.concert) : start()));
  safely("another", start);
  safely("hold", hold);
  safely("best", best);
  safely("do-pay", pay);
  safely("charge", charge);
  safely("release", release);
  safely("cancel", cancel);
  safely("coupon-get", takeCoupon);
  $("schedule").addEventListener("change", () => seats().catch(failed));
  $("coupon").addEventListener("change", price);
}

async function start() {
  try {
    visit.reservation = null;
    const { items } = await call("GET", "/v1/concerts");
    const cards = items.map(card);
    $("concert-list").replaceChildren(...(cards.length ? cards : [make("p", {}, word("book.nothing"))]));
    const last = items.find((concert) => concert.id === sessionStorage.getItem("usher-concert"));
    if (last && visit.token) return await resume(last);
    show("concerts");
  } catch (problem) {
    failed(problem);
  }
}

// A concert, and how long its line is at the moment.
function card(concert) {
  const line = make("p", { class: "quiet" }, "\u00a0");
  const button = make("button", { onclick: () => enter(concert).catch(failed) }, word("book.join"));
  state(concert.queue_id).then((now) => {
    const wait = now.estimated_wait_seconds;
    if (now.mode === "paused") line.textContent = word("line.paused.short");
    else if (now.waiting === 0) line.textContent = word("book.noline");
    else line.textContent = word("book.inline", { n: number(now.waiting), wait: wait === null ? word("line.unknown") : duration(wait) });
  }, () => {});
  return make("article", { class: "card" }, make("h2", {}, concert.title), line, make("p", {}, button));
}

// After a reload: back to a hold that still runs, else back in line at the same place.
async function resume(concert) {
  visit.concert = concert;
  const { items } = await api("GET", "/reservations/mine", { token: false });
  const held = items.find((one) => one.status === "held" && one.concert_id === concert.id);
  if (held) return toPay(held);
  await enter(concert);
}

async function enter(concert) {
  stop.abort();
  stop = new AbortController();
  visit.concert = concert;
  sessionStorage.setItem("usher-concert", concert.id);
  let ticket;
  try {
    ticket = await api("POST", `/queues/${concert.queue_id}/tokens`, { token: false });
  } catch (problem) {
    if (problem.code === "queue_closed") return over("line.closed");
    if (problem.code === "unauthenticated") return over("line.signin", "book.header");
    if (problem.code !== "queue_full") throw problem;
    over("line.full");
    await pause(Math.max(problem.retryAfterMs, 2000));
    return enter(concert);
  }
  look(stop.signal);
  await follow(concert.queue_id, ticket, { told, lost, stop: stop.signal });
}

function told(ticket) {
  visit.token = ticket.token;
  sessionStorage.setItem("usher-token", ticket.token);
  if (ticket.status === "expired") return over("line.expired");
  if (ticket.status === "active") {
    stop.abort();
    say("seats-until", word("line.until", { time: clock(ticket.active_until) }));
    return inside().catch(failed);
  }
  show("line");
  say("position", ticket.position === 1 ? word("line.next") : number(ticket.position));
  say("others", number(ticket.waiting));
  say("wait", ticket.estimated_wait_seconds === null ? word("line.unknown") : duration(ticket.estimated_wait_seconds));
}

const lost = (gone) => note.set("connection", gone ? word("line.lost") : null);

function notice(id, text) {
  $(id).hidden = !text;
  say(id, text ?? "");
}

async function look(signal) {
  while (!signal.aborted) {
    const now = await state(visit.concert.queue_id).catch(() => null);
    if (signal.aborted) return;
    if (now?.mode === "paused") note.set("line", word("line.paused"));
    else if (now?.mode === "prequeue" && now.opens_at) note.set("line", word("line.before", { time: moment(now.opens_at) }));
    else if (now?.sold_out) note.set("line", word("line.soldout"));
    else if (now) note.set("line", null);
    await pause(5000);
  }
}

let map = null;

async function inside() {
  const { items } = await api("GET", `/concerts/${visit.concert.id}/schedules`);
  $("schedule").replaceChildren(...items.map((date) => make("option", { value: date.id }, moment(date.starts_at))));
  const most = visit.concert.max_seats_per_user;
  say("seats-how", word("book.seats.how", { n: most }));
  say("best", word("book.best", { n: 2 }));
  show("seats");
  $("seats").focus();
  await seats();
}

async function seats() {
  stop.abort();
  stop = new AbortController();
  const signal = stop.signal;
  const schedule = $("schedule").value;
  map = new SeatMap($("map"), visit.concert.max_seats_per_user, (chosen) => {
    $("hold").disabled = chosen.size === 0;
    say("hold", chosen.size ? word("book.hold", { n: chosen.size, amount: money(map?.price() ?? 0) }) : word("book.hold.none"));
  });
  while (!signal.aborted) {
    try {
      const { items } = await api("GET", `/schedules/${schedule}/seats`);
      if (signal.aborted) return;
      map.draw(items);
      const free = items.filter((seat) => seat.status === "available").length;
      say("left", word("book.left", { n: number(free), total: number(items.length) }));
    } catch (problem) {
      if (problem.code === "queue_token_expired") return over("line.expired");
      if (!(problem instanceof Problem)) throw problem;
    }
    await pause(MAP_MS);
  }
}

async function hold() {
  await reserve("/reservations", { schedule_id: $("schedule").value, seats: [...map.chosen] });
}

async function best() {
  await reserve("/reservations/best", { schedule_id: $("schedule").value, quantity: 2 });
}

async function reserve(path, body) {
  try {
    notice("seats-note", null);
    toPay(await api("POST", path, { body }));
  } catch (problem) {
    if (problem.code === "seat_taken") return notice("seats-note", word("book.taken", { seats: problem.body.seats.join(", ") }));
    if (problem.code === "not_enough_seats") return notice("seats-note", word("book.notenough"));
    if (problem.code === "queue_token_expired") return over("line.expired");
    notice("seats-note", problem.message);
  }
}

let issue = null;

function toPay(reservation) {
  stop.abort();
  stop = new AbortController();
  map?.forget();
  visit.reservation = reservation;
  visit.key = uuid();
  $("held-seats").replaceChildren(...lines(reservation));
  say("charge", word("book.charge", { amount: money(CHARGE) }));
  notice("pay-note", null);
  show("pay");
  $("pay").focus();
  countdown(reservation, stop.signal);
  balance().catch(failed);
  coupons().catch(() => {});
}

const lines = (reservation) => reservation.seats.map((seat) => make("li", {}, make("strong", {}, String(seat.number)), ` ${seat.section} · ${money(seat.price)}`));

async function countdown(reservation, signal) {
  while (!signal.aborted) {
    const left = (new Date(reservation.held_until) - Date.now()) / 1000;
    if (left <= 0) return over("book.lapsed");
    const text = `${Math.floor(left / 60)}:${String(Math.floor(left % 60)).padStart(2, "0")}`;
    say("held-for", word("book.heldfor", { time: text }));
    await pause(500);
  }
}

async function balance() {
  const wallet = await api("GET", "/wallet", { token: false });
  visit.balance = wallet.balance;
  price();
}

function price() {
  const off = $("coupon").checked && issue ? Math.min(issue.discount, visit.reservation.amount) : 0;
  const due = visit.reservation.amount - off;
  say("price", money(due));
  say("balance", money(visit.balance));
  say("do-pay", word("book.pay", { amount: money(due) }));
  // What is to be done next stands out.
  const short = visit.balance < due;
  $("do-pay").disabled = short;
  $("charge").className = short ? "" : "plain";
  $("charge").hidden = !short;
}

async function coupons() {
  const coupon = await call("GET", `/v1/coupons/${COUPON}`);
  const { items } = await api("GET", "/coupons/issues/mine", { token: false });
  const mine = items.find((one) => one.coupon_id === COUPON);
  issue = mine && !mine.used_at && coupon.min_available_amount <= visit.reservation.amount ? { id: mine.id, discount: coupon.discount_amount } : null;
  $("coupon-row").hidden = Boolean(mine?.used_at);
  $("coupon-get").hidden = Boolean(mine);
  $("coupon-use").hidden = !issue;
  say("coupon-get", word("book.coupon.get", { n: number(coupon.total_quantity - coupon.issued_quantity) }));
  say("coupon-text", word("book.coupon", { amount: money(coupon.discount_amount) }));
  price();
}

async function takeCoupon() {
  try {
    await api("POST", `/coupons/${COUPON}/issues`, { token: false });
    await coupons();
    $("coupon").checked = Boolean(issue);
    price();
  } catch (problem) {
    notice("pay-note", problem.code === "sold_out" ? word("book.coupon.gone") : problem.message);
  }
}

async function charge() {
  await api("POST", "/wallet/charges", { token: false, key: uuid(), body: { amount: CHARGE } });
  await balance();
}

// One key until the outcome is known: pressing twice, or after a lost answer, pays once.
async function pay() {
  $("do-pay").disabled = true;
  const body = { reservation_id: visit.reservation.id };
  if ($("coupon").checked && issue) body.coupon_issue_id = issue.id;
  try {
    let payment = await api("POST", "/payments", { key: visit.key, body });
    while (payment.status === "pending") {
      notice("pay-note", word("book.pending"));
      await pause(500);
      payment = await api("GET", `/payments/${payment.id}`);
    }
    if (payment.status !== "confirmed") throw new Problem(409, { code: payment.status, detail: payment.status });
    visit.token = null;
    sessionStorage.removeItem("usher-token");
    stop.abort();
    say("done-title", word("book.done"));
    say("done-show", `${visit.reservation.concert_title} · ${moment(visit.reservation.starts_at)}`);
    $("done-seats").replaceChildren(...lines(visit.reservation));
    say("paid", money(payment.paid));
    say("done-balance", money(payment.balance_after));
    $("cancel").hidden = false;
    show("done");
    $("done").focus();
  } catch (problem) {
    if (problem.code === "hold_expired") return over("book.lapsed");
    if (problem.status >= 400) visit.key = uuid();
    notice("pay-note", problem.code === "insufficient_balance" ? word("book.poor") : problem.message);
    price();
  }
}

async function release() {
  await api("DELETE", `/reservations/${visit.reservation.id}`);
  visit.reservation = null;
  await enter(visit.concert);
}

async function cancel() {
  await api("POST", `/reservations/${visit.reservation.id}/cancel`, { token: false, key: `cancel-${visit.reservation.id}` });
  say("done-title", word("book.cancelled"));
  $("cancel").hidden = true;
  say("done-balance", money((await api("GET", "/wallet", { token: false })).balance));
}

function over(reason, detail) {
  stop.abort();
  visit.token = null;
  sessionStorage.removeItem("usher-token");
  say("reason", word(reason));
  say("detail", detail ? word(detail) : "");
  show("over");
}

function failed(problem) {
  if (!(problem instanceof Problem)) throw problem;
  over("line.lost", null);
  say("reason", word("error", { detail: problem.message }));
}
