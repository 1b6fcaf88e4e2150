// The published form: what `npm pack` contains, and whether a strict project can use it.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);
const root = fileURLToPath(new URL("..", import.meta.url));
const skip = process.env.USHER_URL ? false : "USHER_URL is not set";
let project;

// A project that has installed the package from its tarball.
before(async () => {
  project = await mkdtemp(join(tmpdir(), "usher-client-"));
  const pack = ["pack", "--ignore-scripts", "--json", "--pack-destination", project];
  const [{ filename, files }] = JSON.parse((await run("npm", pack, { cwd: root })).stdout);
  const names = files.map((file) => file.path);
  for (const name of ["README.md", "dist/index.js", "dist/index.d.ts", "src/index.ts"]) {
    assert.ok(names.includes(name), `${name} is missing in ${names}`);
  }
  assert.ok(!names.some((name) => /test|examples|node_modules/.test(name)), `${names}`);
  await writeFile(join(project, "package.json"), '{ "type": "module" }');
  const packages = join(project, "node_modules/usher-client");
  await mkdir(packages, { recursive: true });
  await run("tar", ["-xf", join(project, filename), "-C", packages, "--strip-components=1"]);
});
after(() => rm(project, { recursive: true, force: true }));

async function compile(name, source) {
  await writeFile(join(project, name), source);
  const strict = ["--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess"];
  const target = ["--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom"];
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  await run(process.execPath, [tsc, ...strict, ...target, name], { cwd: project });
}

async function programs() {
  const readme = await readFile(join(root, "README.md"), "utf8");
  return [...readme.matchAll(/```ts\n([^]*?)```/g)].map((match) => match[1]);
}

test("the package has no dependencies", async () => {
  const manifest = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  assert.equal(manifest.dependencies, undefined);
});

test("the programs of the README compile in strict mode", async () => {
  const [program, ...fragments] = await programs();
  assert.ok(program.trim().split("\n").length <= 10, "the first program has ten lines");
  await compile("readme.ts", program);
  const context = `import {
    newIdempotencyKey, paginate, ProblemError, UsherClient, type QueueVisit, type Reservation,
  } from "usher-client";
  declare const usher: UsherClient, visit: QueueVisit, held: Reservation;\n`;
  const blocks = fragments.map((fragment) => `{\n${fragment}}`);
  await compile("fragments.ts", context + blocks.join("\n"));
});

test("the ten lines of the README buy a seat", { skip }, async () => {
  const [program] = await programs();
  const local = program.replace('"http://127.0.0.1:8080"', JSON.stringify(process.env.USHER_URL));
  await compile("buy.ts", local);
  const { stdout } = await run(process.execPath, [join(project, "buy.js")], { timeout: 60_000 });
  assert.match(stdout, /^confirmed \[/m);
});

test("the example buys two seats", { skip }, async () => {
  const example = join(root, "build/examples/buy.js");
  const { stdout } = await run(process.execPath, [example], { timeout: 60_000 });
  assert.match(stdout, /^bought: \d+,\d+ for \d+\n$/);
});
