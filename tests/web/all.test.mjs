// Every test in one process, on one `usher dev` and in one browser: starting those takes longer than most tests.

import { mkdir } from "node:fs/promises";
import { after, before } from "node:test";
import { SHOTS, stage } from "./stage.mjs";

before(async () => {
  await mkdir(SHOTS, { recursive: true });
  await stage.open();
});
after(() => stage.close());

await import("./visitors.mjs");
await import("./pictures.mjs");
await import("./operators.mjs");
await import("./examples.mjs");
