// Follows a user's ticket in a queue.

// Calls `onTicket(ticket)` for every change of the ticket and `onConnection(problem)` when the
// connection is lost, or with null when it is restored. Returns when the ticket no longer waits or
// `signal` is aborted.
export async function followTicket(visit, { onTicket, onConnection, signal }) {
  const options = { stream: true, maxOutageMs: Infinity, onOutage: onConnection, signal };
  try {
    for await (const ticket of visit.tickets(options)) onTicket(ticket);
  } catch (problem) {
    if (signal.aborted) return;
    if (!["queue_token_expired", "invalid_queue_token"].includes(problem.code)) throw problem;
    onTicket({ ...visit.ticket, status: "expired" });
  }
}
