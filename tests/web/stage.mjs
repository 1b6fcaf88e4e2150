// What every test stands on: `usher dev` on free ports with data in a temporary folder, and a browser.

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const BINARY = process.env.USHER_BINARY ?? "../../target/debug/usher";
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
// Long enough for a loaded machine; nothing here is decided by it.
export const PATIENCE = 30_000;

const SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export class Stage {
  static async open() {
    const stage = new Stage();
    stage.data = await mkdtemp(join(tmpdir(), "usher-web-"));
    stage.process = spawn(BINARY, ["dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", stage.data], { stdio: ["ignore", "pipe", "inherit"] });
    const text = await stage.#banner();
    stage.public = /book a seat +(http:\S+?)\/ /.exec(text)[1];
    stage.admin = /console +(http:\S+?)\/ /.exec(text)[1];
    stage.key = /admin key +(\S+)/.exec(text)[1];
    stage.browser = await chromium.launch({ executablePath: CHROMIUM, args: SWITCHES });
    return stage;
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

  async set(queue, change) {
    const url = `${this.admin}/admin/queues/${queue}`;
    const headers = { Authorization: `Bearer ${this.key}`, "Content-Type": "application/json" };
    const { settings } = await (await fetch(url, { headers })).json();
    const answer = await fetch(url, { method: "PUT", headers, body: JSON.stringify({ ...settings, ...change }) });
    if (!answer.ok) throw new Error(await answer.text());
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

// Every rule of axe-core that is not only advice (WCAG 2.2 A and AA).
export async function accessible(page) {
  // The strict policy of the page keeps scripts of others out, so the checker goes in by the debugger.
  await page.evaluate(await (await import("node:fs/promises")).readFile(AXE, "utf8"));
  const { violations } = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"] }));
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.target.join(" ")).join(", ")}`);
}
