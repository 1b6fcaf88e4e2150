// States of the booking page that a journey without errors does not reach, in both languages.

import assert from "node:assert/strict";
import { test } from "node:test";
import { checkView, eventually, fixture, refuse, setHidden } from "./fixture.mjs";

const concertButton = (page, concert) =>
  page.locator("article", { hasText: `Concert ${concert}` }).getByRole("button");

// Opens the seats of a concert. Returns the page.
async function openConcert(concert, locale) {
  const page = await fixture.newPage({ locale });
  await page.goto(fixture.publicUrl);
  await concertButton(page, concert).click();
  return page;
}

// Answers every request with nothing, but lets the service handle it.
async function loseAnswers(page, url) {
  await page.route(url, async (route) => {
    if (route.request().method() !== "POST") return route.fallback();
    await route.fetch();
    return route.abort();
  });
  return () => page.unroute(url);
}

const readBalance = (page) => page.evaluate(async () => {
  const headers = { "Usher-User": localStorage.getItem("usher-user") };
  return (await (await fetch("/v1/wallet", { headers })).json()).balance;
});

for (const [locale, ko] of [["en-GB", false], ["ko-KR", true]]) {
  const language = ko ? "ko" : "en";
  const text = (english, korean) => (ko ? korean : english);
  const named = (state) => `book-${state}-${language}`;
  const check = (page, name) => checkView(page, `booking-${name}-${language}`);
  const retry = text("Try again", "다시 시도");
  const heading = (page, name) => page.getByRole("heading", { name }).waitFor();
  const chooseSeats = text("Choose your seats", "좌석 선택");

  test(`a concert without dates has a way on (${language})`, async () => {
    await fixture.putConcert(named("dates"));
    const page = await fixture.newPage({ locale });
    await page.route("**/schedules", (route) => route.fulfill({ json: { items: [] } }));
    await page.goto(fixture.publicUrl);
    await concertButton(page, named("dates")).click();
    await heading(page, text("No dates on sale", "예매 가능한 일정이 없습니다"));
    await check(page, "no-dates");
    await page.getByRole("button", { name: text("All concerts", "다른 공연 보기") }).click();
    await heading(page, text("Choose a concert", "공연을 선택해 주세요"));
    await page.context().close();
  });

  test(`a sold-out date says so (${language})`, async () => {
    await fixture.putConcert(named("soldout"), { seats: 1 });
    await fixture.buySeats(named("soldout"), [1]);
    const page = await openConcert(named("soldout"), locale);
    const isShown = text("This date is sold out", "이 일정은 매진되었습니다");
    const dates = page.getByText(text("No dates on sale", "예매 가능한 일정이 없습니다"));
    await page.getByText(isShown).or(dates).waitFor();
    await check(page, "sold-out");
    await page.context().close();
  });

  test(`refused holds have a sentence and a way on (${language})`, async () => {
    await fixture.putConcert(named("hold"), { seats: 4 });
    const page = await openConcert(named("hold"), locale);
    await heading(page, chooseSeats);
    const best = page.locator("#best");
    let restore = await refuse(page, "**/v1/reservations/best", 422, "seat_limit_exceeded");
    await best.click();
    await page.getByText(text("You have reached the limit", "1인당 최대")).waitFor();
    await check(page, "limit");
    await restore();
    restore = await refuse(page, "**/v1/reservations/best", 503, "overloaded");
    await best.click();
    await page.getByText(text("Too many people are here", "접속자가 많아")).waitFor();
    await restore();
    await refuse(page, "**/v1/reservations/best", 403, "visit_over");
    await best.click();
    await heading(page, text("Your visit has ended", "이용 시간이 종료되었습니다"));
    await check(page, "visit-over");
    await page.getByRole("button", { name: text("Join the queue again", "다시 대기하기") }).click();
    await heading(page, chooseSeats);
    await page.context().close();
  });

  test(`seats without a connection continue when it is back (${language})`, async () => {
    await fixture.putConcert(named("offline"), { seats: 3 });
    const page = await openConcert(named("offline"), locale);
    await heading(page, chooseSeats);
    await page.locator("#map .seat").first().waitFor();
    await page.context().setOffline(true);
    await page.getByText(text("You are offline", "인터넷에 연결되어 있지 않습니다")).waitFor();
    await check(page, "offline");
    await page.context().setOffline(false);
    await page.locator("#seats-connection").waitFor({ state: "hidden" });
    await page.context().close();
  });

  test(`a closed queue and a lost connection can be tried again (${language})`, async () => {
    await fixture.putConcert(named("closed"));
    await fixture.putQueue(named("closed"), { mode: "closed" });
    const page = await openConcert(named("closed"), locale);
    await heading(page, text("The queue is closed", "예매가 종료되었습니다"));
    await check(page, "closed");
    const restore = await refuse(page, "**/tokens", 503, "overloaded", { "Retry-After": "9" });
    await page.getByRole("button", { name: retry }).click();
    await page.getByText(text(/Trying again in \d+ s/, /\d+초 후에/)).waitFor();
    await restore();
    await fixture.putQueue(named("closed"), { mode: "open" });
    await page.getByRole("button", { name: retry }).click();
    await heading(page, chooseSeats);
    // The service is away while the list of concerts loads.
    await page.evaluate(() => sessionStorage.clear());
    await page.route("**/v1/concerts", (route) => route.abort());
    await page.reload();
    await page.getByText(text("The service cannot be reached", "서비스에 연결할 수 없습니다")).waitFor();
    assert.doesNotMatch(await page.locator("main").textContent(), /HTTP|undefined/);
    await check(page, "unreachable");
    await page.unroute("**/v1/concerts");
    await page.getByRole("button", { name: retry }).click();
    await heading(page, text("Choose a concert", "공연을 선택해 주세요"));
    await page.context().close();
  });

  test(`lost answers to hold, charge and payment take effect once (${language})`, async () => {
    await fixture.putConcert(named("lost"), { seats: 4 });
    const page = await openConcert(named("lost"), locale);
    await heading(page, chooseSeats);
    // The hold: its answer is lost, and the page is reloaded.
    let restore = await loseAnswers(page, "**/v1/reservations/best");
    await page.locator("#best").click();
    await page.getByText(text("The service cannot be reached", "서비스에 연결할 수 없습니다")).waitFor();
    await restore();
    await page.reload();
    await page.locator("#charge").waitFor();
    // The charge: its answer is lost, and the button is pressed again.
    restore = await loseAnswers(page, "**/v1/wallet/charges");
    await page.locator("#charge").click();
    await page.locator("#pay-note:not([hidden])").waitFor();
    await restore();
    await page.locator("#charge").click();
    await page.locator("#do-pay:enabled").waitFor();
    assert.equal(await readBalance(page), 50_000);
    // The payment: its answer is lost, the page checks, and is reloaded meanwhile.
    restore = await loseAnswers(page, "**/v1/payments");
    await page.locator("#do-pay").click();
    await page.getByText(text("You pay only once", "결제는 한 번만 이루어집니다")).waitFor();
    await check(page, "checking");
    const tab = await page.context().newPage();
    await tab.goto(`${fixture.publicUrl}/bookings`);
    await tab.getByText(text("Confirmed", "예매 완료"), { exact: true }).waitFor();
    await restore();
    await heading(page, text("Booking confirmed", "예매가 완료되었습니다"));
    assert.equal(await readBalance(page), 48_000);
    await page.context().close();
  });
}

test("a hidden tab does not read seats", async () => {
  await fixture.putConcert("book-hidden", { seats: 3 });
  const page = await openConcert("book-hidden");
  const isSeats = (request) => request.url().includes("/seats");
  await page.waitForRequest(isSeats);
  await setHidden(page, true);
  const requests = [];
  page.on("request", (request) => isSeats(request) && requests.push(request));
  // The browser's own timer covers several refreshes of a visible tab.
  await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 3500)));
  assert.ok(requests.length <= 1, `${requests.length} requests`);
  await setHidden(page, false);
  await eventually("the tab reads seats again", () => requests.length > 1);
  await page.context().close();
});
