// All tests run in one process, with one `usher dev` and one browser. Starting these takes longer
// than most tests.

import { mkdir } from "node:fs/promises";
import { after, before } from "node:test";
import { fixture, SCREENSHOTS } from "./fixture.mjs";

before(async () => {
  await mkdir(SCREENSHOTS, { recursive: true });
  await fixture.start();
});
after(() => fixture.stop());

await import("./messages.mjs");
await import("./visitors.mjs");
await import("./views.mjs");
await import("./waiting_states.mjs");
await import("./booking_states.mjs");
await import("./large_halls.mjs");
await import("./bookings.mjs");
await import("./error_states.mjs");
await import("./console.mjs");
await import("./console_lists.mjs");
await import("./examples.mjs");
