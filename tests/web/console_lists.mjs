// The totals and lists of the console.

import assert from "node:assert/strict";
import { test } from "node:test";
import { checkView, fixture } from "./fixture.mjs";

async function openLists() {
  const page = await fixture.newPage();
  await page.goto(fixture.adminUrl);
  await page.getByLabel(/Key/).fill(fixture.adminKey);
  await page.getByRole("button", { name: "Sign in" }).click();
  const lists = page.getByRole("region", { name: "Lists" });
  await lists.getByRole("button", { name: "demo", exact: true }).waitFor();
  return { page, lists };
}

test("the lists show queues, concerts, reservations and users with their details", async () => {
  await fixture.putQueue("listed", { max_active: 200, promote_per_interval: 50 });
  await fixture.putConcert("listed");
  await fixture.buySeats("listed", [1]);
  const { page, lists } = await openLists();
  const select = lists.getByLabel("List", { exact: true });

  await select.selectOption("Concerts");
  await lists.getByRole("button", { name: "listed", exact: true }).click();
  await lists.getByRole("heading", { name: "listed" }).waitFor();
  await lists.getByText(/"title": "Concert listed"/).waitFor();
  await checkView(page, "console-lists");

  await select.selectOption("Reservations of a concert");
  await lists.getByText("Enter the id of a concert.").waitFor();
  await lists.getByLabel("Concert", { exact: true }).fill("listed");
  await lists.getByRole("button", { name: "Show" }).click();
  const row = lists.getByRole("row").filter({ hasText: "confirmed" });
  await row.waitFor();
  const user = await row.getByRole("cell").nth(1).textContent();

  await select.selectOption("Users");
  await lists.getByLabel("User", { exact: true }).fill(user);
  await lists.getByRole("button", { name: "Show" }).click();
  await lists.getByRole("button", { name: user }).click();
  await lists.getByText(/"balance"/).waitFor();

  for (const name of ["Coupons", "Rewards", "Refunds due", "Jobs", "Dead letters"]) {
    const loaded = page.waitForResponse((response) => response.url().includes("limit=20"));
    await select.selectOption(name);
    assert.equal((await loaded).status(), 200, name);
  }
  await page.context().close();
});

test("a list has pages, and an unknown id is an error in words", async () => {
  for (let number = 0; number < 21; number += 1) await fixture.putQueue(`page-${number}`);
  const { page, lists } = await openLists();
  const seen = new Set();
  const next = lists.getByRole("button", { name: "Next page" });
  const ids = () => lists.getByRole("row").getByRole("button").allTextContents();
  for (const id of await ids()) seen.add(id);
  assert.equal(seen.size, 20);
  const first = await fixture.callAdmin("GET", "/queues?limit=20");
  const second = await fixture.callAdmin("GET", `/queues?limit=1&before=${first.next}`);
  await next.click();
  await lists.getByRole("button", { name: second.items[0].id, exact: true }).waitFor();
  for (const id of await ids()) assert.ok(!seen.has(id), id);

  await lists.getByLabel("List", { exact: true }).selectOption("Payment by id");
  await lists.getByLabel("Payment", { exact: true }).fill(crypto.randomUUID());
  const failed = page.waitForResponse((response) => response.url().includes("/payments/"));
  await lists.getByRole("button", { name: "Show" }).click();
  const response = await failed;
  assert.equal(response.status(), 404);
  await lists.getByText((await response.json()).detail, { exact: true }).waitFor();
  await page.context().close();
});

test("the log of changes shows who changed which field", async () => {
  await fixture.putQueue("logged", { max_active: 10 });
  await fixture.changeQueue("logged", { max_active: 20 });
  const { page } = await openLists();
  const row = page.locator("#actions tr").filter({ hasText: "PATCH" }).first();
  await row.getByText("max_active: 10 → 20").waitFor();
  await page.context().close();
});

test("the totals are those of the admin API", async () => {
  const { page } = await openLists();
  const { seats_sold: sold } = await fixture.callAdmin("GET", "/stats");
  const totals = page.locator("#totals div").filter({ hasText: "Seats sold" });
  await totals.getByText(sold.toLocaleString("en-GB"), { exact: true }).waitFor();
  await page.context().close();
});
