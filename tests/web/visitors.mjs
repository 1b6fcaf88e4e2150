// What a visitor lives through: in line, in a crowd, with two tabs, without a mouse.

import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually, stage } from "./stage.mjs";

// Nothing but the tab key until the focus is there, as somebody without a mouse has to.
async function tabTo(page, locator) {
  await locator.waitFor();
  for (let presses = 0; presses < 60; presses += 1) {
    if (await locator.evaluate((element) => element === document.activeElement)) return;
    await page.keyboard.press("Tab");
  }
  assert.fail(`the tab key does not lead to ${locator}`);
}

async function press(page, role, name, key = "Enter") {
  await tabTo(page, page.getByRole(role, { name, disabled: false }));
  await page.keyboard.press(key);
}

const place = async (page) => Number((await page.locator("#position").textContent()).replace(/\D/g, ""));

test("a user books a seat by keyboard alone, over a reload, and cancels", async () => {
  await stage.open_doors();
  const page = await stage.visitor();
  await page.goto(stage.public);
  await press(page, "button", "Get in line");
  await tabTo(page, page.getByRole("checkbox", { name: /^Seat 1,/ }));
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press(" ");
  assert.equal(await page.getByRole("checkbox", { name: /^Seat 12,/ }).getAttribute("aria-checked"), "true");
  await press(page, "button", /^Hold 1/);
  await page.getByText(/held for/).waitFor();
  await press(page, "button", /Ask for a coupon/);
  await page.getByText(/Use a coupon/).waitFor();
  assert.ok(await page.getByRole("button", { name: /^Pay/ }).isDisabled(), "an empty wallet pays for nothing");
  await press(page, "button", /into the wallet/);
  // A reload loses neither the seats nor the money.
  await page.reload();
  await page.getByText(/held for/).waitFor();
  await press(page, "button", /^Pay/);
  await page.getByText("The seats are yours").waitFor();
  await press(page, "button", "Cancel the booking");
  await page.getByText(/^Cancelled/).waitFor();
  await page.context().close();
});

test("a seat that somebody else takes is seen without a reload", async () => {
  await stage.open_doors();
  const page = await stage.visitor();
  await page.goto(stage.public);
  await page.getByRole("button", { name: "Get in line" }).click();
  await page.getByRole("checkbox", { name: /^Seat 20,.*free$/ }).waitFor();
  const user = crypto.randomUUID();
  const { token } = await stage.api("POST", "/queues/demo/tokens", { user });
  const { id } = await stage.api("POST", "/reservations", { token, body: { schedule_id: "demo-1", seats: [20] } });
  await page.getByRole("checkbox", { name: /^Seat 20,.*held$/ }).waitFor();
  await stage.api("DELETE", `/reservations/${id}`, { token });
  await page.getByRole("checkbox", { name: /^Seat 20,.*free$/ }).waitFor();
  await page.context().close();
});

test("the waiting page keeps the place over reload, closed tab and second tab, tells of a pause and of its end, and goes on by itself", async () => {
  await stage.set("demo", { mode: "paused" });
  const waiting = `${stage.public}/waiting/demo?return=/docs/`;
  const page = await stage.visitor();
  const context = page.context();
  await page.goto(waiting);
  await page.getByText("You are in line").waitFor();
  await page.getByText(/stands still/).waitFor();
  const mine = await page.locator("#position").textContent();
  await page.reload();
  await page.getByText("You are in line").waitFor();
  assert.equal(await page.locator("#position").textContent(), mine, "a reload keeps the place");
  const tab = await context.newPage();
  await tab.goto(waiting);
  await tab.getByText("You are in line").waitFor();
  assert.equal(await tab.locator("#position").textContent(), mine, "two tabs, one place");
  await page.close();
  await tab.close();
  const later = await context.newPage();
  await later.goto(waiting);
  await later.getByText("You are in line").waitFor();
  assert.equal(await later.locator("#position").textContent(), mine, "closed tabs keep the place");
  // One at a time, so that the end of the pause is seen from the line: somebody stands in front.
  await later.getByText(/stands still/).waitFor();
  await stage.open_doors();
  await later.waitForURL(`${stage.public}/docs/`);
  await context.close();
});

test("the booking page tells of a pause, and of its end, while the line stands", async () => {
  await stage.set("demo", { mode: "paused" });
  const { token } = await stage.api("POST", "/queues/demo/tokens", { user: crypto.randomUUID() });
  const page = await stage.visitor();
  await page.goto(stage.public);
  await page.getByRole("button", { name: "Get in line" }).click();
  const note = page.locator("#notice", { hasText: /stands still/ });
  await note.waitFor();
  // News of the line don't take the note away: somebody in front leaves.
  const before = await page.locator("#position").textContent();
  await stage.api("DELETE", "/queues/demo/tokens/me", { token });
  await eventually("the place is a better one", async () => (await page.locator("#position").textContent()) !== before);
  assert.ok(await note.isVisible());
  // Open, but nobody is let in: a slot for one, who is there already.
  await stage.set("demo", { mode: "open", max_active: 1, promote_per_interval: 1, interval_ms: 600_000 });
  await eventually("the note goes", async () => !(await note.isVisible()));
  await stage.open_doors();
  await page.getByText("Choose your seats").waitFor();
  await page.context().close();
});

test("it speaks Korean, and returns to this site only", async () => {
  await stage.open_doors();
  const page = await stage.visitor({ locale: "ko-KR" });
  await page.goto(`${stage.public}/waiting/demo?return=https://evil.example/`);
  await page.getByText("입장할 차례입니다").waitFor();
  await page.waitForURL(`${stage.public}/`);
  await page.context().close();
});

test("somebody who knows nothing buys a seat in a crowd, on a phone", async (t) => {
  t.after(() => stage.operate("PUT", "/dev/crowd", { people: 0 }));
  await stage.open_doors();
  await stage.set("demo", { promote_per_interval: 5 });
  await stage.operate("PUT", "/dev/crowd", { people: 150, pace_percent: 200, minutes: 10 });
  await eventually("a line has formed", async () => (await stage.operate("GET", "/queues/demo")).waiting > 20);
  const page = await stage.visitor({ viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
  await page.goto(stage.public);
  await page.getByRole("button", { name: "Get in line" }).tap();
  await page.getByText("You are in line").waitFor();
  const first = await place(page);
  assert.ok(first > 1, `${first}`);
  await eventually("the line moves", async () => !(await page.getByText("You are in line").isVisible()) || (await place(page)) < first);
  await stage.set("demo", { promote_per_interval: 50 });
  await page.getByText("Choose your seats").waitFor();
  await eventually("two seats are held", async () => {
    if (await page.getByText(/held for/).isVisible()) return true;
    // The answer to the press before may take the button away; then there is nothing to press.
    await page.getByRole("button", { name: /Choose the best 2/ }).tap({ timeout: 2_000 }).catch(() => {});
    return false;
  });
  await page.getByRole("button", { name: /into the wallet/ }).tap();
  await page.getByRole("button", { name: /^Pay/, disabled: false }).tap();
  await page.getByText("The seats are yours").waitFor();
  await page.context().close();

  await stage.operate("PUT", "/dev/crowd", { people: 0 });
  const crowd = await eventually("the crowd has gone home", async () => {
    const now = await stage.operate("GET", "/dev/crowd");
    return now.in_line + now.inside + now.owners === 0 && now;
  });
  assert.ok(crowd.visits > 20, JSON.stringify(crowd));
  const { consistent, checks } = await stage.operate("POST", "/audit");
  assert.ok(consistent, JSON.stringify(checks.filter((check) => !check.ok)));
});
