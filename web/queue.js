// Follows a user's ticket in a queue: by server-sent events, with polling as the fallback.

import { call, sleep } from "./api.js";

// Consecutive failed streams before polling replaces streaming.
const MAX_STREAM_FAILURES = 3;

// Calls `onTicket(ticket)` for every change of the ticket and `onConnection(connected)` when the
// connection is lost or restored. Returns when the ticket no longer waits or `signal` is aborted.
export async function followTicket(queue, ticket, { onTicket, onConnection, signal }) {
  onTicket(ticket);
  let failures = 0;
  while (ticket.status === "waiting" && !signal.aborted) {
    if (failures < MAX_STREAM_FAILURES && "EventSource" in window) {
      const update = (next) => onTicket((ticket = next));
      const received = await streamTicket(queue, ticket.token, { update, onConnection, signal });
      failures = received ? 0 : failures + 1;
      if (failures) await sleep(1000 + Math.random() * 2000);
      continue;
    }
    await sleep(ticket.poll_after_ms);
    if (signal.aborted) break;
    try {
      ticket = await pollTicket(queue, ticket.token);
      onConnection(true);
      onTicket(ticket);
    } catch (problem) {
      if (problem.code === "queue_token_expired") {
        return onTicket({ ...ticket, status: "expired" });
      }
      onConnection(false);
      await sleep(Math.max(problem.retryAfterMs, 1000));
    }
  }
}

const pollTicket = (queue, token) =>
  call("GET", `/v1/queues/${queue}/tokens/me`, { headers: { "Queue-Token": token } });

export const leaveQueue = (queue, token) =>
  call("DELETE", `/v1/queues/${queue}/tokens/me`, { headers: { "Queue-Token": token } });

export const fetchQueueState = (queue) => call("GET", `/v1/queues/${queue}`);

// Opens one stream. Resolves when it has ended, with whether it delivered a ticket.
function streamTicket(queue, token, { update, onConnection, signal }) {
  return new Promise((resolve) => {
    const path = `/v1/queues/${queue}/tokens/me/events?token=${encodeURIComponent(token)}`;
    const source = new EventSource(path);
    let received = false;
    const end = () => {
      source.close();
      resolve(received);
    };
    signal.addEventListener("abort", end, { once: true });
    source.addEventListener("ticket", (event) => {
      const ticket = JSON.parse(event.data);
      received = true;
      onConnection(true);
      update(ticket);
      if (ticket.status !== "waiting") end();
    });
    source.addEventListener("error", () => {
      onConnection(false);
      end();
    });
  });
}
