// HTTP calls to the service. A failed call throws a ProblemError with the `code` of the response.

export class ProblemError extends Error {
  // `status` is 0 when no response arrived.
  constructor(status, body, retryAfter) {
    super(body?.detail ?? "");
    this.status = status;
    this.code = body?.code ?? "unreachable";
    this.body = body ?? {};
    this.retryAfterMs = (Number(retryAfter) || 0) * 1000;
  }

  // Whether the request may succeed later. After any other answer it has taken no effect.
  get isTemporary() {
    return this.status === 0 || this.status >= 500 || [408, 425, 429].includes(this.status);
  }
}

export async function call(method, path, { headers = {}, body } = {}) {
  const request = { method, headers: { ...headers }, cache: "no-store" };
  if (body !== undefined) {
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  let response;
  let text;
  try {
    response = await fetch(path, request);
    text = await response.text();
  } catch {
    throw new ProblemError(0, { code: navigator.onLine ? "unreachable" : "offline" }, 2);
  }
  const date = Date.parse(response.headers.get("Date") ?? "");
  if (date) clockOffsetMs = date - Date.now();
  let value = null;
  try {
    value = text ? JSON.parse(text) : null;
  } catch {
    // A proxy answered with its own page. The status is enough.
  }
  if (!response.ok) {
    throw new ProblemError(response.status, value, response.headers.get("Retry-After"));
  }
  return value;
}

// The clock of a device can be wrong by minutes. Countdowns use the clock of the service.
let clockOffsetMs = 0;
export const serverNow = () => Date.now() + clockOffsetMs;

// `crypto.randomUUID` exists only in secure contexts. This works over plain HTTP too.
export function randomUuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const parts = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20)];
  return [...parts, hex.slice(20)].join("-");
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
