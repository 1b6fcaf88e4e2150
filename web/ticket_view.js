// The part of a page that shows the ticket of a waiting user: position, wait, notices, countdown to
// the opening and the operator's message. The waiting page and the booking page share it.

import { serverNow } from "./api.js";
import { $, NoticeStack, problemCode, setNotice, setText } from "./dom.js";
import {
  formatCountdown, formatDateTime, formatDuration, formatNumber, message,
} from "./messages.js";

const notice = new NoticeStack("notice", ["connection", "queue"]);
let opensAt = null;
let timer = null;

export function showTicket(ticket) {
  const isPrequeue = ticket.mode === "prequeue";
  setText("others", formatNumber(ticket.waiting));
  setText("position", describePosition(ticket));
  setText("wait", describeWait(ticket.estimated_wait_seconds));
  $("position").classList.toggle("words", !/\d/.test($("position").textContent));
  setNotice("operator-message", ticket.message);
  notice.set("queue", describeState(ticket));
  opensAt = isPrequeue && ticket.opens_at ? Date.parse(ticket.opens_at) : null;
  showCountdown();
}

export function describePosition(ticket) {
  if (ticket.position === 1) return message("queue.next");
  if (ticket.position !== null) return formatNumber(ticket.position);
  return ticket.mode === "prequeue" ? message("queue.draw.position") : "–";
}

export const describeWait = (seconds) =>
  seconds === null ? message("queue.estimate.unknown") : formatDuration(seconds);

function describeState({ mode, opens_at: opens, position, sold_out: soldOut }) {
  if (mode === "closed") return message("queue.closed.waiting");
  if (mode === "paused") return message("queue.paused");
  if (mode === "prequeue") {
    const time = opens && formatDateTime(opens);
    const start = time ? message("queue.opens", { time }) : message("queue.opens.soon");
    return position === null ? `${start} ${message("queue.draw")}` : start;
  }
  return soldOut ? message("queue.soldout") : null;
}

// `problem` is null when the connection works.
export function showConnection(problem) {
  const key = { offline: "queue.offline", overloaded: "queue.busy", rate_limited: "queue.busy" };
  const text = problem && message(key[problemCode(problem)] ?? "queue.disconnected");
  notice.set("connection", text);
}

function showCountdown() {
  const rest = opensAt && opensAt - serverNow();
  $("opening").hidden = !rest || rest <= 0;
  clearTimeout(timer);
  if ($("opening").hidden) return;
  setText("countdown-opening", formatCountdown(rest));
  timer = setTimeout(showCountdown, 1000 - (Date.now() % 1000));
}
