// The client examples against a live service: each buys two seats by itself.

import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";
import { eventually, PATIENCE, stage } from "./stage.mjs";

const run = promisify(execFile);
const missing = (program) => (spawnSync(program, ["--version"]).error ? `${program} is not installed` : false);

async function buys(program, args) {
  await stage.open_doors();
  const { stdout } = await run(program, args, { env: { ...process.env, USHER_URL: stage.public }, timeout: PATIENCE });
  assert.match(stdout, /^bought: \d+,\d+ for \d+\n$/);
}

test("curl buys two seats", { skip: missing("curl") }, () => buys("../../examples/buy.sh", []));

test("Python buys two seats", { skip: missing("python3") }, () => buys("python3", ["../../examples/buy.py"]));

test("TypeScript compiles strictly, and buys two seats", async () => {
  await run("node_modules/.bin/tsc", ["--project", "../../examples"], { timeout: PATIENCE });
  await buys(process.execPath, ["../../target/examples/buy.mjs"]);
});

test("a backend checks a pass by itself", async () => {
  await stage.open_doors();
  const user = crypto.randomUUID();
  let ticket = await stage.api("POST", "/queues/demo/tokens", { user });
  await eventually("somebody is let in", async () => {
    ticket = await stage.api("GET", "/queues/demo/tokens/me", { token: ticket.token });
    return ticket.pass;
  });
  const check = (queue, pass) => run(process.execPath, ["../../target/examples/pass.mjs", queue, pass], { env: { ...process.env, USHER_URL: stage.public }, timeout: PATIENCE });
  assert.equal((await check("demo", ticket.pass)).stdout, `${user}\n`);
  const [head, body, signature] = ticket.pass.split(".");
  const forged = Buffer.from(body, "base64url").toString().replace(user, crypto.randomUUID());
  for (const [queue, pass] of [["other", ticket.pass], ["demo", `${head}.${Buffer.from(forged).toString("base64url")}.${signature}`]]) {
    await assert.rejects(check(queue, pass), /not admitted/);
  }
});
