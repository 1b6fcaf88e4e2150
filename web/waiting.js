// The waiting page. It joins the queue, shows the position and continues to the site after
// admission. A cookie keeps the position across reloads and closed tabs.

import { call, ProblemError, sleep } from "./api.js";
import { $, NoticeStack, setText, showView } from "./dom.js";
import {
  formatDateTime, formatDuration, formatNumber, formatTime, localizePage, message,
} from "./messages.js";
import { fetchQueueState, followTicket, leaveQueue } from "./queue.js";

const queue = decodeURIComponent(location.pathname.split("/").pop());
// The queue's state has facts that a ticket does not have: paused, opening time, sold out.
const STATE_REFRESH_MS = 5000;
// How long the visitor can read that it is their turn before the page continues.
const REDIRECT_DELAY_MS = 1500;
const SPOKEN_UPDATE_MS = 20000;

let abort = new AbortController();
let token = null;
let startPosition = null;
let soldOut = false;
let lastSpoken = 0;
const notice = new NoticeStack("notice", ["connection", "queue"]);

localizePage();
$("leave").addEventListener("click", async () => {
  abort.abort();
  await leaveQueue(queue, token).catch(() => {});
  showEnd("queue.expired");
});
$("again").addEventListener("click", () => join());
join();

async function join() {
  abort = new AbortController();
  startPosition = null;
  for (;;) {
    try {
      const ticket = await call("POST", `/waiting/${queue}/place`);
      token = ticket.token;
      watchQueueState(abort.signal);
      return await followTicket(queue, ticket, { onTicket, onConnection, signal: abort.signal });
    } catch (problem) {
      if (!(problem instanceof ProblemError)) throw problem;
      if (problem.code === "queue_closed") return showEnd("queue.closed");
      if (problem.code === "not_found") return showEnd("queue.missing");
      if (problem.code === "unauthenticated") return showEnd("queue.signin", "queue.signin.why");
      showEnd(problem.code === "queue_full" ? "queue.full" : "queue.disconnected");
      // Jitter spreads the retries of many visitors.
      await sleep(Math.max(problem.retryAfterMs, 2000) * (1 + Math.random()));
    }
  }
}

function onTicket(ticket) {
  token = ticket.token;
  soldOut = ticket.sold_out;
  if (ticket.status === "active") return onAdmitted(ticket);
  if (ticket.status === "expired") return showEnd("queue.expired");
  showView("waiting");
  setText("others", formatNumber(ticket.waiting));
  // Before the draw of a lottery there are no positions.
  if (ticket.position === null) {
    setText("position", "–");
    setText("wait", message("queue.estimate.unknown"));
    return;
  }
  startPosition ??= loadStartPosition(ticket.position);
  const position = formatNumber(ticket.position);
  setText("position", ticket.position === 1 ? message("queue.next") : position);
  const seconds = ticket.estimated_wait_seconds;
  setText("wait", seconds === null ? message("queue.estimate.unknown") : formatDuration(seconds));
  $("progress").value = startPosition > 1 ? 1 - (ticket.position - 1) / startPosition : 1;
  document.title = `(${position}) Usher`;
  announce(`${message("queue.position")}: ${position}`);
}

// Progress is relative to the first position. It survives a reload.
function loadStartPosition(position) {
  const key = `usher-first-${queue}`;
  const stored = Number(sessionStorage.getItem(key));
  const start = stored >= position ? stored : position;
  sessionStorage.setItem(key, start);
  return start;
}

// Limits how often a screen reader announces the position.
function announce(text) {
  if (Date.now() - lastSpoken < SPOKEN_UPDATE_MS) return;
  lastSpoken = Date.now();
  setText("spoken", text);
}

async function onAdmitted(ticket) {
  abort.abort();
  // Without the cookie the site would send the visitor back here, and each time a new slot would be
  // used.
  if (!await isCookieKept()) return showEnd("queue.cookie", "queue.cookie.why");
  // Only an address on this site is a valid target.
  const requested = new URLSearchParams(location.search).get("return") ?? "/";
  const url = new URL(requested, location.origin);
  const target = url.origin === location.origin ? url.href : "/";
  $("go").href = target;
  setText("until", message("queue.until", { time: formatTime(ticket.active_until) }));
  document.title = message("queue.admitted");
  showView("admitted");
  $("admitted").focus();
  setTimeout(() => location.replace(target), REDIRECT_DELAY_MS);
}

// The gate knows the visitor by the cookie alone. Any other failure does not show that the cookie is
// missing.
async function isCookieKept() {
  try {
    await call("GET", `/v1/queues/${queue}/check`);
    return true;
  } catch (problem) {
    if (!(problem instanceof ProblemError)) throw problem;
    return problem.code !== "not_admitted";
  }
}

function showEnd(reason, detail) {
  abort.abort();
  sessionStorage.removeItem(`usher-first-${queue}`);
  setText("reason", message(reason));
  setText("detail", detail ? message(detail) : "");
  $("again").hidden = !["queue.expired", "queue.closed"].includes(reason);
  document.title = message(reason);
  showView("over");
}

function onConnection(connected) {
  notice.set("connection", connected ? null : message("queue.disconnected"));
}

async function watchQueueState(signal) {
  while (!signal.aborted) {
    const state = await fetchQueueState(queue).catch(() => null);
    if (signal.aborted) return;
    if (state) notice.set("queue", describeState(state));
    await sleep(STATE_REFRESH_MS);
  }
}

function describeState(state) {
  if (state.mode === "paused") return message("queue.paused");
  if (state.mode === "prequeue" && state.opens_at) {
    return message("queue.opens", { time: formatDateTime(state.opens_at) });
  }
  return soldOut ? message("queue.soldout") : null;
}
