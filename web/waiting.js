// The waiting page: joins, shows the place, keeps it over reload and closed tab, and goes on by itself.

import { call, pause, Problem } from "./api.js";
import { $, Note, say, show } from "./dom.js";
import { follow, leave, state } from "./line.js";
import { clock, duration, fill, moment, number, word } from "./words.js";

const queue = decodeURIComponent(location.pathname.split("/").pop());
// How often the line's own state is looked at, for what a ticket does not say.
const LOOK_MS = 5000;
// Time to read that it's one's turn before the page goes on.
const READ_MS = 1500;

let stop = new AbortController();
let first = null;
let sold = false;
const note = new Note("notice", ["connection", "line"]);

fill();
$("leave").addEventListener("click", async () => {
  stop.abort();
  await leave(queue, token).catch(() => {});
  over("line.expired");
});
$("again").addEventListener("click", () => enter());
let token = null;
enter();

async function enter() {
  stop = new AbortController();
  first = null;
  for (;;) {
    try {
      const ticket = await call("POST", `/waiting/${queue}/place`);
      token = ticket.token;
      look(stop.signal);
      return await follow(queue, ticket, { told, lost, stop: stop.signal });
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (problem.code === "queue_closed") return over("line.closed");
      if (problem.code === "not_found") return over("line.missing");
      if (problem.code === "unauthenticated") return over("line.signin", "line.signin.why");
      over(problem.code === "queue_full" ? "line.full" : "line.lost");
      await pause(Math.max(problem.retryAfterMs, 2000) * (1 + Math.random()));
    }
  }
}

function told(ticket) {
  token = ticket.token;
  sold = ticket.sold_out;
  if (ticket.status === "active") return inside(ticket);
  if (ticket.status === "expired") return over("line.expired");
  first ??= remembered(ticket.position);
  show("waiting");
  say("position", ticket.position === 1 ? word("line.next") : number(ticket.position));
  say("others", number(ticket.waiting));
  const wait = ticket.estimated_wait_seconds;
  say("wait", wait === null ? word("line.unknown") : duration(wait));
  $("progress").value = first > 1 ? 1 - (ticket.position - 1) / first : 1;
  document.title = `(${number(ticket.position)}) Usher`;
  speak(`${word("line.ahead")}: ${number(ticket.position)}`);
}

// The place that progress is measured from outlives a reload.
function remembered(position) {
  const key = `usher-first-${queue}`;
  const kept = Number(sessionStorage.getItem(key));
  const value = kept >= position ? kept : position;
  sessionStorage.setItem(key, value);
  return value;
}

// Screen readers hear the place every twenty seconds at most.
let spoken = 0;
function speak(text) {
  if (Date.now() - spoken < 20000) return;
  spoken = Date.now();
  say("spoken", text);
}

function inside(ticket) {
  stop.abort();
  const back = new URL(new URLSearchParams(location.search).get("return") ?? "/", location.origin);
  const target = back.origin === location.origin ? back.href : "/";
  $("go").href = target;
  say("until", word("line.until", { time: clock(ticket.active_until) }));
  document.title = word("line.in");
  show("inside");
  $("inside").focus();
  setTimeout(() => location.replace(target), READ_MS);
}

function over(reason, detail) {
  stop.abort();
  sessionStorage.removeItem(`usher-first-${queue}`);
  say("reason", word(reason));
  say("detail", detail ? word(detail) : "");
  $("again").hidden = !["line.expired", "line.closed"].includes(reason);
  document.title = word(reason);
  show("over");
}

const lost = (gone) => note.set("connection", gone ? word("line.lost") : null);

async function look(signal) {
  while (!signal.aborted) {
    const now = await state(queue).catch(() => null);
    if (signal.aborted) return;
    if (now?.mode === "paused") note.set("line", word("line.paused"));
    else if (now?.mode === "prequeue" && now.opens_at) note.set("line", word("line.before", { time: moment(now.opens_at) }));
    else if (sold) note.set("line", word("line.soldout"));
    else if (now) note.set("line", null);
    await pause(LOOK_MS);
  }
}
