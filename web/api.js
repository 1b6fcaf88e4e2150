// Calls to the service. Every refusal becomes a Problem with the `code` of the contract.

export class Problem extends Error {
  constructor(status, body, retryAfter) {
    super(body?.detail ?? `HTTP ${status}`);
    this.status = status;
    this.code = body?.code ?? "unreachable";
    this.body = body ?? {};
    this.retryAfterMs = Number(retryAfter ?? 0) * 1000;
  }
}

export async function call(method, path, { headers = {}, body } = {}) {
  const request = { method, headers: { ...headers }, cache: "no-store" };
  if (body !== undefined) {
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, request);
  } catch {
    throw new Problem(0, null, 2);
  }
  const text = await response.text();
  let value = null;
  try {
    value = text ? JSON.parse(text) : null;
  } catch {
    // Something in between answered with a page of its own; the status says enough.
  }
  if (!response.ok) throw new Problem(response.status, value, response.headers.get("Retry-After"));
  return value;
}

// Random identifiers also where the page is not in a secure context, which `crypto.randomUUID` asks for.
export function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));
