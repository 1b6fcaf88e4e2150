// Follows a user's ticket in a queue: by server-sent events, with polling as the fallback.
//
// A hidden tab has no stream. It asks for its ticket at the interval of the service, which is the
// longest one at which neither the place nor the turn is lost.

import { waitOrWake } from "./activity.js";
import { call } from "./api.js";

// Consecutive failed streams before polling replaces streaming.
const MAX_STREAM_FAILURES = 3;

// Calls `onTicket(ticket)` for every change of the ticket and `onConnection(problem)` when the
// connection is lost, or with null when it is restored. Returns when the ticket no longer waits or
// `signal` is aborted.
export async function followTicket(queue, ticket, { onTicket, onConnection, signal }) {
  onTicket(ticket);
  let failures = 0;
  while (ticket.status === "waiting" && !signal.aborted) {
    const isHidden = document.hidden;
    if (!isHidden && failures < MAX_STREAM_FAILURES && "EventSource" in window) {
      const update = (next) => {
        onConnection(null);
        onTicket((ticket = next));
      };
      const received = await streamTicket(queue, ticket.token, update, signal);
      failures = received ? 0 : failures + 1;
      if (received) continue;
      // The poll finds out why there is no stream.
      await waitOrWake(1000 + Math.random() * 2000, signal);
    } else {
      await waitOrWake(ticket.poll_after_ms, signal);
      if (isHidden && !document.hidden) {
        failures = 0;
        continue;
      }
    }
    if (signal.aborted) return;
    try {
      ticket = await pollTicket(queue, ticket.token);
      onConnection(null);
      onTicket(ticket);
    } catch (problem) {
      if (["queue_token_expired", "invalid_queue_token"].includes(problem.code)) {
        return onTicket({ ...ticket, status: "expired" });
      }
      if (!problem.isTemporary) throw problem;
      onConnection(problem);
      await waitOrWake(Math.max(problem.retryAfterMs, 1000) * (1 + Math.random()), signal);
    }
  }
}

const pollTicket = (queue, token) =>
  call("GET", `/v1/queues/${queue}/tokens/me`, { headers: { "Queue-Token": token } });

export const leaveQueue = (queue, token) =>
  call("DELETE", `/v1/queues/${queue}/tokens/me`, { headers: { "Queue-Token": token } });

export const fetchQueueState = (queue) => call("GET", `/v1/queues/${queue}`);

// Opens one stream. Resolves when it has ended or the tab is hidden, with whether it delivered a
// ticket.
function streamTicket(queue, token, update, signal) {
  return new Promise((resolve) => {
    const path = `/v1/queues/${queue}/tokens/me/events?token=${encodeURIComponent(token)}`;
    const source = new EventSource(path);
    const closed = new AbortController();
    let received = false;
    const end = () => {
      source.close();
      closed.abort();
      resolve(received);
    };
    const onHidden = () => {
      if (!document.hidden) return;
      received = true;
      end();
    };
    signal.addEventListener("abort", end, { signal: closed.signal });
    document.addEventListener("visibilitychange", onHidden, { signal: closed.signal });
    source.addEventListener("ticket", (event) => {
      const ticket = JSON.parse(event.data);
      received = true;
      update(ticket);
      if (ticket.status !== "waiting") end();
    });
    source.addEventListener("error", end);
  });
}
