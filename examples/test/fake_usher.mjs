// A small server with the two routes of Usher that a backend calls, and passes signed by its keys.
// The first part of the path says how it behaves: /works, /breaks (500) or /hangs (no answer).

import { createHmac, generateKeyPairSync, randomUUID, sign } from "node:crypto";
import { createServer } from "node:http";

export const QUEUE = "demo";
export const USER = randomUUID();
export const ACTIVE_TOKEN = "token-of-an-active-user";

const pairs = {
  k1: generateKeyPairSync("ed25519"),
  k2: generateKeyPairSync("ed25519"),
  unpublished: generateKeyPairSync("ed25519"),
};

function publicJwk(kid) {
  const jwk = pairs[kid].publicKey.export({ format: "jwk" });
  return { ...jwk, alg: "EdDSA", use: "sig", kid };
}

const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** Returns a valid pass, with the given changes. */
export function makePass({ header = {}, claims = {}, key = "k1", signer } = {}) {
  const now = Math.floor(Date.now() / 1000);
  const content = { aud: QUEUE, sub: USER, iat: now, exp: now + 60, ...claims };
  const signed = `${encode({ alg: "EdDSA", typ: "JWT", kid: key, ...header })}.${encode(content)}`;
  const signature = signer?.(signed) ?? sign(null, Buffer.from(signed), pairs[key].privateKey);
  return `${signed}.${signature.toString("base64url")}`;
}

/** Signs with HS256 and a published key as the secret, in each form that a verifier may use. */
export function publicKeySigners() {
  const { publicKey } = pairs.k1;
  const secrets = [
    publicKey.export({ type: "spki", format: "pem" }),
    publicKey.export({ type: "spki", format: "der" }),
    Buffer.from(publicKey.export({ format: "jwk" }).x, "base64url"),
  ];
  return secrets.map((secret) => (text) => createHmac("sha256", secret).update(text).digest());
}

/** Returns a server that counts the requests for its keys in `keyRequests`. */
export function startFakeUsher() {
  const server = createServer((request, response) => {
    const [, mode, ...path] = request.url.split("/");
    if (mode === "hangs") return;
    response.setHeader("Content-Type", "application/json");
    if (mode === "breaks") {
      response.writeHead(500).end("{}");
    } else if (path.join("/") === ".well-known/jwks.json") {
      server.keyRequests += 1;
      response.end(JSON.stringify({ keys: [publicJwk("k1"), publicJwk("k2")] }));
    } else if (path.join("/") !== `v1/queues/${QUEUE}/check`) {
      response.writeHead(404).end("{}");
    } else if (request.headers["queue-token"] === ACTIVE_TOKEN) {
      response.writeHead(204, { "Usher-User": USER }).end();
    } else {
      response.writeHead(401, { Location: `/waiting/${QUEUE}?return=%2F` }).end("{}");
    }
  });
  server.keyRequests = 0;
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}
