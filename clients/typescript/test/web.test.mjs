// web/client, which the binary serves to its pages, is the compiled form of these sources.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);
const root = fileURLToPath(new URL("..", import.meta.url));
const web = join(root, "../../web/client");

test("web/client is up to date (npm run build:web)", async () => {
  const compiled = await mkdtemp(join(tmpdir(), "usher-web-client-"));
  try {
    const tsc = join(root, "node_modules/typescript/bin/tsc");
    const options = ["--project", "tsconfig.web.json", "--outDir", compiled];
    await run(process.execPath, [tsc, ...options], { cwd: root });
    // Types only: no module imports it.
    await rm(join(compiled, "schema.js"));
    const names = await readdir(compiled);
    assert.deepEqual((await readdir(web)).sort(), names.sort());
    for (const name of names) {
      const [expected, actual] = await Promise.all(
        [compiled, web].map((folder) => readFile(join(folder, name), "utf8")),
      );
      assert.equal(actual, expected, name);
    }
  } finally {
    await rm(compiled, { recursive: true, force: true });
  }
});
