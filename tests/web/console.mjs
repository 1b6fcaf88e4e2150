// The admin console.

import assert from "node:assert/strict";
import { test } from "node:test";
import { checkView, eventually, fixture } from "./fixture.mjs";

async function openConsole() {
  const page = await fixture.newPage();
  await page.goto(fixture.adminUrl);
  await page.getByLabel(/Key/).fill(fixture.adminKey);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("region", { name: "Queue demo" }).waitFor();
  return page;
}

// Sets a slider like a completed drag: the page receives `input` and `change`.
const setSlider = (slider, value) => slider.fill(String(value));

test("only the admin key opens the console", async () => {
  const page = await fixture.newPage();
  await page.goto(fixture.adminUrl);
  await checkView(page, "console-sign-in");
  await page.getByLabel(/Key/).fill("wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("The admin key is not correct.").waitFor();
  await page.context().close();
});

test("the console changes the mode, rate and limit of a queue and runs the audit", async () => {
  await fixture.openQueue();
  const page = await openConsole();
  const queue = page.getByRole("region", { name: "Queue demo" });
  await queue.getByRole("button", { name: "Pause" }).click();
  await queue.getByText("paused").waitFor();
  const { definition: settings } = await fixture.callAdmin("GET", "/queues/demo");
  assert.equal(settings.mode, "paused");
  await queue.getByRole("button", { name: "Open" }).click();
  await queue.getByText("open", { exact: true }).waitFor();
  await setSlider(queue.getByRole("slider", { name: /Admitted per interval/ }), 77);
  await setSlider(queue.getByRole("slider", { name: /Maximum active users/ }), 321);
  await eventually("both settings are stored", async () => {
    const { definition: settings } = await fixture.callAdmin("GET", "/queues/demo");
    return settings.promote_per_interval === 77 && settings.max_active === 321;
  });
  await page.getByRole("button", { name: "Run the audit" }).click();
  await page.getByRole("cell", { name: "ok", exact: true }).first().waitFor();
  assert.equal(await page.getByRole("cell", { name: "failed", exact: true }).count(), 0);
  await page.context().close();
});

test("the console starts, shows and stops the simulated users", async (t) => {
  t.after(() => fixture.callAdmin("PUT", "/dev/crowd", { people: 0 }));
  await fixture.openQueue();
  const page = await openConsole();
  const simulation = page.getByRole("region", { name: "Simulated users" });
  await setSlider(simulation.getByRole("slider", { name: /Speed/ }), 400);
  await setSlider(simulation.getByRole("slider", { name: /Simultaneous users/ }), 150);
  await simulation.getByText(/Stops in/).waitFor();
  const state = () => fixture.callAdmin("GET", "/dev/crowd");
  await eventually("simulated users pay", async () => (await state()).paid > 3);
  await checkView(page, "console");
  await simulation.getByRole("button", { name: "Stop" }).click();
  await simulation.getByText(/^Stopped/).waitFor();
  await eventually("all simulated users have left", async () => {
    const now = await state();
    return now.people + now.in_line + now.inside + now.owners === 0;
  });
  await page.context().close();
});
