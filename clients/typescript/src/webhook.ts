import { UsherError } from "./errors.js";

/** A message that an endpoint received is not from Usher, or it is too old. */
export class WebhookError extends UsherError {
  override readonly name = "WebhookError";
}

/** An event, as `GET /admin/events` lists it and a webhook sends it. */
export interface WebhookEvent {
  /** The same event always has the same id. It can be delivered more than once. */
  id: string;
  /** Such as `payment.confirmed`. A test message has `webhook.test`. */
  type: string;
  timestamp: string;
  data: Record<string, unknown>;
}

export interface VerifyWebhookOptions {
  /** How far the time of the message may be from `now`, in seconds. Default: 300. */
  toleranceSeconds?: number;
  /** Milliseconds since 1970. Default: the clock of this machine. */
  now?: number;
}

type HeaderSource = Headers | Record<string, string | string[] | undefined>;

/**
 * Checks the signature and the time of a message and returns its event. `body` is the body exactly as
 * it was received. `key` is the secret (`whsec_…`) or the public key (`whpk_…`) of the webhook.
 *
 * Throws a `WebhookError` if the message must not be trusted.
 */
export async function verifyWebhook(
  body: string | Uint8Array,
  headers: HeaderSource,
  key: string,
  options: VerifyWebhookOptions = {},
): Promise<WebhookEvent> {
  const header = (name: string): string => {
    const value = headers instanceof Headers ? headers.get(name) : headers[name];
    if (typeof value !== "string" || value === "") throw new WebhookError(`${name} is missing`);
    return value;
  };
  const id = header("webhook-id");
  const timestamp = header("webhook-timestamp");
  const signatures = header("webhook-signature").split(" ");
  if (!/^\d{1,12}$/.test(timestamp)) throw new WebhookError("webhook-timestamp is not a time");
  const seconds = (options.now ?? Date.now()) / 1000;
  if (Math.abs(seconds - Number(timestamp)) > (options.toleranceSeconds ?? 300)) {
    throw new WebhookError("the message is too old or from the future");
  }
  const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
  const prefix = new TextEncoder().encode(`${id}.${timestamp}.`);
  const content = new Uint8Array(prefix.length + bytes.length);
  content.set(prefix);
  content.set(bytes, prefix.length);
  if (!(await isSigned(content, signatures, key))) {
    throw new WebhookError("no signature is that of the key");
  }
  return JSON.parse(new TextDecoder().decode(bytes)) as WebhookEvent;
}

async function isSigned(
  content: Uint8Array<ArrayBuffer>,
  signatures: string[],
  key: string,
): Promise<boolean> {
  const symmetric = key.startsWith("whsec_");
  if (!symmetric && !key.startsWith("whpk_")) {
    throw new WebhookError("the key must begin with whsec_ or whpk_");
  }
  const raw = decode(key.slice(key.indexOf("_") + 1));
  if (!raw) throw new WebhookError("the key is not Base64 after its prefix");
  const algorithm = symmetric ? { name: "HMAC", hash: "SHA-256" } : { name: "Ed25519" };
  const imported = await crypto.subtle.importKey("raw", raw, algorithm, false, ["verify"]);
  const scheme = symmetric ? "v1," : "v1a,";
  for (const signature of signatures) {
    if (!signature.startsWith(scheme)) continue;
    const value = decode(signature.slice(scheme.length));
    if (value && (await crypto.subtle.verify(algorithm.name, imported, value, content))) {
      return true;
    }
  }
  return false;
}

function decode(base64: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  } catch {
    return undefined;
  }
}
