// Follows the seats of a schedule: by server-sent events, with polling as the fallback. A hidden
// tab neither streams nor polls.

import { waitOrWake, whenVisible } from "./activity.js";
import { retryAfterMs } from "./api.js";
import { callApi, readToken } from "./user.js";

const MIN_POLL_INTERVAL_MS = 1000;
// Consecutive failed streams before polling replaces streaming.
const MAX_STREAM_FAILURES = 3;

// Calls `onStatus(view)` with the whole state, `onChanges(items)` with what has changed since, and
// `onConnection(problem)` when the connection is lost, or with null when it is restored. Throws the
// problem that ended it. Returns when `signal` is aborted.
export async function followSeats(schedule, handlers, signal) {
  let failures = 0;
  while (!signal.aborted) {
    await whenVisible(signal);
    if (failures < MAX_STREAM_FAILURES && "EventSource" in window) {
      const received = await streamSeats(schedule, handlers, signal);
      failures = received ? 0 : failures + 1;
    }
    await whenVisible(signal);
    if (signal.aborted) return;
    // After a stream, the poll finds out why it has ended.
    let wait = MIN_POLL_INTERVAL_MS * (1 + Math.random());
    try {
      const view = await callApi("GET", `/schedules/${schedule}/seats?view=status`);
      if (signal.aborted) return;
      await handlers.onStatus(view);
      handlers.onConnection(null);
    } catch (problem) {
      if (!problem.isTemporary) throw problem;
      handlers.onConnection(problem);
      wait = Math.max(retryAfterMs(problem), wait);
    }
    await waitOrWake(wait, signal);
  }
}

// Opens one stream. Resolves when it has ended or the tab is hidden, with whether it delivered an
// event.
function streamSeats(schedule, { onStatus, onChanges, onConnection }, signal) {
  return new Promise((resolve, reject) => {
    const token = encodeURIComponent(readToken());
    const source = new EventSource(`/v1/schedules/${schedule}/seats/events?token=${token}`);
    const closed = new AbortController();
    let received = false;
    const close = () => {
      source.close();
      closed.abort();
    };
    const end = () => {
      close();
      resolve(received);
    };
    const onHidden = () => document.hidden && end();
    // Events are handled one after the other, because a changed layout is loaded first.
    let handled = Promise.resolve();
    const on = (name, handle) =>
      source.addEventListener(name, ({ data }) => {
        received = true;
        const next = () => !closed.signal.aborted && handle(JSON.parse(data));
        handled = handled.then(next).catch((problem) => {
          close();
          if (problem.isTemporary) resolve(received);
          else reject(problem);
        });
      });
    on("status", async (view) => {
      await onStatus(view);
      onConnection(null);
    });
    on("seats", ({ items }) => onChanges(items));
    signal.addEventListener("abort", end, { signal: closed.signal });
    document.addEventListener("visibilitychange", onHidden, { signal: closed.signal });
    source.addEventListener("error", end);
    if (signal.aborted || document.hidden) end();
  });
}
