// Runs the exchanges of tests/vectors/client.json, which all clients share, against this client.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { NetworkError, ProblemError, QueueVisit, UsherClient } from "../dist/index.js";

const file = new URL("../../../tests/vectors/client.json", import.meta.url);
const { values, cases } = JSON.parse(readFileSync(file, "utf8"));

// Replaces "$name" by the value of that name, and "$name" inside the text of a stream by its JSON.
function expand(node) {
  if (Array.isArray(node)) return node.map(expand);
  if (typeof node === "object" && node !== null) {
    return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, expand(value)]));
  }
  if (typeof node !== "string") return node;
  const name = /^\$([a-z_]+)$/.exec(node)?.[1];
  if (name in values) return values[name];
  return node.replace(/\$([a-z_]+)/g, (text, key) =>
    key in values ? JSON.stringify(values[key]) : text);
}

// A service that knows one list of exchanges, and the time that passes in them.
class FakeService {
  #exchanges;
  #keys = new Map();
  #now = 0;
  sleeps = [];

  constructor(exchanges) {
    this.#exchanges = [...exchanges];
  }

  clock = {
    now: () => this.#now,
    random: () => Math.random(),
    sleep: async (ms) => {
      this.sleeps.push(ms);
      this.#now += ms;
    },
  };

  fetch = async (address, init) => {
    const exchange = this.#exchanges.shift();
    assert.ok(exchange, `unexpected request: ${init.method} ${address}`);
    this.#checkRequest(exchange.request, new URL(address), init);
    const { response } = exchange;
    if (response === "lost") throw new TypeError("fetch failed");
    const headers = { "content-type": "application/json", ...response.headers };
    return new Response(responseBody(response), { status: response.status, headers });
  };

  #checkRequest(expected, url, init) {
    const { method, path } = expected;
    assert.equal(`${init.method} ${url.pathname}${url.search}`, `${method} ${path}`);
    const sent = new Headers(init.headers);
    for (const [name, value] of Object.entries(expected.headers ?? {})) {
      if (typeof value === "string" && value.startsWith("$key")) {
        this.#checkKey(value, sent.get(name));
      } else {
        assert.equal(sent.get(name), value, name);
      }
    }
    const body = init.body === undefined ? undefined : JSON.parse(init.body);
    assert.deepEqual(body, expected.body);
    if (body !== undefined) assert.equal(sent.get("content-type"), "application/json");
  }

  // The first use of a name binds it to the key. Different names are different keys.
  #checkKey(name, key) {
    assert.match(key ?? "", /^[!-~]{16,128}$/, "the key is missing or easy to guess");
    if (!this.#keys.has(name)) {
      assert.ok(![...this.#keys.values()].includes(key), "a key is used twice");
      this.#keys.set(name, key);
    }
    assert.equal(key, this.#keys.get(name), "a retry has another key");
  }

  finish(expectedSleeps) {
    assert.deepEqual(this.#exchanges, [], "requests are missing");
    const text = JSON.stringify({ sleeps: this.sleeps, expected: expectedSleeps });
    assert.equal(this.sleeps.length, expectedSleeps.length, text);
    expectedSleeps.forEach(([min, max], index) => {
      assert.ok(this.sleeps[index] >= min && this.sleeps[index] <= max, text);
    });
  }
}

function responseBody(response) {
  if (response.stream) {
    const encoder = new TextEncoder();
    return new ReadableStream({
      start(controller) {
        for (const text of response.stream) controller.enqueue(encoder.encode(text));
        controller.close();
      },
    });
  }
  if (response.status === 204) return null;
  return response.text ?? JSON.stringify(response.body);
}

function checkError(error, expected) {
  if (expected.type === "network") {
    assert.ok(error instanceof NetworkError, String(error));
    return;
  }
  assert.ok(error instanceof ProblemError, String(error));
  const { status, code, detail, errors, retryAfter: retry_after } = error;
  const { members = {}, type, ...rest } = expected;
  assert.deepEqual({ status, code, detail, errors, retry_after }, rest);
  for (const [name, value] of Object.entries(members)) assert.deepEqual(error.body[name], value);
}

for (const source of cases) {
  test(source.name, async () => {
    const { client: options = {}, calls, exchanges, sleeps } = expand(source);
    const service = new FakeService(exchanges);
    const { user = "42", ...rest } = options;
    const { fetch, clock } = service;
    const url = "http://usher.example/";
    const client = new UsherClient({ url, ...(user && { user }), ...rest, fetch, clock });
    let visit = null;
    for (const { operation, args, options: callOptions, result, error } of calls) {
      const target = operation in client ? client : visit;
      const call = target[operation](...args, ...(callOptions ? [callOptions] : []));
      if (error) {
        const caught = await Promise.resolve(call).then(() => null, (reason) => reason);
        checkError(caught, error);
        continue;
      }
      const value = await call;
      if (value instanceof QueueVisit) visit = value;
      const actual = value === visit ? visit.ticket : value;
      if (result !== undefined) assert.deepEqual(actual ?? null, result);
    }
    service.finish(sleeps);
  });
}
