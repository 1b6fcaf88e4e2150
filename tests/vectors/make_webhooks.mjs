// Writes webhooks.json: messages of webhooks, and whether a receiver may trust them.
//
// Usage: node make_webhooks.mjs

import { createHmac, createPrivateKey, createPublicKey, sign } from "node:crypto";
import { writeFileSync } from "node:fs";

const now = 1_800_000_000;
const secret = Buffer.alloc(32, 1);
const other = Buffer.alloc(32, 2);
const seed = Buffer.alloc(32, 3);
// PKCS #8 around the 32 bytes of an Ed25519 key (RFC 8410).
const pkcs8 = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]);
const privateKey = createPrivateKey({ key: pkcs8, format: "der", type: "pkcs8" });
const publicKey = createPublicKey(privateKey).export({ format: "der", type: "spki" }).subarray(-32);

const event = {
  id: "evt-5-1-4711-0",
  type: "payment.confirmed",
  timestamp: "2027-01-15T08:00:00.000Z",
  data: { id: "01995d2c-0000-8000-8000-000000000001", title: "밤 공연", amount: 15000 },
};
const body = JSON.stringify(event);
const content = (id, at, text) => Buffer.from(`${id}.${at}.${text}`);
const v1 = (key, at = now, text = body, id = event.id) =>
  `v1,${createHmac("sha256", key).update(content(id, at, text)).digest("base64")}`;
const v1a = (at = now, text = body) =>
  `v1a,${sign(null, content(event.id, at, text), privateKey).toString("base64")}`;
const whsec = `whsec_${secret.toString("base64")}`;
const whpk = `whpk_${publicKey.toString("base64")}`;
const message = (name, signature, more = {}) => ({
  name,
  key: whsec,
  headers: {
    "webhook-id": event.id,
    "webhook-timestamp": String(now),
    "webhook-signature": signature,
  },
  body,
  now,
  event,
  ...more,
});
const refused = (name, signature, more = {}) => message(name, signature, { event: null, ...more });
const without = (name) => {
  const { headers } = message("", v1(secret));
  delete headers[name];
  return { headers };
};
const at = (time) => ({ headers: { ...message("", v1(secret, time)).headers, "webhook-timestamp": String(time) } });

const cases = [
  message("HMAC", v1(secret)),
  message("both secrets of a rotation, the old one known", `${v1(other)} ${v1(secret)}`),
  message("an unknown scheme before the signature", `v2,AAAA ${v1(secret)}`),
  message("Ed25519", v1a(), { key: whpk }),
  message("five minutes old", v1(secret, now - 300), at(now - 300)),
  refused("the signature of another secret", v1(other)),
  refused("the signature of another body", v1(secret, now, `${body} `)),
  refused("the signature of another id", v1(secret, now, body, "evt-5-1-4711-1")),
  refused("the signature of another time", v1(secret, now - 1)),
  refused("too old", v1(secret, now - 301), at(now - 301)),
  refused("from the future", v1(secret, now + 301), at(now + 301)),
  refused("an Ed25519 signature for a secret", v1a()),
  refused("an HMAC signature for a public key", v1(secret), { key: whpk }),
  refused("the Ed25519 signature of another body", v1a(now, "{}"), { key: whpk }),
  refused("a signature that is not Base64", "v1,???"),
  refused("no signature", v1(secret), without("webhook-signature")),
  refused("no id", v1(secret), without("webhook-id")),
  refused("no time", v1(secret), without("webhook-timestamp")),
  refused("a time that is not a number", v1(secret), {
    headers: { ...message("", v1(secret)).headers, "webhook-timestamp": "1e9" },
  }),
  refused("a key without a prefix", v1(secret), { key: secret.toString("base64") }),
];
const text = JSON.stringify({ cases }, null, 2);
writeFileSync(new URL("webhooks.json", import.meta.url), `${text}\n`);
