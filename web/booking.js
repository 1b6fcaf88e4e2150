// The booking demo: concerts, queue, seats, payment, ticket. The browser generates its own user.

import { countDown, startStep } from "./activity.js";
import { retryAfterMs, UsherError } from "./api.js";
import { storedAttempt } from "./attempts.js";
import { $, createElement, describeProblem, setText, showView } from "./dom.js";
import { showEnd, showProblem } from "./end_view.js";
import { formatDateTime, formatDuration, formatNumber, localizePage, message } from "./messages.js";
import { startPayment } from "./payment.js";
import { followTicket } from "./queue.js";
import { startSeatSelection } from "./seat_selection.js";
import { showConnection, showTicket } from "./ticket_view.js";
import {
  forgetToken, readConcert, readToken, readWallet, storeConcert, storeToken, usher,
} from "./user.js";

// The time before an automatic retry, unless the service names a longer one.
const RETRY_MS = 3000;

let concert = null;
let visit = null;

localizePage();
$("leave").addEventListener("click", leave);
$("another").addEventListener("click", showConcerts);
$("others-link").addEventListener("click", showConcerts);
start();

// Returns to an open hold, to the position in the queue, or to the list of concerts.
async function start() {
  try {
    const [concerts, { items }] = await Promise.all([
      loadConcerts(), usher.listReservations(), readWallet(),
    ]);
    const open = items.find(({ status }) => ["held", "paying"].includes(status));
    concert = concerts.find(({ id }) => id === (open?.concert_id ?? readConcert()));
    if (open && concert) return pay(open);
    if (concert && (readToken() || storedAttempt("hold"))) return await joinQueue();
    showView("concerts");
  } catch (problem) {
    showProblem(problem, start);
  }
}

async function showConcerts() {
  startStep();
  try {
    await loadConcerts();
    showView("concerts");
  } catch (problem) {
    showProblem(problem, showConcerts);
  }
}

async function loadConcerts() {
  const items = await usher.listConcerts();
  const cards = items.map(concertCard);
  if (cards.length === 0) cards.push(createElement("p", {}, message("booking.none")));
  $("concert-list").replaceChildren(...cards);
  return items;
}

function concertCard(item) {
  // The space keeps the height of the line until the queue's state has arrived.
  const state = createElement("p", { class: "muted" }, "\u00a0");
  const onclick = () => {
    concert = item;
    joinQueue();
  };
  const button = createElement("button", { onclick }, message("booking.join"));
  usher.getQueue(item.queue_id).then(
    (queue) => (state.textContent = describeQueue(queue)),
    (problem) => (state.textContent = describeProblem(problem)),
  );
  const title = createElement("h2", {}, item.title);
  return createElement("article", { class: "card" }, title, state, createElement("p", {}, button));
}

function describeQueue(queue) {
  if (queue.mode === "closed") return message("queue.closed.short");
  if (queue.mode === "paused") return message("queue.paused.short");
  if (queue.mode === "prequeue") {
    const time = queue.opens_at && formatDateTime(queue.opens_at);
    return time ? message("queue.prequeue.short", { time }) : message("queue.opens.soon");
  }
  if (queue.sold_out) return message("queue.soldout.short");
  if (queue.waiting === 0) return message("booking.queue.empty");
  const values = { n: formatNumber(queue.waiting) };
  const seconds = queue.estimated_wait_seconds;
  if (seconds === null) return message("booking.queue.unknown", values);
  return message("booking.queue", { ...values, wait: formatDuration(seconds) });
}

async function joinQueue() {
  let signal = startStep();
  storeConcert(concert.id);
  try {
    visit = await requestVisit();
    if (!visit) return;
    signal = startStep();
    await followTicket(visit, { onTicket, onConnection: showConnection, signal });
  } catch (problem) {
    if (signal.aborted) return;
    if (problem.code === "queue_closed") return showEnd("queue.closed", { action: joinQueue });
    showProblem(problem, joinQueue);
  }
}

// Retries until the service answers. Returns undefined when another step began.
async function requestVisit() {
  for (;;) {
    try {
      return await usher.joinQueue(concert.queue_id);
    } catch (problem) {
      if (!(problem instanceof UsherError) || !problem.isTemporary) throw problem;
      const title = message(problem.code === "queue_full" ? "queue.full" : "error.title");
      showEnd("error", { title, detail: describeProblem(problem), action: joinQueue });
      const signal = startStep();
      const onRest = (seconds) => {
        setText("retrying", message("error.retrying", { time: formatDuration(seconds) }));
      };
      // Jitter spreads the retries of many visitors.
      const wait = Math.max(retryAfterMs(problem), RETRY_MS) * (1 + Math.random() / 2);
      await countDown(wait, onRest, signal);
      if (signal.aborted) return;
    }
  }
}

function onTicket(ticket) {
  storeToken(ticket.token);
  if (ticket.status === "expired") return endVisit("queue.expired");
  if (ticket.status === "active") {
    startSeatSelection(concert, ticket, { onHeld: pay, onEnd: endVisit, onProblem });
    return;
  }
  showView("queue");
  showTicket(ticket);
}

const onProblem = (problem) => showProblem(problem, joinQueue);

// `reservation` is held, or its payment is in progress.
function pay(reservation) {
  startPayment(reservation, { onEnd: endVisit, onReleased: joinQueue, onProblem });
}

async function leave() {
  startStep();
  await visit.leave().catch(() => {});
  endVisit("queue.left");
}

// The token is over. `reason` has a title and an explanation.
function endVisit(reason) {
  forgetToken();
  if (reason === "booking.dates.none") return showEnd(reason, { action: joinQueue });
  showEnd(reason, { label: "queue.rejoin", action: joinQueue });
}
