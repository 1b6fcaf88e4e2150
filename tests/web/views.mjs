// Screenshots and accessibility checks of every view for visitors, in both languages.

import { test } from "node:test";
import { checkView, fixture } from "./fixture.mjs";

// Users ahead in the queue, so that the view shows a number instead of "You are next".
async function joinUsersAhead() {
  for (let n = 0; n < 3; n += 1) await fixture.joinAsNewUser();
}

for (const [language, locale] of [["en", "en-GB"], ["ko", "ko-KR"]]) {
  const named = (name) => `${name}-${language}`;

  test(`every view of the booking page is accessible (${language})`, async () => {
    await fixture.changeQueue("demo", { mode: "paused" });
    await joinUsersAhead();
    const page = await fixture.newPage({ locale });
    await page.goto(fixture.publicUrl);
    await page.locator("#concert-list button").waitFor();
    await checkView(page, named("concerts"));
    await page.locator("#concert-list button").click();
    await page.locator("#notice:not([hidden])").waitFor();
    await checkView(page, named("queue"));
    await fixture.openQueue();
    await page.locator("#map .seat").first().waitFor();
    await page.locator("#map .seat.available").nth(13).click();
    await page.locator("#map .seat.available").nth(14).click();
    await checkView(page, named("seats"));
    await page.locator("#hold").click();
    await page.locator("#charge").waitFor();
    await page.locator("#coupon-get").click();
    await page.locator("#coupon-use").waitFor();
    await checkView(page, named("pay"));
    await page.locator("#charge").click();
    await page.locator("#do-pay:enabled").click();
    await page.locator("#cancel").waitFor();
    await checkView(page, named("done"));
    await page.locator("#cancel").click();
    await page.locator("#cancel").waitFor({ state: "hidden" });
    await page.context().close();
  });

  test(`every view of the waiting page is accessible (${language})`, async () => {
    await fixture.changeQueue("demo", { mode: "paused" });
    await joinUsersAhead();
    const page = await fixture.newPage({ locale });
    await page.goto(`${fixture.publicUrl}/waiting/demo`);
    await page.locator("#notice:not([hidden])").waitFor();
    await checkView(page, named("waiting"));
    await page.locator("#leave").click();
    await page.locator("#over:not([hidden])").waitFor();
    await checkView(page, named("over"));
    await fixture.openQueue();
    await page.context().close();
  });
}
