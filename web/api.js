// The client of the pages: clients/typescript, compiled into client/, with the settings of a page.

import { waitOrWake } from "./activity.js";

export { UsherClient } from "./client/client.js";
export { ProblemError, UsherError } from "./client/errors.js";
export { newIdempotencyKey } from "./client/transport.js";

// The clock of a device can be wrong by minutes. Countdowns use the clock of the service.
let clockOffsetMs = 0;
export const serverNow = () => Date.now() + clockOffsetMs;

async function fetchFresh(url, init) {
  const response = await fetch(url, { ...init, cache: "no-store" });
  const date = Date.parse(response.headers.get("Date") ?? "");
  if (date) clockOffsetMs = date - Date.now();
  return response;
}

const clock = {
  now: () => performance.now(),
  random: () => Math.random(),
  // Ends at once when the tab is shown or the connection returns.
  async sleep(ms, signal) {
    await waitOrWake(ms, signal);
    signal?.throwIfAborted();
  },
};

// A call has one attempt, because the pages show errors at once and retry with a countdown.
export const clientOptions = { url: "", retry: { maxAttempts: 1 }, fetch: fetchFresh, clock };

// How long the service asks to wait after an error.
export const retryAfterMs = (problem) => (problem.retryAfter ?? 0) * 1000;
