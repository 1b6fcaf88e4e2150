// Runs the examples against a live service.

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

test("the curl example buys two seats", { skip: skipWithout("curl") }, async () => {
  await fixture.openQueue();
  const { stdout } = await runExample("../../examples/buy.sh", []);
  assert.match(stdout, /^bought: \d+,\d+ for \d+\n$/);
});

test("a backend verifies a pass with the published keys", async () => {
  await run("node_modules/.bin/tsc", ["--project", "../../examples"], { timeout: TIMEOUT_MS });
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
