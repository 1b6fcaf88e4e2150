// The client against a real HTTP server: broken connections, timeouts, streams, cancellation.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { test } from "node:test";
import { NetworkError, newIdempotencyKey, ProblemError, UsherClient } from "../dist/index.js";

const TICKET = { token: "t1", status: "waiting", position: 2, poll_after_ms: 10 };
const ACTIVE = { ...TICKET, token: "t2", status: "active", position: null };

// Serves requests with one handler each, in order, and runs the test with a client.
async function serve(handlers, run, options = {}) {
  const requests = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    requests.push({ method: request.method, url: request.url, headers: request.headers, body });
    const handler = handlers.shift();
    assert.ok(handler, `unexpected request: ${request.method} ${request.url}`);
    handler(response);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${server.address().port}`;
  const retry = { baseDelayMs: 1, maxDelayMs: 2 };
  try {
    await run(new UsherClient({ url, user: "42", retry, ...options }), requests);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const json = (status, body) => (response) => {
  response.writeHead(status, { "Content-Type": "application/json" });
  response.end(JSON.stringify(body));
};
const disconnect = (response) => response.destroy();
const disconnectInBody = (response) => {
  response.writeHead(201, { "Content-Length": "100" });
  response.write('{"id":');
  setTimeout(() => response.destroy(), 10);
};
const hang = () => {};
const event = (ticket) => `event: ticket\ndata: ${JSON.stringify(ticket)}\n\n`;

test("lost responses are repeated with one key", async () => {
  const entry = { id: "e1", amount: 5 };
  const handlers = [disconnect, disconnectInBody, hang, json(201, entry)];
  await serve(handlers, async (client, requests) => {
    assert.deepEqual(await client.chargeWallet(5), entry);
    const keys = new Set(requests.map((request) => request.headers["idempotency-key"]));
    const bodies = new Set(requests.map((request) => request.body));
    assert.deepEqual([requests.length, keys.size, [...bodies]], [4, 1, ['{"amount":5}']]);
  }, { timeoutMs: 200 });
});

test("a stream is read in pieces and closed after admission", { timeout: 10_000 }, async () => {
  let closed;
  const streamClosed = new Promise((resolve) => (closed = resolve));
  const stream = (response) => {
    response.on("close", closed);
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    const bytes = Buffer.from(`:\n\n${event({ ...TICKET, position: 1 })}${event(ACTIVE)}`);
    // The stream stays open: the client must not wait for its end.
    for (let at = 0; at < bytes.length; at += 7) response.write(bytes.subarray(at, at + 7));
  };
  await serve([json(201, TICKET), stream], async (client, requests) => {
    const visit = await client.joinQueue("demo");
    const positions = [];
    const onTicket = (ticket) => positions.push(ticket.position);
    assert.deepEqual(await visit.waitUntilActive({ stream: true, onTicket }), ACTIVE);
    assert.deepEqual(positions, [2, 1, null]);
    assert.equal(requests[1].headers["queue-token"], "t1");
    assert.equal(visit.token, "t2");
    await streamClosed;
  });
});

test("a caller can stop the iteration of tickets", { timeout: 10_000 }, async () => {
  let closed;
  const streamClosed = new Promise((resolve) => (closed = resolve));
  const stream = (response) => {
    response.on("close", closed);
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write(event(TICKET));
  };
  await serve([json(201, TICKET), stream], async (client) => {
    const visit = await client.joinQueue("demo");
    let count = 0;
    for await (const ticket of visit.tickets({ stream: true })) {
      assert.equal(ticket.status, "waiting");
      count += 1;
      if (count === 2) break;
    }
    await streamClosed;
  });
});

test("a signal stops a wait, a stream and a retry", async () => {
  const waiting = { ...TICKET, poll_after_ms: 60_000 };
  const stream = (response) => response.writeHead(200).write(":\n\n");
  const handlers = [json(201, waiting), stream, hang];
  await serve(handlers, async (client) => {
    const visit = await client.joinQueue("demo");
    for (const options of [{}, { stream: true }]) {
      const signal = AbortSignal.timeout(50);
      await assert.rejects(visit.waitUntilActive({ signal, ...options }), /timeout/i);
    }
    const signal = AbortSignal.timeout(50);
    await assert.rejects(client.chargeWallet(5, { signal }), /timeout/i);
    await assert.rejects(client.chargeWallet(5, { signal }), /timeout/i);
  });
});

test("a hidden tab closes its stream and polls", { timeout: 10_000 }, async () => {
  globalThis.document = Object.assign(new EventTarget(), { hidden: false });
  let closed;
  const streamClosed = new Promise((resolve) => (closed = resolve));
  const stream = (response) => {
    response.on("close", closed);
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write(event({ ...TICKET, position: 1 }));
  };
  try {
    await serve([json(201, TICKET), stream, json(200, ACTIVE)], async (client, requests) => {
      const visit = await client.joinQueue("demo");
      const onTicket = ({ position }) => {
        if (position !== 1) return;
        document.hidden = true;
        document.dispatchEvent(new Event("visibilitychange"));
      };
      const outages = [];
      const onOutage = (error) => error && outages.push(error);
      assert.deepEqual(await visit.waitUntilActive({ stream: true, onTicket, onOutage }), ACTIVE);
      await streamClosed;
      assert.deepEqual(outages, []);
      const paths = requests.map((request) => request.url.replace("/v1/queues/demo/", ""));
      assert.deepEqual(paths, ["tokens", "tokens/me/events", "tokens/me"]);
    });
  } finally {
    delete globalThis.document;
  }
});

test("an outage is reported until it is over", async () => {
  const handlers = [json(201, TICKET), json(503, { code: "overloaded" }), disconnect];
  await serve([...handlers, json(200, ACTIVE)], async (client) => {
    const visit = await client.joinQueue("demo");
    const outages = [];
    await visit.waitUntilActive({ onOutage: (error) => outages.push(error?.name ?? null) });
    assert.deepEqual(outages, ["ProblemError", "NetworkError", null]);
  }, { retry: { maxAttempts: 1 } });
});

test("a poll waits as long as Retry-After asks", async () => {
  const sleeps = [];
  const clock = {
    now: () => 0, random: () => 0, sleep: async (ms) => void sleeps.push(ms),
  };
  const refuse = (response) => {
    response.writeHead(503, { "Retry-After": "7" });
    response.end("{}");
  };
  const handlers = [json(201, TICKET), refuse, json(200, TICKET), json(200, ACTIVE)];
  await serve(handlers, async (client) => {
    await (await client.joinQueue("demo")).waitUntilActive();
    assert.deepEqual(sleeps, [10, 7000, 10]);
  }, { retry: { maxAttempts: 1 }, clock });
});

test("a call without a method is sent as it is", async () => {
  await serve([json(200, { sections: [] })], async (client, requests) => {
    const path = "/v1/schedules/demo-1/layout";
    const layout = await client.request({ method: "GET", path, query: { section: "A & B" } });
    assert.deepEqual(layout, { sections: [] });
    assert.equal(requests[0].url, `${path}?section=A+%26+B`);
    assert.equal(requests[0].headers["usher-user"], "42");
  });
});

test("errors say whether the same call may succeed later", () => {
  assert.ok(new NetworkError(null).isTemporary);
  for (const status of [408, 425, 429, 500, 502, 503]) {
    assert.ok(new ProblemError(status, {}).isTemporary, String(status));
  }
  for (const status of [400, 401, 403, 404, 409, 410, 422]) {
    assert.ok(!new ProblemError(status, {}).isTemporary, String(status));
  }
});

test("keys are long and distinct", () => {
  const keys = new Set(Array.from({ length: 1000 }, newIdempotencyKey));
  assert.equal(keys.size, 1000);
  for (const key of keys) assert.match(key, /^[0-9a-f]{32}$/);
});
