// The choice of a date and of seats, by an active user.

import { startStep } from "./activity.js";
import { UsherError } from "./api.js";
import { repeatAttempt, sendOnce, storedAttempt } from "./attempts.js";
import { $, createElement, describeProblem, setNotice, setText, showView } from "./dom.js";
import { formatDateTime, formatMoney, formatNumber, formatTime, message } from "./messages.js";
import { SeatHall } from "./seat_hall.js";
import { followSeats } from "./seat_stream.js";
import { SeatMap } from "./seatmap.js";
import { callApi } from "./user.js";

const BEST_SEATS_QUANTITY = 2;
// Errors after which the user must join the queue again, and the end that the page shows.
const ENDS = {
  queue_token_expired: "queue.expired",
  invalid_queue_token: "queue.expired",
  not_admitted: "queue.expired",
  visit_over: "booking.visit_over",
};

let concert = null;
let events = null;
let hall = null;
// The drawn part of the hall.
let part = null;
// The numbers of the selected seats.
let selected = new Set();
let seatMap = null;

$("hold").addEventListener("click", holdSelectedSeats);
$("best").addEventListener("click", holdBestSeats);
$("schedule").addEventListener("change", watchSeats);
$("part").addEventListener("change", choosePart);

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
  hall = new SeatHall();
  selected = new Set();
  part = null;
  seatMap = new SeatMap($("map"), selected, toggleSeat);
  let layoutTag = null;
  const onStatus = async (view) => {
    if (view.layout_etag !== layoutTag) {
      const path = `/schedules/${schedule}/layout`;
      const { sections } = await callApi("GET", path, { token: null });
      if (signal.aborted) return;
      hall.setLayout(sections);
      part = null;
      layoutTag = view.layout_etag;
    }
    hall.setStatuses(view.statuses);
    showHall();
  };
  const onChanges = (items) => showChanges(hall.change(items));
  const onConnection = (problem) => {
    setNotice("seats-connection", problem && describeProblem(problem));
  };
  try {
    await followSeats(schedule, { onStatus, onChanges, onConnection }, signal);
  } catch (problem) {
    if (!signal.aborted) endOr(problem, () => events.onProblem(problem));
  }
}

// Draws the chosen part again if it is new, else only what has changed.
function showHall() {
  if (part) return showChanges(hall.seatsOf(part).map(({ number }) => number));
  part = hall.parts.find(({ available }) => available > 0) ?? hall.parts[0];
  $("part-row").hidden = hall.parts.length <= 1;
  $("part").replaceChildren(
    ...hall.parts.map((_, index) => createElement("option", { value: String(index) })),
  );
  $("part").value = String(hall.parts.indexOf(part));
  drawPart();
  showChanges([]);
}

function choosePart() {
  part = hall.parts[Number($("part").value)];
  drawPart();
}

function drawPart() {
  seatMap.draw(hall.seatsOf(part));
}

function showChanges(numbers) {
  for (const number of selected) {
    if (hall.seat(number).status !== "available") selected.delete(number);
  }
  for (const number of numbers) seatMap.update(hall.seat(number));
  showAvailable();
  showSelection();
}

function showAvailable() {
  const { available, total } = hall;
  const counts = { n: formatNumber(available), total: formatNumber(total) };
  setText("available", message("booking.available", counts));
  setNotice("seats-soldout", available === 0 ? message("booking.soldout") : null);
  $("best").hidden = available === 0;
  [...$("part").options].forEach((option, index) => {
    const text = describePart(hall.parts[index]);
    if (option.textContent !== text) option.textContent = text;
  });
}

function describePart({ sections: [{ name, price, from, to }], available }) {
  return message("booking.part", {
    name,
    price: formatMoney(price),
    from: formatNumber(from),
    to: formatNumber(to),
    n: formatNumber(available),
  });
}

function toggleSeat(number) {
  const seat = hall.seat(number);
  if (selected.has(number)) selected.delete(number);
  else if (seat.status === "available" && selected.size < concert.max_seats_per_user) {
    selected.add(number);
  }
  seatMap.update(seat);
  showSelection();
}

function showSelection() {
  const seats = [...selected].map((number) => hall.seat(number));
  $("hold").disabled = seats.length === 0;
  const amount = formatMoney(seats.reduce((sum, { price }) => sum + price, 0));
  const text = seats.length
    ? message("booking.hold", { n: seats.length, amount })
    : message("booking.hold.none");
  setText("hold", text);
  // In a large hall, the selected seats may be in a part that is not drawn.
  const list = seats.map((seat) => message("booking.chosen.seat", seat)).join(", ");
  const isShown = hall.parts.length > 1 && seats.length > 0;
  setNotice("seats-chosen", isShown ? message("booking.chosen", { seats: list }) : null);
}

function holdSelectedSeats() {
  const body = { schedule_id: $("schedule").value, seats: [...selected] };
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
