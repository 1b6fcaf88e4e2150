// Sends good and bad passes and queue tokens to each example backend. The passes come from a fake
// Usher, and from a live one if USHER_URL is set.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { BACKENDS, startBackend } from "./backends.mjs";
import {
  ACTIVE_TOKEN, makePass, publicKeySigners, QUEUE, startFakeUsher, USER,
} from "./fake_usher.mjs";

const { USHER_URL } = process.env;
const noSignature = () => Buffer.alloc(0);

// Each pass is invalid in one way. The detail of the answer names it.
const BAD_PASSES = [
  ["that has expired", () => makePass({ claims: { exp: seconds() - 1 } }), /has expired/],
  ["of a different queue", () => makePass({ claims: { aud: "other" } }), /different queue/],
  ["without a user", () => makePass({ claims: { sub: undefined } }), /claims of the pass/],
  ["without an end", () => makePass({ claims: { exp: undefined } }), /claims of the pass/],
  ["with the algorithm none",
    () => makePass({ header: { alg: "none" }, signer: noSignature }), /not signed with EdDSA/],
  ...publicKeySigners().map((signer, number) => [
    `with HS256 and the public key as the secret (${number + 1})`,
    () => makePass({ header: { alg: "HS256" }, signer }), /not signed with EdDSA/]),
  ["with an unknown key", () => makePass({ key: "unpublished" }), /unknown key/],
  ["that names a key which did not sign it",
    () => makePass({ key: "unpublished", header: { kid: "k1" } }), /signature of the pass/],
  ["with a changed body", () => withBodyOf(makePass({ claims: { sub: randomUUID() } })),
    /signature of the pass/],
  ["without a signature", () => makePass({ signer: noSignature }), /signature of the pass/],
  ["that is no JWT", () => "not.a-pass", /malformed/],
  ["with characters outside of ASCII", () => "\u00e9.\u00e9.\u00e9", /malformed/],
  ["whose header is no JSON", () => `bm8.${makePass().split(".").slice(1).join(".")}`, /malformed/],
];

function seconds() {
  return Math.floor(Date.now() / 1000);
}

function withBodyOf(other) {
  const [header, , signature] = makePass().split(".");
  return [header, other.split(".")[1], signature].join(".");
}

// Long enough for a loaded machine.
const TIMEOUT_MS = 60_000;

function request(backend, path, headers) {
  return fetch(backend.url + path, { headers, signal: AbortSignal.timeout(TIMEOUT_MS) });
}

const byPass = (backend, pass) =>
  request(backend, "/by-pass/seats", pass && { Authorization: `Bearer ${pass}` });
const byToken = (backend, token) =>
  request(backend, "/by-token/seats", token && { "Queue-Token": token });

async function assertAdmits(response, user) {
  const body = await response.json();
  assert.deepEqual([response.status, body], [200, { user }]);
}

async function assertProblem(response, status, detail) {
  const problem = await response.json();
  const code = status === 401 ? "not_admitted" : "usher_unavailable";
  assert.deepEqual({ ...problem, detail: "" }, { status, code, detail: "" });
  assert.match(problem.detail, detail);
  assert.equal(response.status, status);
  assert.match(response.headers.get("Content-Type"), /^application\/problem\+json/);
  const [name, value] = status === 401 ? ["WWW-Authenticate", "Bearer"] : ["Retry-After", "3"];
  assert.equal(response.headers.get(name), value);
}

for (const [name, example] of Object.entries(BACKENDS)) {
  describe(name, { skip: example.skip }, () => {
    let usher;
    let backend;
    const fakeUrl = (mode) => `http://127.0.0.1:${usher.address().port}/${mode}`;

    before(async () => {
      usher = await startFakeUsher();
      backend = await startBackend(example, fakeUrl("works"), QUEUE);
    });
    after(async () => {
      await backend?.stop();
      usher.closeAllConnections();
      usher.close();
    });

    test("admits the user of a valid pass", async () => {
      await assertAdmits(await byPass(backend, makePass()), USER);
    });

    test("admits a pass of each published key", async () => {
      await assertAdmits(await byPass(backend, makePass({ key: "k2" })), USER);
    });

    test("admits a pass that Usher's clock dates into the future", async () => {
      const pass = makePass({ claims: { iat: seconds() + 20 } });
      await assertAdmits(await byPass(backend, pass), USER);
    });

    test("refuses a request without a pass", async () => {
      await assertProblem(await byPass(backend), 401, /has no pass/);
    });

    for (const [kind, pass, detail] of BAD_PASSES) {
      test(`refuses a pass ${kind}`, async () => {
        await assertProblem(await byPass(backend, pass()), 401, detail);
      });
    }

    test("keeps the keys, also when many passes have unknown keys", async () => {
      const before = usher.keyRequests;
      for (let count = 0; count < 20; count += 1) {
        const unknown = makePass({ key: "unpublished", header: { kid: `unknown-${count}` } });
        await assertProblem(await byPass(backend, unknown), 401, /unknown key/);
        await assertAdmits(await byPass(backend, makePass()), USER);
      }
      // On a slow machine the keys may become too old once in between.
      assert.ok(usher.keyRequests - before <= 2, `${usher.keyRequests - before} requests`);
    });

    test("asks Usher about the queue token", async () => {
      await assertAdmits(await byToken(backend, ACTIVE_TOKEN), USER);
      await assertProblem(await byToken(backend, "of-a-waiting-user"), 401, /not admitted/);
      await assertProblem(await byToken(backend, "\u00e9"), 401, /not admitted/);
      await assertProblem(await byToken(backend), 401, /no queue token/);
    });

    test("takes the queue token from the cookie of the waiting page", async () => {
      const send = (cookie) => request(backend, "/by-token/seats", { Cookie: cookie });
      await assertAdmits(await send(`a=1; usher-${QUEUE}=${ACTIVE_TOKEN}; b=2`), USER);
      await assertProblem(await send(`usher-other=${ACTIVE_TOKEN}`), 401, /no queue token/);
    });

    for (const [kind, url] of [
      ["cannot be reached", () => "http://127.0.0.1:1"],
      ["answers with errors", () => fakeUrl("breaks")],
      ["does not answer", () => fakeUrl("hangs")],
    ]) {
      test(`answers 503 when Usher ${kind}`, async () => {
        const alone = await startBackend(example, url(), QUEUE);
        try {
          await assertProblem(await byPass(alone, makePass()), 503, /keys of Usher/);
          await assertProblem(await byToken(alone, ACTIVE_TOKEN), 503, /did not answer/);
        } finally {
          await alone.stop();
        }
      });
    }

    test("answers 503 when Usher does not know the queue", async () => {
      const alone = await startBackend(example, fakeUrl("works"), "unknown");
      try {
        await assertProblem(await byToken(alone, ACTIVE_TOKEN), 503, /did not answer/);
      } finally {
        await alone.stop();
      }
    });

    test("admits and refuses users of a live Usher", { skip: !USHER_URL }, async () => {
      const live = await startBackend(example, USHER_URL, "demo");
      try {
        const { user, token, pass } = await enterLiveQueue();
        await assertAdmits(await byPass(live, pass), user);
        await assertAdmits(await byToken(live, token), user);
        await callUsher("DELETE", "/queues/demo/tokens/me", { "Queue-Token": token });
        // The pass is valid until it expires. The check is exact.
        await assertAdmits(await byPass(live, pass), user);
        await assertProblem(await byToken(live, token), 401, /not admitted/);
      } finally {
        await live.stop();
      }
    });
  });
}

async function callUsher(method, path, headers) {
  const response = await fetch(`${USHER_URL}/v1${path}`, { method, headers });
  assert.ok(response.ok, `${method} ${path}: ${response.status}`);
  return response.status === 204 ? null : response.json();
}

async function enterLiveQueue() {
  const user = randomUUID();
  const headers = { "Usher-User": user };
  let ticket = await callUsher("POST", "/queues/demo/tokens", headers);
  const { token } = ticket;
  while (!ticket.pass) {
    assert.equal(ticket.status, "waiting");
    await new Promise((resolve) => setTimeout(resolve, ticket.poll_after_ms));
    ticket = await callUsher("GET", "/queues/demo/tokens/me", { "Queue-Token": token });
  }
  return { user, token, pass: ticket.pass };
}
