// Every view of the visitors' pages, in both languages, as pictures and to axe-core.

import { test } from "node:test";
import { shoot, stage } from "./stage.mjs";

for (const [language, locale] of [["en", "en-GB"], ["ko", "ko-KR"]]) {
  const named = (name) => `${name}-${language}`;

  test(`every view of the booking page can be read by everybody (${language})`, async () => {
    await stage.set("demo", { mode: "paused" });
    // Some stand in front, so that the place is a number.
    for (let n = 0; n < 3; n += 1) await stage.api("POST", "/queues/demo/tokens", { user: crypto.randomUUID() });
    const page = await stage.visitor({ locale });
    await page.goto(stage.public);
    await page.locator("#concert-list button").waitFor();
    await shoot(page, named("concerts"));
    await page.locator("#concert-list button").click();
    await page.locator("#notice:not([hidden])").waitFor();
    await shoot(page, named("line"));
    await stage.open_doors();
    await page.locator("#map .seat").first().waitFor();
    await page.locator("#map .seat.free").nth(13).click();
    await page.locator("#map .seat.free").nth(14).click();
    await shoot(page, named("seats"));
    await page.locator("#hold").click();
    await page.locator("#charge").waitFor();
    await page.locator("#coupon-get").click();
    await page.locator("#coupon-use").waitFor();
    await shoot(page, named("pay"));
    await page.locator("#charge").click();
    await page.locator("#do-pay:enabled").click();
    await page.locator("#cancel").waitFor();
    await shoot(page, named("done"));
    await page.locator("#cancel").click();
    await page.locator("#cancel").waitFor({ state: "hidden" });
    await page.context().close();
  });

  test(`every view of the waiting page can be read by everybody (${language})`, async () => {
    await stage.set("demo", { mode: "paused" });
    for (let n = 0; n < 3; n += 1) await stage.api("POST", "/queues/demo/tokens", { user: crypto.randomUUID() });
    const page = await stage.visitor({ locale });
    await page.goto(`${stage.public}/waiting/demo`);
    await page.locator("#notice:not([hidden])").waitFor();
    await shoot(page, named("waiting"));
    await page.locator("#leave").click();
    await page.locator("#over:not([hidden])").waitFor();
    await shoot(page, named("over"));
    await stage.open_doors();
    await page.context().close();
  });
}
