// The admin console: queues with charts and controls, sales, writer lag, audit.

import { waitOrWake } from "./activity.js";
import { clientOptions, UsherClient, UsherError } from "./api.js";
import { LineChart } from "./chart.js";
import { $, createElement, describeDetail, setNotice, setText, showView } from "./dom.js";
import { formatNumber } from "./messages.js";
import { sumMetric } from "./metrics.js";
import { SimulationCard } from "./simulation.js";

const REFRESH_MS = 1000;
const RECENT_ACTIONS = 10;
// `max` limits the slider only. A setting beyond it stays until the slider is moved.
const SLIDERS = {
  promote_per_interval: { label: "Admitted per interval", max: 1000 },
  max_active: { label: "Maximum active users", max: 5000 },
};
const MODES = { open: "Open", paused: "Pause", closed: "Close" };

let adminKey = sessionStorage.getItem("usher-admin-key");
const queueCards = new Map();
let shownActions = null;

const admin = new UsherClient({ ...clientOptions, bearer: () => adminKey });
const callAdmin = (method, path, body) =>
  admin.request({ method, path: `/admin${path}`, body });

const simulation = new SimulationCard(callAdmin);

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  adminKey = $("key").value;
  run();
});
$("audit").addEventListener("click", () => runAudit());
if (adminKey) run();

async function run() {
  for (;;) {
    try {
      const { items } = await callAdmin("GET", "/queues");
      sessionStorage.setItem("usher-admin-key", adminKey);
      if ($("dashboard").hidden) showView("dashboard");
      setNotice("dashboard-note", null);
      for (const queue of items) queueCard(queue).update(queue);
      await simulation.update();
      await updateActions();
      const metrics = await fetch("/metrics", { cache: "no-store" });
      showService(await metrics.text());
    } catch (problem) {
      if (problem.status === 401) {
        sessionStorage.removeItem("usher-admin-key");
        setText("key-note", "The admin key is not correct.");
        return showView("sign-in");
      }
      const detail = problem instanceof UsherError ? describeDetail(problem) : problem.message;
      setNotice("dashboard-note", `No update: ${detail}`);
    }
    await waitOrWake(REFRESH_MS);
  }
}

function showService(metrics) {
  const sum = (name, labels) => sumMetric(metrics, name, labels);
  const facts = [
    ["Seats sold", sum("usher_seats_sold"), { total: sum("usher_seats_for_sale") }],
    ["Coupons issued", sum("usher_coupon_issued"), { total: sum("usher_coupon_quota") }],
    ["Payments confirmed", sum("usher_payments_total", { status: "confirmed" })],
    ["Holds", sum("usher_holds_total", { outcome: "held" })],
    ["Outbox backlog", sum("usher_outbox_backlog_entries")],
    ["Writer lag", sum("usher_outbox_lag_seconds"), { unit: " s" }],
    ["Oldest pending payment", sum("usher_payments_pending_oldest_seconds"), { unit: " s" }],
    ["Recovering partitions", sum("usher_partitions_recovering")],
    ["Halted partitions", sum("usher_outbox_halted_partitions")],
  ];
  $("service").replaceChildren(
    ...facts.map(([name, value, options]) => factElement(name, describeValue(value, options))),
  );
}

function describeValue(value, { unit = "", total = null } = {}) {
  if (value === null) return "–";
  const rounded = formatNumber(Math.round(value * 100) / 100);
  return rounded + unit + (total === null ? "" : ` of ${formatNumber(total)}`);
}

function factElement(name, value) {
  return createElement("div", {}, createElement("dt", {}, name), createElement("dd", {}, value));
}

function queueCard(queue) {
  if (!queueCards.has(queue.queue_id)) {
    const card = new QueueCard(queue);
    queueCards.set(queue.queue_id, card);
    $("queues").append(card.element);
  }
  return queueCards.get(queue.queue_id);
}

class QueueCard {
  #chart = new LineChart(["waiting", "active", "rate"]);
  #facts = createElement("dl", { class: "facts" });
  #note = createElement("p", { class: "bad", role: "alert" });
  #modeButtons = new Map();
  #sliders = new Map();
  // Sliders in motion. A refresh must not move them.
  #moving = new Set();
  #pending = Promise.resolve();
  #id;
  #previous = null;

  constructor(queue) {
    this.#id = queue.queue_id;
    const buttons = Object.entries(MODES).map(([mode, label]) => this.#modeButton(mode, label));
    const sliders = Object.entries(SLIDERS).map(([name, slider]) => this.#slider(name, slider));
    this.element = createElement(
      "section",
      { class: "card", "aria-label": `Queue ${queue.queue_id}` },
      createElement("h2", {}, queue.queue_id),
      this.#chart.element,
      this.#chart.legend,
      this.#facts,
      createElement("div", { class: "row" }, ...buttons),
      ...sliders,
      this.#note,
    );
  }

  #modeButton(mode, label) {
    const onclick = () => this.#change({ mode });
    const button = createElement("button", { class: "secondary", onclick }, label);
    this.#modeButtons.set(mode, button);
    return button;
  }

  #slider(name, { label, max }) {
    const value = createElement("span", {});
    const range = createElement("input", {
      type: "range",
      min: 1,
      max,
      oninput: () => {
        this.#moving.add(name);
        value.textContent = formatNumber(range.value);
      },
      onchange: () => this.#change({ [name]: Number(range.value) }),
    });
    this.#sliders.set(name, { range, value });
    return createElement("label", {}, `${label}: `, value, range);
  }

  update(queue) {
    const rate = this.#admissionRate(queue.admitted_total);
    this.#chart.add({ waiting: queue.waiting, active: queue.active, rate });
    const facts = [
      ["Mode", queue.mode],
      ["Waiting", formatNumber(queue.waiting)],
      ["Active", `${formatNumber(queue.active)} of ${formatNumber(queue.max_active)}`],
      ["Admitted", formatNumber(queue.admitted_total)],
      ["Admitted per second", formatNumber(Math.round(rate))],
      ["Sold out", queue.sold_out ? "yes" : "no"],
    ];
    this.#facts.replaceChildren(...facts.map(([name, value]) => factElement(name, value)));
    for (const [mode, button] of this.#modeButtons) {
      button.setAttribute("aria-pressed", String(queue.definition.mode === mode));
    }
    for (const [name, { range, value }] of this.#sliders) {
      if (this.#moving.has(name)) continue;
      range.value = queue.definition[name];
      value.textContent = formatNumber(queue.definition[name]);
    }
  }

  // Users per second since the previous update.
  #admissionRate(total) {
    const at = performance.now();
    const previous = this.#previous;
    this.#previous = { total, at };
    return previous ? ((total - previous.total) * 1000) / (at - previous.at) : 0;
  }

  // Changes run one at a time, so the last one wins.
  #change(change) {
    this.#pending = this.#pending.then(async () => {
      try {
        const queue = await callAdmin("PATCH", `/queues/${this.#id}`, change);
        for (const name of Object.keys(change)) this.#moving.delete(name);
        this.#note.textContent = "";
        this.update(queue);
      } catch (problem) {
        this.#note.textContent = describeDetail(problem);
      }
    });
  }
}

function tableRow(cells) {
  return createElement("tr", {}, ...cells.map((cell) => createElement("td", {}, String(cell))));
}

// The table is rebuilt only after a change, which keeps the reader's selection.
async function updateActions() {
  const { items } = await callAdmin("GET", `/actions?limit=${RECENT_ACTIONS}`);
  const serialized = JSON.stringify(items);
  if (serialized === shownActions) return;
  shownActions = serialized;
  const rows = items.map(({ at, status, method, route, object, actor, peer }) => {
    const time = new Date(at).toLocaleTimeString();
    return tableRow([time, status ?? "?", `${method} ${route}`, object ?? "", actor, peer]);
  });
  $("actions").tBodies[0].replaceChildren(...rows);
}

async function runAudit() {
  $("audit").disabled = true;
  try {
    const { checks } = await callAdmin("POST", "/audit");
    const rows = checks.map(({ name, ok, redis, mysql, detail }) => {
      const row = tableRow([name, ok ? "ok" : "failed", redis ?? "", mysql ?? "", detail ?? ""]);
      row.cells[1].className = ok ? "good" : "bad";
      return row;
    });
    $("checks").hidden = false;
    $("checks").tBodies[0].replaceChildren(...rows);
  } catch (problem) {
    if (!(problem instanceof UsherError)) throw problem;
    setNotice("dashboard-note", describeDetail(problem));
  }
  $("audit").disabled = false;
}
