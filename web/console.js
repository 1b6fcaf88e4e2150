// The operator's console: queues with their curves and controls, what is sold, the writer's lag, the audit.

import { call, pause, Problem } from "./api.js";
import { CrowdCard } from "./crowd.js";
import { Curve } from "./curve.js";
import { $, make, say, show } from "./dom.js";
import { sum } from "./metrics.js";
import { number } from "./words.js";

const LOOK_MS = 1000;
// The sliders' ends; a queue whose settings lie beyond keeps them until its slider is moved.
const MOST = { promote_per_interval: 1000, max_active: 5000 };
const NAMES = { promote_per_interval: "Let in per interval", max_active: "Active at most" };

let key = sessionStorage.getItem("usher-admin-key");
const cards = new Map();

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value;
  run();
});
$("audit").addEventListener("click", () => audit());

const admin = (method, path, body) => call(method, `/admin${path}`, { headers: { Authorization: `Bearer ${key}` }, body });

const crowd = new CrowdCard(admin);

async function run() {
  for (;;) {
    try {
      const { items } = await admin("GET", "/queues");
      sessionStorage.setItem("usher-admin-key", key);
      if ($("desk").hidden) show("desk");
      notice(null);
      for (const queue of items) card(queue).update(queue);
      await crowd.update();
      await actions();
      service(await (await fetch("/metrics", { cache: "no-store" })).text());
    } catch (problem) {
      if (problem.status === 401) {
        sessionStorage.removeItem("usher-admin-key");
        say("key-note", "The key is not the right one.");
        return show("door");
      }
      notice(`No answer: ${problem.message}`);
    }
    await pause(LOOK_MS);
  }
}

function notice(text) {
  $("desk-note").hidden = !text;
  say("desk-note", text ?? "");
}

function service(metrics) {
  const facts = [
    ["Seats sold", sum(metrics, "usher_seats_sold"), "", sum(metrics, "usher_seats_for_sale")],
    ["Coupons issued", sum(metrics, "usher_coupon_issued"), "", sum(metrics, "usher_coupon_quota")],
    ["Paid", sum(metrics, "usher_payments_total", { status: "confirmed" })],
    ["Holds", sum(metrics, "usher_holds_total", { outcome: "held" })],
    ["Not yet in MySQL", sum(metrics, "usher_outbox_backlog_entries")],
    ["Writer's lag", sum(metrics, "usher_outbox_lag_seconds"), " s"],
    ["Oldest open payment", sum(metrics, "usher_payments_pending_oldest_seconds"), " s"],
    ["Partitions closed", sum(metrics, "usher_partitions_recovering")],
    ["Partitions halted", sum(metrics, "usher_outbox_halted_partitions")],
  ];
  $("service").replaceChildren(
    ...facts.map(([name, value, unit = "", of = null]) => {
      const text = value === null ? "–" : number(Math.round(value * 100) / 100) + unit + (of === null ? "" : ` of ${number(of)}`);
      return make("div", {}, make("dt", {}, name), make("dd", {}, text));
    }),
  );
}

function card(queue) {
  if (!cards.has(queue.queue_id)) {
    const made = new QueueCard(queue);
    cards.set(queue.queue_id, made);
    $("queues").append(made.element);
  }
  return cards.get(queue.queue_id);
}

class QueueCard {
  #curve = new Curve(["waiting", "active", "rate"]);
  #facts = make("dl", { class: "facts" });
  #note = make("p", { class: "bad", role: "alert" });
  #modes = new Map();
  #sliders = new Map();
  // Sliders that are being moved: what the service says must not pull them back.
  #moving = new Set();
  #turn = Promise.resolve();
  #id;
  #before = null;

  constructor(queue) {
    this.#id = queue.queue_id;
    const modes = ["open", "paused", "closed"].map((mode) => {
      const button = make("button", { class: "plain", onclick: () => this.#put({ mode }) }, { open: "Open", paused: "Pause", closed: "Close" }[mode]);
      this.#modes.set(mode, button);
      return button;
    });
    const sliders = Object.keys(NAMES).map((name) => {
      const value = make("span", {});
      const range = make("input", { type: "range", min: 1, max: MOST[name], oninput: () => this.#move(name), onchange: () => this.#put({ [name]: Number(range.value) }) });
      this.#sliders.set(name, { range, value });
      return make("label", {}, `${NAMES[name]}: `, value, range);
    });
    this.element = make("section", { class: "card", "aria-label": `Queue ${queue.queue_id}` }, make("h2", {}, queue.queue_id), this.#curve.element, this.#curve.legend, this.#facts, make("div", { class: "row" }, ...modes), ...sliders, this.#note);
  }

  update(queue) {
    const now = performance.now();
    const rate = this.#before ? ((queue.admitted_total - this.#before.total) * 1000) / (now - this.#before.at) : 0;
    this.#before = { total: queue.admitted_total, at: now };
    this.#curve.add({ waiting: queue.waiting, active: queue.active, rate });
    const facts = [["Mode", queue.mode], ["Waiting", number(queue.waiting)], ["Active", `${number(queue.active)} of ${number(queue.max_active)}`], ["Let in", number(queue.admitted_total)], ["Let in a second", number(Math.round(rate))], ["Sold out", queue.sold_out ? "yes" : "no"]];
    this.#facts.replaceChildren(...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
    for (const [mode, button] of this.#modes) button.setAttribute("aria-pressed", String(queue.settings.mode === mode));
    for (const [name, { range, value }] of this.#sliders) {
      if (this.#moving.has(name)) continue;
      range.value = queue.settings[name];
      value.textContent = number(queue.settings[name]);
    }
  }

  #move(name) {
    this.#moving.add(name);
    const { range, value } = this.#sliders.get(name);
    value.textContent = number(range.value);
  }

  // One change after the other, each on top of what the service has by then: a PUT replaces all settings.
  #put(change) {
    this.#turn = this.#turn.then(async () => {
      try {
        const { settings } = await admin("GET", `/queues/${this.#id}`);
        const queue = await admin("PUT", `/queues/${this.#id}`, { ...settings, ...change });
        for (const name of Object.keys(change)) this.#moving.delete(name);
        this.#note.textContent = "";
        this.update(queue);
      } catch (problem) {
        this.#note.textContent = problem.message;
      }
    });
  }
}

// What operators did last; written anew only when there is something new.
let newest = null;

async function actions() {
  const { items } = await admin("GET", "/actions?limit=10");
  const now = JSON.stringify(items);
  if (now === newest) return;
  newest = now;
  const rows = items.map((it) => make("tr", {}, ...[new Date(it.at).toLocaleTimeString(), it.status ?? "?", `${it.method} ${it.route}`, it.object ?? "", it.peer].map((cell) => make("td", {}, String(cell)))));
  $("actions").tBodies[0].replaceChildren(...rows);
}

async function audit() {
  $("audit").disabled = true;
  try {
    const { checks } = await admin("POST", "/audit");
    const rows = checks.map((check) =>
      make("tr", {}, make("td", {}, check.name), make("td", { class: check.ok ? "good" : "bad" }, check.ok ? "holds" : "broken"), ...["redis", "mysql", "detail"].map((field) => make("td", {}, String(check[field] ?? "")))),
    );
    $("checks").hidden = false;
    $("checks").tBodies[0].replaceChildren(...rows);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    notice(problem.status === 404 ? "This version has no audit." : problem.message);
  }
  $("audit").disabled = false;
}

if (key) run();
