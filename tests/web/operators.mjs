// The console.

import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually, shoot, stage } from "./stage.mjs";

async function console_page() {
  const page = await stage.visitor();
  await page.goto(stage.admin);
  await page.getByLabel(/Key/).fill(stage.key);
  await page.getByRole("button", { name: "Open" }).click();
  await page.getByRole("region", { name: "Queue demo" }).waitFor();
  return page;
}

// As somebody drags it: the value goes in, and the page hears of its end.
const slide = (slider, value) => slider.fill(String(value));

test("only the key opens the console", async () => {
  const page = await stage.visitor();
  await page.goto(stage.admin);
  await shoot(page, "console-door");
  await page.getByLabel(/Key/).fill("wrong");
  await page.getByRole("button", { name: "Open" }).click();
  await page.getByText("not the right one").waitFor();
  await page.context().close();
});

test("an operator pauses and opens the line, changes rate and cap, and runs the audit", async () => {
  await stage.open_doors();
  const page = await console_page();
  const queue = page.getByRole("region", { name: "Queue demo" });
  await queue.getByRole("button", { name: "Pause" }).click();
  await queue.getByText("paused").waitFor();
  assert.equal((await stage.operate("GET", "/queues/demo")).settings.mode, "paused");
  await queue.getByRole("button", { name: "Open" }).click();
  await queue.getByText("open", { exact: true }).waitFor();
  await slide(queue.getByRole("slider", { name: /Let in per interval/ }), 77);
  await slide(queue.getByRole("slider", { name: /Active at most/ }), 321);
  await eventually("both are set", async () => {
    const { settings } = await stage.operate("GET", "/queues/demo");
    return settings.promote_per_interval === 77 && settings.max_active === 321;
  });
  await page.getByRole("button", { name: "Run the audit" }).click();
  await page.getByRole("cell", { name: "holds" }).first().waitFor();
  assert.equal(await page.getByRole("cell", { name: "broken" }).count(), 0);
  await page.context().close();
});

test("the demo crowd comes, is seen, and goes home", async (t) => {
  t.after(() => stage.operate("PUT", "/dev/crowd", { people: 0 }));
  await stage.open_doors();
  const page = await console_page();
  const crowd = page.getByRole("region", { name: "Demo crowd" });
  await slide(crowd.getByRole("slider", { name: /Pace/ }), 400);
  await slide(crowd.getByRole("slider", { name: /People at once/ }), 150);
  await crowd.getByText(/Goes home by itself in/).waitFor();
  await eventually("it buys", async () => (await stage.operate("GET", "/dev/crowd")).paid > 3);
  await shoot(page, "console");
  await crowd.getByRole("button", { name: "Send home" }).click();
  await crowd.getByText(/Nobody is here/).waitFor();
  await eventually("everybody has gone home", async () => {
    const now = await stage.operate("GET", "/dev/crowd");
    return now.people + now.in_line + now.inside + now.owners === 0;
  });
  await page.context().close();
});
