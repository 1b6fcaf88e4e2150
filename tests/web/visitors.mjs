// Journeys of visitors: waiting, booking, several tabs, keyboard only, many users at once.

import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually, fixture } from "./fixture.mjs";

// Presses only the tab key until the element has the focus.
async function tabTo(page, locator) {
  await locator.waitFor();
  for (let presses = 0; presses < 60; presses += 1) {
    if (await locator.evaluate((element) => element === document.activeElement)) return;
    await page.keyboard.press("Tab");
  }
  assert.fail(`the tab key does not reach ${locator}`);
}

async function pressKeyOn(page, role, name, key = "Enter") {
  await tabTo(page, page.getByRole(role, { name, disabled: false }));
  await page.keyboard.press(key);
}

const positionText = (page) => page.locator("#position").textContent();
const positionOf = async (page) => Number((await positionText(page)).replace(/\D/g, ""));

test("a user books a seat with the keyboard, across a reload, and cancels", async () => {
  await fixture.openQueue();
  const page = await fixture.newPage();
  await page.goto(fixture.publicUrl);
  await pressKeyOn(page, "button", "Book");
  await tabTo(page, page.getByRole("checkbox", { name: /^Seat 1,/ }));
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press(" ");
  const seat = page.getByRole("checkbox", { name: /^Seat 12,/ });
  assert.equal(await seat.getAttribute("aria-checked"), "true");
  await pressKeyOn(page, "button", /^Hold 1/);
  await page.getByText(/held for/).waitFor();
  await pressKeyOn(page, "button", /Get a coupon/);
  await page.getByText(/Use a coupon/).waitFor();
  const payButton = page.getByRole("button", { name: /^Pay/ });
  assert.ok(await payButton.isDisabled(), "an empty wallet cannot pay");
  await pressKeyOn(page, "button", /to the wallet/);
  // The hold and the balance survive a reload.
  await page.reload();
  await page.getByText(/held for/).waitFor();
  await pressKeyOn(page, "button", /^Pay/);
  await page.getByText("Booking confirmed").waitFor();
  await pressKeyOn(page, "button", "Cancel the booking");
  await page.getByText(/^Booking cancelled/).waitFor();
  await page.context().close();
});

test("the seat map shows another user's hold without a reload", async () => {
  await fixture.openQueue();
  const page = await fixture.newPage();
  await page.goto(fixture.publicUrl);
  await page.getByRole("button", { name: "Book" }).click();
  await page.getByRole("checkbox", { name: /^Seat 20,.*, available$/ }).waitFor();
  const { token } = await fixture.joinAsNewUser();
  const body = { schedule_id: "demo-1", seats: [20] };
  const { id } = await fixture.callApi("POST", "/reservations", { token, body });
  await page.getByRole("checkbox", { name: /^Seat 20,.*, on hold$/ }).waitFor();
  await fixture.callApi("DELETE", `/reservations/${id}`, { token });
  await page.getByRole("checkbox", { name: /^Seat 20,.*, available$/ }).waitFor();
  await page.context().close();
});

test("the waiting page keeps the position, shows a pause and continues by redirect", async () => {
  await fixture.changeQueue("demo", { mode: "paused" });
  const url = `${fixture.publicUrl}/waiting/demo?return=/docs/`;
  const first = await fixture.newPage();
  const context = first.context();
  const openTab = async (tab) => {
    await tab.goto(url);
    await tab.getByText("You are in the queue").waitFor();
    return tab;
  };
  await openTab(first);
  await first.getByText(/Entry is paused/).waitFor();
  const position = await positionText(first);
  await first.reload();
  await first.getByText("You are in the queue").waitFor();
  assert.equal(await positionText(first), position, "after a reload");
  const second = await openTab(await context.newPage());
  assert.equal(await positionText(second), position, "in a second tab");
  await first.close();
  await second.close();
  const third = await openTab(await context.newPage());
  assert.equal(await positionText(third), position, "after all tabs were closed");
  await third.getByText(/Entry is paused/).waitFor();
  await fixture.openQueue();
  await third.waitForURL(`${fixture.publicUrl}/docs/`);
  await context.close();
});

test("the booking page shows a pause and removes the notice when it ends", async () => {
  await fixture.changeQueue("demo", { mode: "paused" });
  const { token } = await fixture.joinAsNewUser();
  const page = await fixture.newPage();
  await page.goto(fixture.publicUrl);
  await page.getByRole("button", { name: "Book" }).click();
  const notice = page.locator("#notice", { hasText: /Entry is paused/ });
  await notice.waitFor();
  // An update of the position must not remove the notice. A user ahead leaves the queue.
  const before = await positionText(page);
  await fixture.callApi("DELETE", "/queues/demo/tokens/me", { token });
  await eventually("the position improves", async () => (await positionText(page)) !== before);
  assert.ok(await notice.isVisible());
  // The queue is open but admits no further user: the only active slot is in use.
  const full = { max_active: 1, promote_per_interval: 1, interval_ms: 600_000 };
  await fixture.changeQueue("demo", { mode: "open", ...full });
  await eventually("the notice disappears", async () => !(await notice.isVisible()));
  await fixture.openQueue();
  await page.getByRole("heading", { name: "Choose your seats" }).waitFor();
  await page.context().close();
});

test("the waiting page uses Korean and redirects only to this site", async () => {
  await fixture.openQueue();
  const page = await fixture.newPage({ locale: "ko-KR" });
  await page.goto(`${fixture.publicUrl}/waiting/demo?return=https://evil.example/`);
  await page.getByText("입장할 차례입니다").waitFor();
  await page.waitForURL(`${fixture.publicUrl}/`);
  await page.context().close();
});

test("a new visitor buys a seat on a phone while many users compete", async (t) => {
  t.after(() => fixture.callAdmin("PUT", "/dev/crowd", { people: 0 }));
  await fixture.openQueue();
  await fixture.changeQueue("demo", { promote_per_interval: 5 });
  const simulation = { people: 150, pace_percent: 200, minutes: 10 };
  await fixture.callAdmin("PUT", "/dev/crowd", simulation);
  await eventually("a queue has formed", async () => {
    const queue = await fixture.callAdmin("GET", "/queues/demo");
    return queue.waiting > 20;
  });
  const phone = { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true };
  const page = await fixture.newPage(phone);
  await page.goto(fixture.publicUrl);
  await page.getByRole("button", { name: "Book" }).tap();
  await page.getByText("You are in the queue").waitFor();
  const start = await positionOf(page);
  assert.ok(start > 1, `${start}`);
  await eventually("the position improves", async () => {
    const isWaiting = await page.getByText("You are in the queue").isVisible();
    return !isWaiting || (await positionOf(page)) < start;
  });
  await fixture.changeQueue("demo", { promote_per_interval: 50 });
  await page.getByRole("heading", { name: "Choose your seats" }).waitFor();
  await eventually("two seats are held", async () => {
    if (await page.getByText(/held for/).isVisible()) return true;
    // The response to the previous tap can hide the button.
    const button = page.getByRole("button", { name: /Choose the 2 best/ });
    await button.tap({ timeout: 2_000 }).catch(() => {});
    return false;
  });
  await page.getByRole("button", { name: /to the wallet/ }).tap();
  await page.getByRole("button", { name: /^Pay/, disabled: false }).tap();
  await page.getByText("Booking confirmed").waitFor();
  await page.context().close();

  await fixture.callAdmin("PUT", "/dev/crowd", { people: 0 });
  const state = await eventually("all simulated users have left", async () => {
    const now = await fixture.callAdmin("GET", "/dev/crowd");
    return now.in_line + now.inside + now.owners === 0 && now;
  });
  assert.ok(state.visits > 20, JSON.stringify(state));
  const { consistent, checks } = await fixture.callAdmin("POST", "/audit");
  assert.ok(consistent, JSON.stringify(checks.filter((check) => !check.ok)));
});
