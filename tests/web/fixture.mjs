// The test environment: `usher dev` on free ports with temporary data, and a browser.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const BINARY = process.env.USHER_BINARY ?? "../../target/debug/usher";
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
// Screenshots are build output and not committed.
export const SCREENSHOTS = "../../target/screenshots";
// Long enough for a loaded machine. No test result depends on the exact value.
export const TIMEOUT_MS = 90_000;

const CHROMIUM_ARGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
// Desktop by default. Tests override it for a phone.
const PAGE_OPTIONS = { locale: "en-GB", viewport: { width: 1280, height: 900 } };

class Fixture {
  async start() {
    this.dataDir = await mkdtemp(join(tmpdir(), "usher-web-"));
    const args = ["dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    // On a loaded machine an audit can take longer than the default request timeout.
    args.push("--data-dir", this.dataDir, "--request-timeout-ms", "60000");
    this.process = spawn(BINARY, args, { stdio: ["ignore", "pipe", "inherit"] });
    const banner = await this.#readBanner();
    this.publicUrl = /API +(http:\S+?)\/v1/.exec(banner)[1];
    this.adminUrl = /console +(http:\S+?)\/\s/i.exec(banner)[1];
    this.adminKey = /admin key +(\S+)/i.exec(banner)[1];
    const options = { executablePath: CHROMIUM, args: CHROMIUM_ARGS, timeout: TIMEOUT_MS };
    this.browser = await chromium.launch(options);
  }

  #readBanner() {
    return new Promise((resolve, reject) => {
      let text = "";
      this.process.stdout.on("data", (chunk) => {
        text += chunk;
        if (text.includes("Ctrl-C")) resolve(text);
      });
      this.process.on("exit", () => reject(new Error(`usher dev exited: ${text}`)));
    });
  }

  async stop() {
    await this.browser?.close();
    const exited = new Promise((resolve) => this.process.on("exit", resolve));
    this.process.kill("SIGINT");
    await exited;
    await rm(this.dataDir, { recursive: true, force: true });
  }

  // Opens a page in a new browser context, which shares no cookies and no storage with other pages.
  async newPage(options = {}) {
    const context = await this.browser.newContext({ ...PAGE_OPTIONS, ...options });
    context.setDefaultTimeout(TIMEOUT_MS);
    if (process.env.USHER_WEB_FILES) await serveAssetsFromDisk(context);
    const page = await context.newPage();
    page.on("pageerror", (error) => {
      throw error;
    });
    page.on("console", (message) => {
      const isFailure = /Content Security|Uncaught/.test(message.text());
      if (message.type() === "error" && isFailure) throw new Error(message.text());
    });
    return page;
  }

  async callAdmin(method, path, body) {
    const headers = {
      Authorization: `Bearer ${this.adminKey}`,
      "Content-Type": "application/json",
    };
    const request = { method, headers, body: body && JSON.stringify(body) };
    const response = await fetch(`${this.adminUrl}/admin${path}`, request);
    if (!response.ok) throw new Error(await response.text());
    return response.json();
  }

  async changeQueue(queue, change) {
    await this.callAdmin("PATCH", `/queues/${queue}`, change);
  }

  // Creates or replaces a queue.
  putQueue(queue, settings = {}) {
    return this.callAdmin("PUT", `/queues/${queue}`, settings);
  }

  // Creates or replaces a concert with a queue of the same name and one date.
  async putConcert(concert, { seats = 2, startsAt = inDays(30), ...definition } = {}) {
    const sections = [{ name: "Floor", from: 1, to: seats, price: 1000 }];
    const schedules = [{ id: `${concert}-1`, starts_at: startsAt, sections }];
    const body = { title: `Concert ${concert}`, queue_id: concert, schedules, ...definition };
    await this.callAdmin("PUT", `/concerts/${concert}`, body);
  }

  // Sets the demo queue so that every user is admitted immediately.
  async openQueue() {
    const limits = { max_active: 200, promote_per_interval: 50, interval_ms: 1_000 };
    await this.changeQueue("demo", { mode: "open", ...limits });
  }

  async callApi(method, path, { user, token, body, key } = {}) {
    const headers = { "Content-Type": "application/json" };
    if (user) headers["Usher-User"] = user;
    if (token) headers["Queue-Token"] = token;
    if (key) headers["Idempotency-Key"] = key;
    const request = { method, headers, body: body && JSON.stringify(body) };
    const response = await fetch(`${this.publicUrl}/v1${path}`, request);
    return response.status === 204 ? null : response.json();
  }

  // Another user buys seats of a concert that `putConcert` created.
  async buySeats(concert, seats) {
    const user = crypto.randomUUID();
    let ticket = await this.callApi("POST", `/queues/${concert}/tokens`, { user });
    const { token } = ticket;
    await eventually("the buyer is admitted", async () => {
      ticket = await this.callApi("GET", `/queues/${concert}/tokens/me`, { token });
      return ticket.status === "active";
    });
    const charge = { user, key: crypto.randomUUID(), body: { amount: 100_000 } };
    await this.callApi("POST", "/wallet/charges", charge);
    const hold = { token, body: { schedule_id: `${concert}-1`, seats } };
    const { id } = await this.callApi("POST", "/reservations", hold);
    const pay = { token, key: crypto.randomUUID(), body: { reservation_id: id } };
    const payment = await this.callApi("POST", "/payments", pay);
    assert.equal(payment.status, "confirmed", JSON.stringify(payment));
  }

  // Adds another user to the demo queue and returns the ticket.
  joinAsNewUser() {
    return this.callApi("POST", "/queues/demo/tokens", { user: crypto.randomUUID() });
  }
}

// Serves the scripts and styles of `web/` instead of those in the binary, so that a change to them
// needs no build.
function serveAssetsFromDisk(context) {
  const kinds = { css: "text/css", js: "text/javascript", svg: "image/svg+xml" };
  return context.route("**/assets/**", async (route) => {
    const { pathname } = new URL(route.request().url());
    const body = await readFile(`../../web/${pathname.replace("/assets/", "")}`, "utf8");
    await route.fulfill({ body, contentType: kinds[pathname.split(".").pop()] });
  });
}

export const fixture = new Fixture();

export const inDays = (days) => new Date(Date.now() + days * 86_400_000).toISOString();

// Makes a page believe that its tab is hidden or shown.
export function setHidden(page, hidden) {
  return page.evaluate((value) => {
    Object.defineProperty(document, "hidden", { configurable: true, value });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden);
}

// Answers requests with a problem until the returned function is called.
export async function refuse(page, url, status, code, headers = {}) {
  const body = JSON.stringify({ code, detail: "a detail in English", status });
  const contentType = "application/problem+json";
  await page.route(url, (route) => route.fulfill({ status, headers, body, contentType }));
  return () => page.unroute(url);
}

// Calls `check` until it returns a truthy value, and returns that value.
export async function eventually(description, check) {
  const deadline = Date.now() + TIMEOUT_MS;
  for (;;) {
    const result = await check();
    if (result) return result;
    assert.ok(Date.now() < deadline, description);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

// Takes screenshots of a page for phone and desktop in both colour schemes. Fails if the page
// scrolls sideways or has an accessibility violation.
export async function checkView(page, name) {
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme });
    for (const width of [360, 1280]) {
      await page.setViewportSize({ width, height: 900 });
      const path = `${SCREENSHOTS}/${name}-${width}-${scheme}.png`;
      await page.screenshot({ path, fullPage: true });
      const excess = await page.evaluate(() => {
        const { scrollWidth, clientWidth } = document.documentElement;
        return scrollWidth - clientWidth;
      });
      assert.ok(excess <= 0, `${name} is ${excess} px too wide at ${width} px`);
    }
    assert.deepEqual(await findViolations(page), [], `${name}, ${scheme}`);
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize(PAGE_OPTIONS.viewport);
}

// Runs axe-core with the rules of WCAG 2.2, levels A and AA.
async function findViolations(page) {
  // The content security policy blocks foreign scripts. The debugger interface bypasses it.
  await page.evaluate(await readFile(AXE, "utf8"));
  const tags = ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"];
  const run = (runOnly) => window.axe.run(document, { runOnly });
  const { violations } = await page.evaluate(run, tags);
  return violations.map(({ id, nodes }) => {
    const targets = nodes.map((node) => node.target.join(" "));
    return `${id}: ${targets.join(", ")}`;
  });
}
