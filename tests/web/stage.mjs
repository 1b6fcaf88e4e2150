// What every test stands on: `usher dev` on free ports with data in a temporary folder, and a browser.

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
// Screenshots are build output: looked at, not committed.
export const SHOTS = "../../target/screenshots";
// Long enough for a loaded machine; nothing here is decided by it.
export const PATIENCE = 90_000;

const SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

class Stage {
  async open() {
    this.data = await mkdtemp(join(tmpdir(), "usher-web-"));
    // An audit on a loaded machine may take longer than the ten seconds that a request has else.
    const settings = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", this.data, "--request-timeout-ms", "60000"];
    this.process = spawn(BINARY, ["dev", ...settings], { stdio: ["ignore", "pipe", "inherit"] });
    const text = await this.#banner();
    this.public = /book a seat +(http:\S+?)\/ /.exec(text)[1];
    this.admin = /console +(http:\S+?)\/ /.exec(text)[1];
    this.key = /admin key +(\S+)/.exec(text)[1];
    this.browser = await chromium.launch({ executablePath: CHROMIUM, args: SWITCHES, timeout: PATIENCE });
  }

  #banner() {
    return new Promise((done, fail) => {
      let text = "";
      this.process.stdout.on("data", (chunk) => {
        text += chunk;
        if (text.includes("Ctrl-C")) done(text);
      });
      this.process.on("exit", () => fail(new Error(`usher dev ended: ${text}`)));
    });
  }

  async close() {
    await this.browser?.close();
    const gone = new Promise((done) => this.process.on("exit", done));
    this.process.kill("SIGINT");
    await gone;
    await rm(this.data, { recursive: true, force: true });
  }

  // A browser of its own: cookies and storage are nobody else's.
  async visitor(options = {}) {
    const context = await this.browser.newContext({ locale: "en-GB", viewport: { width: 1280, height: 900 }, ...options });
    context.setDefaultTimeout(PATIENCE);
    const page = await context.newPage();
    page.on("pageerror", (error) => { throw error; });
    page.on("console", (message) => { if (message.type() === "error" && /Content Security|Uncaught/.test(message.text())) throw new Error(message.text()); });
    return page;
  }

  async operate(method, path, body) {
    const headers = { Authorization: `Bearer ${this.key}`, "Content-Type": "application/json" };
    const answer = await fetch(`${this.admin}/admin${path}`, { method, headers, body: body && JSON.stringify(body) });
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
  }

  async set(queue, change) {
    const { settings } = await this.operate("GET", `/queues/${queue}`);
    await this.operate("PUT", `/queues/${queue}`, { ...settings, ...change });
  }

  // Everybody who comes is let in at once.
  async open_doors() {
    await this.set("demo", { mode: "open", max_active: 200, promote_per_interval: 50, interval_ms: 1_000 });
  }

  async api(method, path, { user, token, body, key } = {}) {
    const headers = { "Content-Type": "application/json" };
    if (user) headers["Usher-User"] = user;
    if (token) headers["Queue-Token"] = token;
    if (key) headers["Idempotency-Key"] = key;
    const answer = await fetch(`${this.public}/v1${path}`, { method, headers, body: body && JSON.stringify(body) });
    return answer.status === 204 ? null : answer.json();
  }
}

export const stage = new Stage();

// Waits until `look` gives something that counts as true, and gives that.
export async function eventually(what, look) {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    assert.ok(Date.now() < deadline, what);
    await new Promise((done) => setTimeout(done, 100));
  }
}

// A page as it is now: pictures of it on a phone and on a desk, light and dark; nothing sticks out, and nobody is kept out.
export async function shoot(page, name) {
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme });
    for (const width of [360, 1280]) {
      await page.setViewportSize({ width, height: 900 });
      await page.screenshot({ path: `${SHOTS}/${name}-${width}-${scheme}.png`, fullPage: true });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(wide <= 0, `${name} is ${wide} px too wide at ${width}`);
    }
    assert.deepEqual(await accessible(page), [], `${name}, ${scheme}`);
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1280, height: 900 });
}

// Every rule of axe-core that is not only advice (WCAG 2.2 A and AA).
async function accessible(page) {
  // The strict policy of the page keeps scripts of others out, so the checker goes in by the debugger.
  await page.evaluate(await readFile(AXE, "utf8"));
  const { violations } = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"] }));
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.target.join(" ")).join(", ")}`);
}
