// My bookings in both languages.

import assert from "node:assert/strict";
import { test } from "node:test";
import { checkView, eventually, fixture } from "./fixture.mjs";

// Buys two seats on the booking page, with a coupon.
async function buy(page, concert) {
  await page.goto(fixture.publicUrl);
  await page.locator("article", { hasText: `Concert ${concert}` }).getByRole("button").click();
  await page.locator("#best").click();
  await page.locator("#charge").click();
  await page.locator("#do-pay:enabled").click();
  await page.locator("#done:not([hidden])").waitFor();
}

for (const [locale, ko] of [["en-GB", false], ["ko-KR", true]]) {
  const language = ko ? "ko" : "en";
  const text = (english, korean) => (ko ? korean : english);
  const check = (page, name) => checkView(page, `bookings-${name}-${language}`);
  const title = text("My bookings", "예매 내역");

  test(`bookings show tickets, payments, wallet and coupons (${language})`, async () => {
    const concert = `mine-${language}`;
    await fixture.putConcert(concert, { seats: 4, title: `Concert ${concert} <b>&` });
    const page = await fixture.newPage({ locale });
    await page.goto(`${fixture.publicUrl}/bookings`);
    await page.getByText(text("You have no bookings yet.", "예매 내역이 없습니다.")).waitFor();
    await check(page, "empty");
    await buy(page, concert);
    await page.locator("#done").getByRole("link", { name: title }).click();
    const user = await page.evaluate(() => localStorage.getItem("usher-user"));
    await fixture.callApi("POST", "/coupons/demo-coupon/issues", { user });
    await page.reload();
    const ticket = page.getByRole("region", { name: `Concert ${concert} <b>&` });
    await ticket.getByText(text("Confirmed", "예매 완료"), { exact: true }).waitFor();
    const { items } = await fixture.callApi("GET", "/reservations/mine", { user });
    await ticket.getByRole("img", { name: items[0].id }).waitFor();
    await page.getByText(text("can be used", "사용 가능")).waitFor();
    const wallet = page.locator("#wallet");
    await wallet.getByText(text("₩48,000", "48,000원")).first().waitFor();
    await check(page, "ticket");

    // Offline the ticket stays, and the page says that it may be old.
    await page.context().setOffline(true);
    await page.evaluate(() => window.dispatchEvent(new Event("online")));
    await page.getByText(text("may be out of date", "최신 내역이 아닐 수 있습니다")).waitFor();
    assert.ok(await ticket.getByRole("img").isVisible());
    await check(page, "offline");
    await page.context().setOffline(false);
    await page.locator("#connection").waitFor({ state: "hidden" });

    // Cancelling asks first. A lost answer refunds once.
    const cancel = page.getByRole("button", { name: text("Cancel the booking", "예매 취소"), exact: true });
    await cancel.click();
    await page.getByRole("button", { name: text("Keep it", "돌아가기") }).click();
    await cancel.click();
    await check(page, "cancel");
    await page.route("**/cancel", async (route) => {
      await route.fetch();
      await route.abort();
    });
    await page.getByRole("button", { name: text("Yes, cancel it", "예매 취소하기") }).click();
    await page.getByText(text("The service cannot be reached", "서비스에 연결할 수 없습니다")).waitFor();
    await page.unroute("**/cancel");
    await page.getByRole("button", { name: text("Try again", "다시 시도") }).click();
    await ticket.getByText(text("Cancelled", "취소 완료"), { exact: true }).waitFor();
    await eventually("the attempt is over", () => page.evaluate(() =>
      Object.keys(localStorage).every((key) => !key.startsWith("usher-attempt-"))));
    const { balance } = await fixture.callApi("GET", "/wallet", { user });
    assert.equal(balance, 50_000);
    await page.context().close();
  });

  test(`payments and the wallet have the currency of the service (${language})`, async () => {
    const page = await fixture.newPage({ locale });
    const statuses = ["pending", "confirmed", "declined", "voided", "refunded", "refund_due"];
    const items = statuses.map((status, at) => ({
      id: `payment-${at}`, concert_title: "Concert <i>", status, created_at: "2026-12-01T09:00:00Z",
      amount: 123_456, discount: 0, paid: status === "confirmed" ? 123_456 : 0,
    }));
    await page.route("**/v1/payments?*", (route) => route.fulfill({ json: { items, next: null } }));
    await page.route("**/v1/wallet", (route) =>
      route.fulfill({ json: { balance: 5_005, currency: "EUR" } }));
    await page.goto(`${fixture.publicUrl}/bookings`);
    await page.locator("#payments tbody tr").nth(5).waitFor();
    const rows = await page.locator("#payments tbody").textContent();
    assert.match(rows, text(/refund on its way/, /환불 진행 중/));
    assert.match(rows, /€1,234\.56/);
    await page.locator("#balance", { hasText: "€50.05" }).waitFor();
    await check(page, "payments");
    await page.context().close();
  });

  test(`an open hold is seen in another tab and leads to its payment (${language})`, async () => {
    const concert = `open-${language}`;
    await fixture.putConcert(concert);
    const page = await fixture.newPage({ locale });
    await page.goto(`${fixture.publicUrl}/bookings`);
    await page.getByText(text("You have no bookings yet.", "예매 내역이 없습니다.")).waitFor();
    const other = await page.context().newPage();
    await other.goto(fixture.publicUrl);
    await other.locator("article", { hasText: `Concert ${concert}` }).getByRole("button").click();
    await other.locator("#best").click();
    await other.locator("#charge").waitFor();
    await page.getByText(text("Waiting for payment until", "까지 결제 대기")).waitFor();
    await check(page, "held");
    await page.getByRole("link", { name: text("Continue to payment", "결제 계속하기") }).click();
    await page.locator("#charge").waitFor();
    await page.context().close();
  });
}
