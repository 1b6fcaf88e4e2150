// A user's way through the line: the ticket as it changes, by server-sent events, by polling where those can't be had.

import { call, pause, Problem } from "./api.js";

// Streams that failed in a row before polling takes over.
const PATIENCE = 3;

// Calls `told(ticket)` whenever the ticket changes and `lost(true|false)` when the connection goes or comes back. Ends with the ticket's status when it
// is no longer waiting, or when `stop.aborted`.
export async function follow(queue, ticket, { told, lost, stop }) {
  told(ticket);
  let failures = 0;
  while (ticket.status === "waiting" && !stop.aborted) {
    if (failures < PATIENCE && "EventSource" in window) {
      const last = await stream(queue, ticket.token, { told: (news) => told((ticket = news)), lost, stop });
      failures = last ? 0 : failures + 1;
      if (failures) await pause(1000 + Math.random() * 2000);
      continue;
    }
    await pause(ticket.poll_after_ms);
    if (stop.aborted) break;
    try {
      ticket = await poll(queue, ticket.token);
      lost(false);
      told(ticket);
    } catch (problem) {
      if (problem.code === "queue_token_expired") return told({ ...ticket, status: "expired" });
      lost(true);
      await pause(Math.max(problem.retryAfterMs, 1000));
    }
  }
}

export const poll = (queue, token) =>
  call("GET", `/v1/queues/${queue}/tokens/me`, { headers: { "Queue-Token": token } });

export const leave = (queue, token) =>
  call("DELETE", `/v1/queues/${queue}/tokens/me`, { headers: { "Queue-Token": token } });

export const state = (queue) => call("GET", `/v1/queues/${queue}`);

// One connection. Resolves to whether it brought a ticket, once it has ended.
function stream(queue, token, { told, lost, stop }) {
  return new Promise((done) => {
    const source = new EventSource(`/v1/queues/${queue}/tokens/me/events?token=${encodeURIComponent(token)}`);
    let brought = false;
    const end = () => {
      source.close();
      done(brought);
    };
    stop.addEventListener("abort", end, { once: true });
    source.addEventListener("ticket", (event) => {
      const ticket = JSON.parse(event.data);
      brought = true;
      lost(false);
      told(ticket);
      if (ticket.status !== "waiting") end();
    });
    source.addEventListener("error", () => {
      lost(true);
      end();
    });
  });
}

export { Problem };
