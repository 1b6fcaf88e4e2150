// The choice of a date and of seats, by an active user.

import { startStep, waitOrWake, whenVisible } from "./activity.js";
import { retryAfterMs, UsherError } from "./api.js";
import { repeatAttempt, sendOnce, storedAttempt } from "./attempts.js";
import { $, createElement, describeProblem, setNotice, setText, showView } from "./dom.js";
import { formatDateTime, formatMoney, formatNumber, formatTime, message } from "./messages.js";
import { SeatMap } from "./seatmap.js";
import { callApi } from "./user.js";

const SEAT_REFRESH_MS = 1000;
const BEST_SEATS_QUANTITY = 2;
// Errors after which the user must join the queue again, and the end that the page shows.
const ENDS = {
  queue_token_expired: "queue.expired",
  invalid_queue_token: "queue.expired",
  not_admitted: "queue.expired",
  visit_over: "booking.visit_over",
};

let concert = null;
let seatMap = null;
let events = null;

$("hold").addEventListener("click", holdSelectedSeats);
$("best").addEventListener("click", holdBestSeats);
$("schedule").addEventListener("change", watchSeats);

// `onHeld(reservation)` continues to the payment, `onEnd(reason)` shows why the visit is over.
export async function startSeatSelection(ofConcert, ticket, handlers) {
  concert = ofConcert;
  events = handlers;
  const signal = startStep();
  try {
    // The answer to a hold got lost before a reload.
    const earlier = storedAttempt("hold") && (await repeatAttempt("hold"));
    if (isOpen(earlier)) return events.onHeld(earlier);
    const { items } = await callApi("GET", `/concerts/${concert.id}/schedules`);
    if (signal.aborted) return;
    if (items.length === 0) return events.onEnd("booking.dates.none");
    $("schedule").replaceChildren(...items.map(dateOption));
    if (!$("schedule").value) return events.onEnd("booking.dates.none");
  } catch (problem) {
    return endOr(problem, () => events.onProblem(problem));
  }
  setText("seats-until", message("queue.until", { time: formatTime(ticket.active_until) }));
  setText("seats-help", message("booking.seats.help", { n: concert.max_seats_per_user }));
  setText("best", message("booking.best", { n: BEST_SEATS_QUANTITY }));
  setNotice("seats-note", null);
  showView("seats");
  $("seats").focus();
  await watchSeats();
}

function dateOption({ id, starts_at: startsAt, bookable, not_bookable_reason: reason }) {
  const date = formatDateTime(startsAt);
  const text = reason
    ? message("booking.date.option", { date, reason: message(`booking.reason.${reason}`) })
    : date;
  // A sold-out date stays open: its map shows seats that are cancelled.
  const disabled = bookable === false && reason !== "sold_out";
  return createElement("option", { value: id, disabled }, text);
}

// Shows the end of the visit for errors that mean one, and calls `otherwise` for the rest.
function endOr(problem, otherwise) {
  if (!(problem instanceof UsherError)) throw problem;
  const end = ENDS[problem.code];
  return end ? events.onEnd(end) : otherwise();
}

async function watchSeats() {
  const signal = startStep();
  const schedule = $("schedule").value;
  seatMap = new SeatMap($("map"), concert.max_seats_per_user, showSelection);
  while (!signal.aborted) {
    let wait = SEAT_REFRESH_MS;
    try {
      const { items } = await callApi("GET", `/schedules/${schedule}/seats`);
      if (signal.aborted) return;
      seatMap.draw(items);
      showAvailable(items);
      setNotice("seats-connection", null);
    } catch (problem) {
      if (signal.aborted) return;
      if (ENDS[problem.code] || !problem.isTemporary) {
        return endOr(problem, () => events.onProblem(problem));
      }
      setNotice("seats-connection", describeProblem(problem));
      wait = Math.max(retryAfterMs(problem), SEAT_REFRESH_MS);
    }
    await waitOrWake(wait, signal);
    await whenVisible(signal);
  }
}

function showAvailable(items) {
  const available = items.filter((seat) => seat.status === "available").length;
  const counts = { n: formatNumber(available), total: formatNumber(items.length) };
  setText("available", message("booking.available", counts));
  setNotice("seats-soldout", available === 0 ? message("booking.soldout") : null);
  $("best").hidden = available === 0;
}

function showSelection(selected) {
  $("hold").disabled = selected.size === 0;
  const amount = formatMoney(seatMap?.totalPrice() ?? 0);
  const text = selected.size
    ? message("booking.hold", { n: selected.size, amount })
    : message("booking.hold.none");
  setText("hold", text);
}

function holdSelectedSeats() {
  const body = { schedule_id: $("schedule").value, seats: [...seatMap.selected] };
  return tryHold("/reservations", body);
}

function holdBestSeats() {
  const body = { schedule_id: $("schedule").value, quantity: BEST_SEATS_QUANTITY };
  return tryHold("/reservations/best", body);
}

async function tryHold(path, body) {
  setNotice("seats-note", null);
  try {
    await hold(path, body);
  } catch (problem) {
    endOr(problem, () => setNotice("seats-note", describeHoldProblem(problem)));
  }
}

// A repeated attempt may return a hold that has ended meanwhile.
async function hold(path, body) {
  const reservation = await sendOnce("hold", path, { body });
  if (isOpen(reservation)) events.onHeld(reservation);
  else await hold(path, body);
}

const isOpen = (reservation) => ["held", "paying"].includes(reservation?.status);

function describeHoldProblem(problem) {
  if (problem.code === "seat_taken") {
    return message("booking.taken", { seats: problem.body.seats.join(", ") });
  }
  if (problem.code === "seat_limit_exceeded") {
    return message("booking.limit", { n: concert.max_seats_per_user });
  }
  return describeProblem(problem);
}
