// Halls of 5,000 and 50,000 seats: only a part is drawn, updates come by the stream, or by polling
// where there is no stream.

import assert from "node:assert/strict";
import { test } from "node:test";
import { checkView, eventually, fixture, inDays, refuse } from "./fixture.mjs";

// Sections of equal size.
async function putHall(concert, seats, sections) {
  const size = seats / sections;
  const schedule = {
    id: `${concert}-1`,
    starts_at: inDays(30),
    sections: Array.from({ length: sections }, (_, index) => ({
      name: `Block ${index + 1}`,
      from: index * size + 1,
      to: (index + 1) * size,
      price: 1000 + 100 * index,
    })),
  };
  const body = { title: `Concert ${concert}`, queue_id: concert, schedules: [schedule] };
  await fixture.callAdmin("PUT", `/concerts/${concert}`, body);
}

async function openHall(concert, options) {
  const page = await fixture.newPage(options);
  await page.goto(fixture.publicUrl);
  const card = page.locator("article", { hasText: `Concert ${concert}` });
  await card.getByRole("button").click();
  await page.locator("#map .seat").first().waitFor();
  return page;
}

const drawnSeats = (page) => page.locator("#map .seat").count();
const seatNamed = (page, name) => page.getByRole("checkbox", { name });

test("a hall of 5,000 seats is booked by keyboard, section by section", async () => {
  await putHall("hall-5k", 5_000, 10);
  const page = await openHall("hall-5k");
  assert.equal(await drawnSeats(page), 500);
  const sections = page.getByLabel("Section");
  assert.equal(await sections.locator("option").count(), 10);
  await seatNamed(page, /^Seat 2,/).press(" ");
  // The keys choose the last section, and move within it.
  await sections.focus();
  await page.keyboard.press("End");
  const first = seatNamed(page, /^Seat 4501, Block 10, ₩1,900, available$/);
  await first.waitFor();
  assert.equal(await drawnSeats(page), 500);
  await page.keyboard.press("Tab");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press(" ");
  await page.getByText("Selected: Block 1 2, Block 10 4511").waitFor();
  await checkView(page, "hall-5k");
  await page.getByRole("button", { name: /^Hold 2 for/ }).press("Enter");
  await page.getByText(/held for/).waitFor();
  await page.context().close();
});

test("a hall of 50,000 seats in one section is drawn in parts on a phone", async () => {
  await putHall("hall-50k", 50_000, 1);
  const phone = { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true };
  const page = await openHall("hall-50k", phone);
  assert.equal(await drawnSeats(page), 500);
  assert.equal(await page.locator("#part option").count(), 100);
  await page.locator("#part").selectOption("99");
  const last = seatNamed(page, /^Seat 50000,/);
  await last.tap();
  assert.equal(await last.getAttribute("aria-checked"), "true");
  assert.equal(await drawnSeats(page), 500);
  await page.context().close();
});

test("changes arrive by the stream, without another request for the seats", async () => {
  await putHall("hall-stream", 1_000, 2);
  const page = await openHall("hall-stream");
  const requests = [];
  page.on("request", (request) => requests.push(request.url()));
  await fixture.buySeats("hall-stream", [7, 999]);
  await seatNamed(page, /^Seat 7,.*, sold$/).waitFor();
  await page.getByText("998 of 1,000 seats available").waitFor();
  await page.locator("#part").selectOption("1");
  await seatNamed(page, /^Seat 999,.*, sold$/).waitFor();
  assert.deepEqual(requests.filter((url) => url.includes("/seats")), []);
  // A changed price arrives with its layout.
  await putHall("hall-stream", 1_500, 3);
  await page.getByText("1,498 of 1,500 seats available").waitFor();
  assert.equal(await page.locator("#part option").count(), 3);
  await page.context().close();
});

test("without a stream the page polls", async () => {
  await putHall("hall-poll", 1_000, 2);
  const page = await fixture.newPage();
  await refuse(page, "**/seats/events*", 503, "overloaded", { "Retry-After": "1" });
  await page.goto(fixture.publicUrl);
  await page.locator("article", { hasText: "Concert hall-poll" }).getByRole("button").click();
  await page.locator("#map .seat").first().waitFor();
  await fixture.buySeats("hall-poll", [7]);
  await seatNamed(page, /^Seat 7,.*, sold$/).waitFor();
  await page.context().close();
});
