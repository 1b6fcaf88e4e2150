// Every state of the waiting page in both languages: what the visitor reads, and the way on.

import assert from "node:assert/strict";
import { test } from "node:test";
import { checkView, eventually, fixture, inDays, refuse, setHidden } from "./fixture.mjs";

const heading = (page, text) => page.getByRole("heading", { name: text }).waitFor();

async function openWaiting(queue, options) {
  const page = await fixture.newPage(options);
  await page.goto(`${fixture.publicUrl}/waiting/${queue}?return=/docs/`);
  return page;
}

// Opens a waiting page whose service has other settings: `data` is what it writes into the page.
async function openWithData(page, queue, data, policy) {
  const escaped = JSON.stringify(data).replaceAll('"', "&quot;");
  const url = `${fixture.publicUrl}/waiting/${queue}`;
  await page.route(url, async (route) => {
    const response = await route.fetch();
    const html = await response.text();
    const body = html.replace(/data-page="[^"]*"/, `data-page="${escaped}"`);
    const headers = { ...response.headers(), "content-security-policy": policy };
    await route.fulfill({ response, body, headers });
  });
  await page.goto(url);
}

// `ko` selects the text of the language.
for (const [locale, ko] of [["en-GB", false], ["ko-KR", true]]) {
  const language = ko ? "ko" : "en";
  const text = (english, korean) => (ko ? korean : english);
  const retry = text("Try again", "다시 시도");
  const inQueue = text("You are in the queue", "대기 중입니다");
  const open = (queue) => openWaiting(queue, { locale });
  const check = (page, name) => checkView(page, `waiting-${name}-${language}`);
  const name = (state) => `state-${state}-${language}`;

  test(`a closed queue is joined once it opens (${language})`, async () => {
    await fixture.putQueue(name("closed"), { mode: "closed" });
    const page = await open(name("closed"));
    await heading(page, text("The queue is closed", "예매가 종료되었습니다"));
    await check(page, "closed");
    await fixture.putQueue(name("closed"), { mode: "paused" });
    await page.getByRole("button", { name: retry }).click();
    await heading(page, inQueue);
    // Closing again keeps the visitor's place.
    await fixture.putQueue(name("closed"), { mode: "closed" });
    await page.getByText(text("The queue is closed for now", "현재 입장이 마감되었습니다")).waitFor();
    await page.context().close();
  });

  test(`a paused queue shows the operator's message (${language})`, async () => {
    const message = { en: "Doors open\n<b>late</b>.", ko: "입장이 <b>지연</b>되고 있습니다." };
    await fixture.putQueue(name("paused"), { mode: "paused", message });
    const page = await open(name("paused"));
    await page.locator("#operator-message", { hasText: text("<b>late</b>", "<b>지연</b>") }).waitFor();
    await page.getByText(text("Entry is paused", "입장이 일시 중지되었습니다")).waitFor();
    await check(page, "paused");
    await page.getByRole("button", { name: text("Leave the queue", "대기 취소") }).click();
    await heading(page, text("You have left the queue", "대기를 취소했습니다"));
    await check(page, "left");
    await page.getByRole("button", { name: text("Join the queue again", "다시 대기하기") }).click();
    await heading(page, inQueue);
    await page.context().close();
  });

  test(`a pre-queue counts down to the opening (${language})`, async () => {
    const times = { opens_at: inDays(1.5), prequeue_starts_at: inDays(-1) };
    await fixture.putQueue(name("draw"), { ...times, order: "lottery" });
    const page = await open(name("draw"));
    await page.getByText(text("Drawn at the opening", "추첨 예정"), { exact: true }).waitFor();
    const countdown = page.locator("#countdown-opening");
    assert.match(await countdown.textContent(), text(/^1 d 1[12]:/, /^1일 1[12]:/));
    const before = await countdown.textContent();
    await eventually("the countdown runs", async () => (await countdown.textContent()) !== before);
    await check(page, "draw");
    await fixture.putQueue(name("draw"), { mode: "open" });
    await page.waitForURL(`${fixture.publicUrl}/docs/`);
    await page.context().close();
  });

  test(`a sold-out queue says so (${language})`, async () => {
    const queue = name("soldout");
    await fixture.putConcert(queue, { seats: 1 });
    await fixture.buySeats(queue, [1]);
    await fixture.putQueue(queue, { mode: "open", max_active: 1 });
    // The buyer's slot has ended, so the next user takes the only one.
    await fixture.callApi("POST", `/queues/${queue}/tokens`, { user: crypto.randomUUID() });
    const page = await open(queue);
    await page.getByText(text("Sold out for now", "현재 매진입니다")).waitFor();
    await check(page, "soldout");
    await page.context().close();
  });

  test(`a full queue and an overloaded service are tried again (${language})`, async () => {
    const queue = name("full");
    await fixture.putQueue(queue, { mode: "paused", max_waiting: 1 });
    await fixture.callApi("POST", `/queues/${queue}/tokens`, { user: crypto.randomUUID() });
    const page = await open(queue);
    await heading(page, text("The queue is full", "대기 인원이 가득 찼습니다"));
    await page.getByText(text(/Trying again in \d/, /\d+초 후에 다시 시도합니다/)).waitFor();
    await check(page, "full");
    const restore = await refuse(page, "**/place", 503, "overloaded", { "Retry-After": "60" });
    await page.getByRole("button", { name: retry }).click();
    await page.getByText(text("Too many people are here", "접속자가 많아")).waitFor();
    // No shorter than the service asks for.
    await page.getByText(text(/in [12] min|in 60 s/, /(60초|[12]분) 후/)).waitFor();
    await check(page, "overloaded");
    await restore();
    await fixture.putQueue(queue, { mode: "paused" });
    await page.getByRole("button", { name: retry }).click();
    await heading(page, inQueue);
    await page.context().close();
  });

  test(`a visitor without a connection continues when it is back (${language})`, async () => {
    await fixture.putQueue(name("offline"), { mode: "paused" });
    const page = await open(name("offline"));
    await heading(page, inQueue);
    const position = await page.locator("#position").textContent();
    await page.context().setOffline(true);
    // The browser keeps an open stream in spite of the emulation, so the tab opens a new one.
    await setHidden(page, true);
    await setHidden(page, false);
    await page.getByText(text("You are offline", "인터넷 연결이 끊겼습니다")).waitFor();
    await check(page, "offline");
    await page.context().setOffline(false);
    await page.locator("#notice", { hasText: text("Entry is paused", "입장이 일시") }).waitFor();
    assert.equal(await page.locator("#position").textContent(), position);
    await page.context().close();
  });

  test(`a visitor whose place is over joins again (${language})`, async () => {
    const queue = name("over");
    await fixture.putQueue(queue, { mode: "paused" });
    const page = await open(queue);
    await heading(page, inQueue);
    const [{ value: token }] = await page.context().cookies();
    await fixture.callApi("DELETE", `/queues/${queue}/tokens/me`, { token });
    await heading(page, text("Your place in the queue has ended", "대기가 종료되었습니다"));
    await check(page, "over");
    await page.getByRole("button", { name: text("Join the queue again", "다시 대기하기") }).click();
    await heading(page, inQueue);
    await page.context().close();
  });

  test(`a browser without cookies gets an explanation (${language})`, async () => {
    const queue = name("cookie");
    await fixture.putQueue(queue, { mode: "open" });
    const blocked = await fixture.newPage({ locale });
    await blocked.addInitScript(() => {
      Object.defineProperty(navigator, "cookieEnabled", { value: false });
      for (const storage of ["localStorage", "sessionStorage"]) {
        Object.defineProperty(window, storage, { get: () => { throw new DOMException("no"); } });
      }
    });
    await blocked.goto(`${fixture.publicUrl}/waiting/${queue}`);
    const title = text("Your browser did not keep your place", "대기 정보가 저장되지 않았습니다");
    await heading(blocked, title);
    const { waiting, active } = await fixture.callApi("GET", `/queues/${queue}`);
    assert.equal(waiting + active, 0, "no place is used up");
    await check(blocked, "cookie");
    await blocked.context().close();
    // A browser that accepts cookies, but not this one.
    const page = await fixture.newPage({ locale });
    await page.route("**/place", async (route) => {
      const response = await route.fetch();
      const { "set-cookie": _, ...headers } = response.headers();
      await page.context().clearCookies();
      await route.fulfill({ response, headers });
      await page.context().clearCookies();
    });
    await page.route("**/check", (route) => route.fulfill({
      status: 401, contentType: "application/problem+json", body: '{"code":"not_admitted"}',
    }));
    await page.goto(`${fixture.publicUrl}/waiting/${queue}`);
    await heading(page, title);
    await page.context().close();
  });

  test(`a visitor who must sign in gets a sentence (${language})`, async () => {
    await fixture.putQueue(name("signin"), { mode: "paused" });
    const page = await fixture.newPage({ locale });
    const restore = await refuse(page, "**/place", 401, "unauthenticated");
    await page.goto(`${fixture.publicUrl}/waiting/${name("signin")}`);
    await heading(page, text("Please sign in first", "로그인이 필요합니다"));
    await restore();
    await page.getByRole("button", { name: retry }).click();
    await heading(page, inQueue);
    await refuse(page, "**/place", 401, "unauthenticated");
    const data = { login_url: "https://login.example/?next=%2F" };
    await openWithData(page, name("signin"), data, "script-src 'self'");
    const link = page.getByRole("link", { name: text("Sign in", "로그인하기") });
    await link.waitFor();
    assert.equal(await link.getAttribute("href"), data.login_url);
    await check(page, "signin");
    await page.context().close();
  });

  test(`unknown addresses have a page with a way on (${language})`, async () => {
    const page = await fixture.newPage({ locale });
    for (const path of ["/nowhere", "/waiting/nowhere"]) {
      const response = await page.goto(fixture.publicUrl + path);
      assert.equal(response.status(), 404);
      await heading(page, text("This page does not exist", "페이지를 찾을 수 없습니다"));
    }
    await check(page, "missing");
    await page.getByRole("link", { name: text("Go to the start", "홈으로 이동") }).click();
    await page.waitForURL(`${fixture.publicUrl}/`);
    await page.context().close();
  });

  test(`an error that the page does not know has a sentence (${language})`, async () => {
    const page = await fixture.newPage({ locale });
    await fixture.putQueue(name("odd"), { mode: "paused" });
    await refuse(page, "**/place", 418, "teapot");
    await page.goto(`${fixture.publicUrl}/waiting/${name("odd")}`);
    await page.getByText(text("The service refused the request", "요청이 거절되었습니다")).waitFor();
    assert.doesNotMatch(await page.locator("main").textContent(), /HTTP|418|teapot|a detail/);
    await page.context().close();
  });

  test(`a queue has its own look (${language})`, async () => {
    const logo = '<svg xmlns="http://www.w3.org/2000/svg" width="60" height="40">'
      + '<rect width="60" height="40" fill="#fc0"/></svg>';
    for (const [look, colors] of [
      ["dark", { accent_color: "#003366", header_color: "#101820" }],
      ["light", { accent_color: "#ffe14d", header_color: "#fff4c2" }],
    ]) {
      const queue = `${name("look")}-${look}`;
      const page = {
        event_name: { en: "Spring <Festival> 2027", ko: "2027 봄 <페스티벌>" },
        logo_url: "https://cdn.example/logo.svg",
        support_url: "https://help.example/tickets",
        ...colors,
      };
      await fixture.putQueue(queue, { mode: "paused", page });
      const tab = await fixture.newPage({ locale });
      await tab.route("https://cdn.example/logo.svg", (route) =>
        route.fulfill({ body: logo, contentType: "image/svg+xml" }));
      await tab.goto(`${fixture.publicUrl}/waiting/${queue}`);
      await heading(tab, inQueue);
      await tab.getByText(text("Spring <Festival> 2027", "2027 봄 <페스티벌>")).waitFor();
      const width = () => tab.locator(".logo").evaluate((image) => image.naturalWidth);
      await eventually("the policy allows the logo", async () => (await width()) > 0);
      const help = tab.getByRole("link", { name: text("Help", "고객센터") });
      assert.equal(await help.getAttribute("href"), page.support_url);
      await check(tab, `look-${look}`);
      await tab.context().close();
    }
  });

  test(`the widget of the challenge comes before the queue (${language})`, async () => {
    const queue = name("challenge");
    await fixture.putQueue(queue, { mode: "paused" });
    const page = await fixture.newPage({ locale });
    const script = "https://widget.example/api.js";
    const challenge = { provider: "turnstile", site_key: "0x4AAA", script_url: script };
    await page.route("**/place", async (route) => {
      const solved = (await route.request().headerValue("usher-challenge")) === "solved";
      if (solved) return route.continue();
      const body = '{"code":"forbidden"}';
      return route.fulfill({ status: 403, contentType: "application/problem+json", body });
    });
    await page.route(script, (route) => route.abort());
    const policy = "script-src 'self' https://widget.example";
    await openWithData(page, queue, { challenge }, policy);
    await heading(page, text("The check did not work", "확인하지 못했습니다"));
    await check(page, "challenge-failed");
    await page.unroute(script);
    const widget = `window.turnstile = { render(element, { callback, sitekey }) {
      const button = document.createElement("button");
      button.textContent = sitekey;
      button.addEventListener("click", () => callback("solved"));
      element.append(button);
    } };`;
    await page.route(script, (route) =>
      route.fulfill({ body: widget, contentType: "text/javascript" }));
    await page.getByRole("button", { name: retry }).click();
    await heading(page, text("Please confirm that you are human", "자동 입력 방지 확인"));
    await page.getByRole("button", { name: "0x4AAA" }).waitFor();
    await check(page, "challenge");
    await page.getByRole("button", { name: "0x4AAA" }).click();
    await heading(page, inQueue);
    await page.context().close();
  });
}

test("a hidden tab has no stream and continues when it is shown", async () => {
  await fixture.putQueue("state-hidden", { mode: "paused" });
  const first = await fixture.callApi("POST", "/queues/state-hidden/tokens", {
    user: crypto.randomUUID(),
  });
  const page = await openWaiting("state-hidden");
  const position = page.locator("#position");
  await eventually("the position is known", async () => (await position.textContent()) === "2");
  const requests = [];
  page.on("request", (request) => requests.push(new URL(request.url()).pathname));
  await setHidden(page, true);
  // The first stream may have started in between.
  requests.length = 0;
  await fixture.callApi("DELETE", "/queues/state-hidden/tokens/me", { token: first.token });
  const isStream = (path) => path.endsWith("/events");
  await eventually("the hidden tab asks for its ticket", () => requests.length > 0);
  // A browser slows the timers of a hidden tab down. Here they do not end at all.
  await page.evaluate(() => (window.setTimeout = () => 0));
  const before = requests.length;
  await eventually("it keeps asking", () => requests.length > before + 1);
  assert.deepEqual(requests.filter(isStream), []);
  await setHidden(page, false);
  await page.getByText("You are next", { exact: true }).waitFor();
  await eventually("the stream is back", () => requests.some(isStream));
  await page.context().close();
});
