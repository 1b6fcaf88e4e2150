// The waiting page. It joins the queue, shows the position and continues to the site after
// admission. A cookie keeps the position across reloads and closed tabs.

import { countDown } from "./activity.js";
import { clientOptions, retryAfterMs, UsherClient, UsherError } from "./api.js";
import { applyBranding, branding, pageTitle } from "./branding.js";
import { solveChallenge } from "./challenge.js";
import { $, describeProblem, setText, showView } from "./dom.js";
import { formatDuration, formatTime, localizePage, message } from "./messages.js";
import { followTicket } from "./queue.js";
import { tabStorage } from "./storage.js";
import { describePosition, showConnection, showTicket } from "./ticket_view.js";

const queue = decodeURIComponent(location.pathname.split("/").pop());
// How long the visitor can read that it is their turn before the page continues.
const REDIRECT_DELAY_MS = 1500;
const SPOKEN_UPDATE_MS = 20000;
// The time before an automatic retry, unless the service names a longer one.
const RETRY_MS = 3000;

const usher = new UsherClient(clientOptions);
let abort = new AbortController();
let visit = null;
let startPosition = null;
let lastSpoken = 0;

localizePage();
applyBranding();
$("leave").addEventListener("click", async () => {
  abort.abort();
  await visit.leave().catch(() => {});
  showEnd("queue.left", "queue.rejoin");
});
$("again").addEventListener("click", join);
join();

async function join() {
  abort.abort();
  abort = new AbortController();
  const { signal } = abort;
  startPosition = null;
  if (!navigator.cookieEnabled) return showEnd("queue.cookie");
  try {
    const ticket = await requestPlace(signal);
    if (!ticket || signal.aborted) return;
    visit = usher.resumeQueue(queue, ticket);
    await followTicket(visit, { onTicket, onConnection: showConnection, signal });
  } catch (problem) {
    if (!(problem instanceof UsherError)) throw problem;
    if (!signal.aborted) showFinalProblem(problem);
  }
}

// Retries until the service answers. Returns undefined when `signal` aborts.
async function requestPlace(signal) {
  let challenge;
  while (!signal.aborted) {
    try {
      const path = `/waiting/${encodeURIComponent(queue)}/place`;
      return await usher.request({ method: "POST", path, challenge });
    } catch (problem) {
      if (problem.code === "forbidden" && branding.challenge) {
        challenge = await askChallenge();
        if (!challenge) return showEnd("queue.challenge.failed");
      } else if (problem.isTemporary) {
        await showRetry(problem, signal);
      } else {
        throw problem;
      }
    }
  }
}

async function askChallenge() {
  document.title = pageTitle(message("queue.challenge"));
  showView("challenge");
  $("challenge").focus();
  return solveChallenge(branding.challenge, $("widget")).catch(() => null);
}

// Shows why there is no place yet, and counts down to the next try.
async function showRetry(problem, signal) {
  // Jitter spreads the retries of many visitors.
  const wait = Math.max(retryAfterMs(problem), RETRY_MS) * (1 + Math.random() / 2);
  const isFull = problem.code === "queue_full";
  showOver(message(isFull ? "queue.full" : "error.title"), {
    detail: describeProblem(problem),
    action: "error.retry",
  });
  const onRest = (seconds) => {
    setText("retrying", message("error.retrying", { time: formatDuration(seconds) }));
  };
  await countDown(wait, onRest, signal);
}

function showFinalProblem(problem) {
  if (problem.code === "queue_closed") return showEnd("queue.closed", "error.retry");
  if (problem.code === "not_found") return showEnd("missing", null);
  if (problem.code === "unauthenticated") return showSignIn();
  showOver(message("error.title"), { detail: describeProblem(problem), action: "error.retry" });
}

function showSignIn() {
  showEnd("queue.signin", branding.login_url ? null : "error.retry");
  $("sign-in").hidden = !branding.login_url;
  if (branding.login_url) $("sign-in").href = branding.login_url;
}

function onTicket(ticket) {
  if (ticket.status === "active") return onAdmitted(ticket);
  if (ticket.status === "expired") return showEnd("queue.expired", "queue.rejoin");
  showView("waiting");
  showTicket(ticket);
  const position = describePosition(ticket);
  $("progress").hidden = ticket.position === null;
  if (ticket.position === null) {
    document.title = pageTitle(message("queue.title"));
    return;
  }
  startPosition ??= loadStartPosition(ticket.position);
  $("progress").value = startPosition > 1 ? 1 - (ticket.position - 1) / startPosition : 1;
  document.title = pageTitle(`(${position})`);
  announce(`${message("queue.position")}: ${position}`);
}

// Progress is relative to the first position. It survives a reload.
function loadStartPosition(position) {
  const key = `usher-first-${queue}`;
  const stored = Number(tabStorage.getItem(key));
  const start = stored >= position ? stored : position;
  tabStorage.setItem(key, start);
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
  if (!(await isCookieKept())) return showEnd("queue.cookie");
  // Only an address on this site is a valid target.
  const requested = new URLSearchParams(location.search).get("return") ?? "/";
  const url = URL.canParse(requested, location.origin) && new URL(requested, location.origin);
  const target = url && url.origin === location.origin ? url.href : "/";
  $("go").href = target;
  setText("until", message("queue.until", { time: formatTime(ticket.active_until) }));
  document.title = pageTitle(message("queue.admitted"));
  showView("admitted");
  $("admitted").focus();
  setTimeout(() => location.replace(target), REDIRECT_DELAY_MS);
}

// The gate knows the visitor by the cookie alone. Any other failure does not show that the cookie is
// missing.
async function isCookieKept() {
  try {
    await usher.request({ method: "GET", path: `/v1/queues/${encodeURIComponent(queue)}/check` });
    return true;
  } catch (problem) {
    if (!(problem instanceof UsherError)) throw problem;
    return problem.code !== "not_admitted";
  }
}

// Shows the end `reason`, which has a title and an explanation. `action` names the button, or null.
function showEnd(reason, action = "error.retry") {
  const title = reason === "missing" ? "missing.title" : reason;
  abort.abort();
  tabStorage.removeItem(`usher-first-${queue}`);
  showOver(message(title), { detail: message(`${reason}.why`), action });
}

function showOver(title, { detail, action }) {
  setText("reason", title);
  setText("detail", detail);
  setText("retrying", "");
  $("sign-in").hidden = true;
  $("again").hidden = !action;
  if (action) setText("again", message(action));
  document.title = pageTitle(title);
  showView("over");
}
