import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { after, before, test } from "node:test";
import { Stage, accessible } from "./stage.mjs";

// Screenshots are build output: looked at, not committed.
const SHOTS = "../../target/screenshots";
let stage;

before(async () => {
  await mkdir(SHOTS, { recursive: true });
  stage = await Stage.open();
});
after(() => stage.close());

// In front of everybody who is waiting at the moment.
async function admitOne() {
  await stage.set("demo", { mode: "open", max_active: 200, promote_per_interval: 50 });
}

async function shoot(page, name) {
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme });
    for (const width of [360, 1280]) {
      await page.setViewportSize({ width, height: 900 });
      await page.screenshot({ path: `${SHOTS}/${name}-${width}-${scheme}.png`, fullPage: true });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(wide <= 0, `${name} is ${wide} px too wide at ${width}`);
    }
    assert.deepEqual(await accessible(page), [], `${name}, ${scheme}`);
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1280, height: 900 });
}

test("a user books a seat from the page, by keyboard alone", async () => {
  await admitOne();
  const page = await stage.visitor();
  await page.goto(stage.public);
  await page.getByRole("button", { name: "Get in line" }).waitFor();
  await shoot(page, "concerts");
  await page.getByRole("button", { name: "Get in line" }).press("Enter");
  const seat = page.getByRole("checkbox", { name: /^Seat 1,/ });
  await seat.waitFor();
  await seat.focus();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press(" ");
  assert.equal(await page.getByRole("checkbox", { name: /^Seat 12,/ }).getAttribute("aria-checked"), "true");
  await shoot(page, "seats");
  await page.getByRole("button", { name: /^Hold 1/ }).press("Enter");
  await page.getByText(/held for/).waitFor();
  await page.getByRole("button", { name: /Ask for a coupon/ }).press("Enter");
  await page.getByText(/Use a coupon/).waitFor();
  assert.ok(await page.getByRole("button", { name: /^Pay/ }).isDisabled(), "an empty wallet pays for nothing");
  await page.getByRole("button", { name: /into the wallet/ }).press("Enter");
  await shoot(page, "pay");
  // A reload loses neither the seats nor the money.
  await page.reload();
  await page.getByText(/held for/).waitFor();
  await page.getByRole("button", { name: /^Pay/, disabled: false }).press("Enter");
  await page.getByText("The seats are yours").waitFor();
  await shoot(page, "done");
  await page.getByRole("button", { name: "Cancel the booking" }).press("Enter");
  await page.getByText(/^Cancelled/).waitFor();
});

test("a seat that somebody else takes is seen without a reload", async () => {
  await admitOne();
  const page = await stage.visitor();
  await page.goto(stage.public);
  await page.getByRole("button", { name: "Get in line" }).click();
  await page.getByRole("checkbox", { name: /^Seat 20,.*free$/ }).waitFor();
  const user = crypto.randomUUID();
  const { token } = await stage.api("POST", "/queues/demo/tokens", { user });
  await stage.api("POST", "/reservations", { token, body: { schedule_id: "demo-1", seats: [20] } });
  await page.getByRole("checkbox", { name: /^Seat 20,.*held$/ }).waitFor();
});

test("the waiting page keeps the place, tells of a pause, and goes on by itself", async () => {
  await stage.set("demo", { mode: "paused" });
  const page = await stage.visitor();
  await page.goto(`${stage.public}/waiting/demo?return=/docs/`);
  await page.getByText("You are in line").waitFor();
  const place = await page.locator("#position").textContent();
  await page.getByText(/stands still/).waitFor();
  await shoot(page, "waiting");
  await page.reload();
  await page.getByText("You are in line").waitFor();
  assert.equal(await page.locator("#position").textContent(), place, "a reload keeps the place");
  const tab = await page.context().newPage();
  await tab.goto(`${stage.public}/waiting/demo?return=/docs/`);
  await tab.getByText("You are in line").waitFor();
  assert.equal(await tab.locator("#position").textContent(), place, "two tabs, one place");
  await page.close();
  await admitOne();
  await tab.waitForURL(`${stage.public}/docs/`);
});

test("it speaks Korean, and returns to this site only", async () => {
  await admitOne();
  const page = await stage.visitor({ locale: "ko-KR" });
  await page.goto(`${stage.public}/waiting/demo?return=https://evil.example/`);
  await page.getByText("입장할 차례입니다").waitFor();
  await page.waitForURL(`${stage.public}/`);
});

test("an operator pauses and opens the line from the console", async () => {
  await admitOne();
  const page = await stage.visitor();
  await page.goto(stage.admin);
  await page.getByLabel(/Key/).fill("wrong");
  await page.getByRole("button", { name: "Open" }).click();
  await page.getByText("not the right one").waitFor();
  await page.getByLabel(/Key/).fill(stage.key);
  await page.getByRole("button", { name: "Open" }).click();
  const queue = page.getByRole("region", { name: "Queue demo" });
  await queue.getByRole("button", { name: "Pause" }).click();
  await queue.getByText("paused").waitFor();
  await shoot(page, "console");
  await queue.getByRole("button", { name: "Open" }).click();
  await queue.getByText("open", { exact: true }).waitFor();
});
