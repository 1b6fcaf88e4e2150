// Requests that must take effect once: holds, charges, payments and cancellations.
//
// The request, its queue token and its idempotency key are stored before the first try. When the
// answer is lost, a reload or another tab sends the same request again and learns its result. The
// stored attempt ends with the first certain answer.

import { newIdempotencyKey, UsherError } from "./api.js";
import { deviceStorage } from "./storage.js";
import { callApi, readToken } from "./user.js";

const PREFIX = "usher-attempt-";

// The stored attempt, or null.
export function storedAttempt(name) {
  try {
    return JSON.parse(deviceStorage.getItem(PREFIX + name));
  } catch {
    return null;
  }
}

// The names of the stored attempts.
export function storedAttempts() {
  const keys = Object.keys(deviceStorage).filter((key) => key.startsWith(PREFIX));
  return keys.map((key) => key.slice(PREFIX.length));
}

// Sends a POST request as the attempt `name`. A stored attempt of that name goes first, because it
// may have taken effect; its result is returned.
export async function sendOnce(name, path, { body, token = readToken() } = {}) {
  const earlier = storedAttempt(name) && (await repeatAttempt(name));
  if (earlier) return earlier;
  const attempt = { key: newIdempotencyKey(), path, body, token };
  deviceStorage.setItem(PREFIX + name, JSON.stringify(attempt));
  return send(name, attempt);
}

// Sends the stored attempt again. Returns null when it was refused, and so had no effect, or when
// another tab has ended it.
export async function repeatAttempt(name) {
  const attempt = storedAttempt(name);
  try {
    return attempt && (await send(name, attempt));
  } catch (problem) {
    if (!(problem instanceof UsherError) || problem.isTemporary) throw problem;
    return null;
  }
}

async function send(name, { path, ...options }) {
  try {
    const result = await callApi("POST", path, options);
    endAttempt(name);
    return result;
  } catch (problem) {
    if (!problem.isTemporary) endAttempt(name);
    throw problem;
  }
}

const endAttempt = (name) => deviceStorage.removeItem(PREFIX + name);
