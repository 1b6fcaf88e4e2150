// What every page says when the service refuses its first call, in both languages.

import assert from "node:assert/strict";
import { test } from "node:test";
import { checkView, fixture, refuse } from "./fixture.mjs";

const SENTENCES = [
  [429, "rate_limited", "Too many requests", "요청이 너무 많습니다"],
  [503, "overloaded", "Too many people are here", "접속자가 많아"],
  [503, "recovering", "cannot process the request at the moment", "지금은 요청을 처리할 수 없습니다"],
  [502, undefined, "cannot process the request at the moment", "지금은 요청을 처리할 수 없습니다"],
  [404, "not_found", "no longer available", "더 이상 제공되지 않는 정보입니다"],
];

for (const [locale, ko] of [["en-GB", false], ["ko-KR", true]]) {
  const language = ko ? "ko" : "en";
  const text = (english, korean) => (ko ? korean : english);
  const retry = text("Try again", "다시 시도");

  // Opens a page whose call is refused with each error in turn, and then succeeds.
  async function refuseFirstCall(name, path, call, recovered) {
    const page = await fixture.newPage({ locale });
    for (const [status, code, ...sentences] of SENTENCES) {
      const restore = await refuse(page, call, status, code);
      await page.goto(fixture.publicUrl + path);
      await page.getByText(text(...sentences)).waitFor();
      const shown = await page.locator("main").innerText();
      assert.doesNotMatch(shown, /HTTP|undefined|null|NaN|a detail|\d{3}:/);
      await checkView(page, `error-${name}-${code ?? status}-${language}`);
      await restore();
    }
    await page.getByRole("button", { name: retry }).click();
    await page.locator(recovered).first().waitFor();
    await page.context().close();
  }

  test(`the booking page explains each error (${language})`, () =>
    refuseFirstCall("booking", "/", "**/v1/concerts", "#concert-list article"));

  test(`my bookings explain each error (${language})`, () =>
    refuseFirstCall("bookings", "/bookings", "**/v1/reservations/mine*", "#reservations .card"));

  test(`the demo says that it needs its own users (${language})`, async () => {
    const page = await fixture.newPage({ locale });
    await refuse(page, "**/v1/wallet", 401, "unauthenticated");
    await page.goto(fixture.publicUrl);
    await page.getByText("USHER_AUTH=header").waitFor();
    await checkView(page, `error-booking-signin-${language}`);
    await page.goto(`${fixture.publicUrl}/bookings`);
    await page.getByText(text("Please sign in, then try again", "로그인 후 다시 시도해")).waitFor();
    await checkView(page, `error-bookings-signin-${language}`);
    await page.context().close();
  });

  test(`the waiting page explains a rate limit and goes on (${language})`, async () => {
    const queue = `error-limit-${language}`;
    await fixture.putQueue(queue, { mode: "paused" });
    const page = await fixture.newPage({ locale });
    const restore = await refuse(page, "**/place", 429, "rate_limited", { "Retry-After": "1" });
    await page.goto(`${fixture.publicUrl}/waiting/${queue}`);
    await page.getByText(text("Too many requests", "요청이 너무 많습니다")).waitFor();
    await checkView(page, `error-waiting-limit-${language}`);
    await restore();
    // Without a click.
    await page.locator("#waiting:not([hidden])").waitFor();
    await page.context().close();
  });
}
