// Runs the client examples against a live service. Each example buys two seats.

import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";
import { eventually, fixture, TIMEOUT_MS } from "./fixture.mjs";

const run = promisify(execFile);

// The reason to skip a test if a program is missing, or false.
const skipWithout = (program) =>
  spawnSync(program, ["--version"]).error ? `${program} is not installed` : false;

function runExample(program, args) {
  const env = { ...process.env, USHER_URL: fixture.publicUrl };
  return run(program, args, { env, timeout: TIMEOUT_MS });
}

async function assertBuysTwoSeats(program, args) {
  await fixture.openQueue();
  const { stdout } = await runExample(program, args);
  assert.match(stdout, /^bought: \d+,\d+ for \d+\n$/);
}

test("the curl example buys two seats", { skip: skipWithout("curl") }, () =>
  assertBuysTwoSeats("../../examples/buy.sh", []));

test("the Python example buys two seats", { skip: skipWithout("python3") }, () =>
  assertBuysTwoSeats("python3", ["../../examples/buy.py"]));

test("the TypeScript example compiles in strict mode and buys two seats", async () => {
  await run("node_modules/.bin/tsc", ["--project", "../../examples"], { timeout: TIMEOUT_MS });
  await assertBuysTwoSeats(process.execPath, ["../../target/examples/buy.mjs"]);
});

test("a backend verifies a pass with the published keys", async () => {
  await fixture.openQueue();
  const user = crypto.randomUUID();
  let ticket = await fixture.callApi("POST", "/queues/demo/tokens", { user });
  await eventually("the user is admitted", async () => {
    ticket = await fixture.callApi("GET", "/queues/demo/tokens/me", { token: ticket.token });
    return ticket.pass;
  });
  const verify = (queue, pass) =>
    runExample(process.execPath, ["../../target/examples/pass.mjs", queue, pass]);
  assert.equal((await verify("demo", ticket.pass)).stdout, `${user}\n`);
  const [header, body, signature] = ticket.pass.split(".");
  const claims = Buffer.from(body, "base64url").toString();
  const forgedClaims = claims.replace(user, crypto.randomUUID());
  const forgedBody = Buffer.from(forgedClaims).toString("base64url");
  const forged = `${header}.${forgedBody}.${signature}`;
  for (const [queue, pass] of [["other", ticket.pass], ["demo", forged]]) {
    await assert.rejects(verify(queue, pass), /not admitted/);
  }
});
