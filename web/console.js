// The admin console: totals, queues, lists, the log of changes and the audit.

import { waitOrWake } from "./activity.js";
import { clientOptions, UsherClient, UsherError } from "./api.js";
import { factElement, QueueCard } from "./chart.js";
import { $, createElement, describeDetail, setNotice, setText, showView } from "./dom.js";
import { formatDateTime, formatNumber } from "./messages.js";
import { sumMetric } from "./metrics.js";
import { SimulationCard } from "./simulation.js";

const REFRESH_MS = 1000;
const RECENT_ACTIONS = 10;
const PAGE_SIZE = 20;

const segment = (text) => encodeURIComponent(text);

// `columns` are titles and the functions that read a row. `find` is the label of the search field.
// `path` and `query` get its text. A list with `required` needs a search. `detail` is the path of
// the details of a row; without it, the details are the row.
const LISTS = {
  queues: {
    path: () => "/queues",
    detail: (row) => `/queues/${segment(row.id)}`,
    columns: {
      Queue: (row) => row.id,
      Mode: (row) => row.mode,
      Waiting: (row) => row.waiting,
      Active: (row) => row.active,
      Admitted: (row) => row.admitted_total,
    },
  },
  concerts: {
    path: () => "/concerts",
    detail: (row) => `/concerts/${segment(row.id)}`,
    columns: {
      Concert: (row) => row.id,
      Title: (row) => row.definition.title,
      Dates: (row) => row.definition.schedules.length,
      "Seats sold": (row) => row.sold_seats,
      Seats: (row) => row.total_seats,
      Archived: (row) => row.archived,
    },
  },
  reservations: {
    find: "Concert",
    required: true,
    path: (text) => `/concerts/${segment(text)}/reservations`,
    columns: {
      Reservation: (row) => row.id,
      User: (row) => row.user_id,
      Date: (row) => row.schedule_id,
      Status: (row) => row.status,
      Seats: (row) => row.seats.length,
      Amount: (row) => row.amount,
    },
  },
  payments: {
    find: "Payment",
    required: true,
    single: true,
    path: (text) => `/payments/${segment(text)}`,
    columns: {
      Payment: (row) => row.id,
      User: (row) => row.user_id,
      Status: (row) => row.status,
      Amount: (row) => row.amount,
    },
  },
  refunds: {
    path: () => "/refunds-due",
    columns: {
      Payment: (row) => row.payment_id,
      User: (row) => row.user_id,
      Amount: (row) => row.refund_due_amount,
      "Due since": (row) => row.due_since,
    },
  },
  coupons: {
    path: () => "/coupons",
    detail: (row) => `/coupons/${segment(row.id)}`,
    columns: {
      Coupon: (row) => row.id,
      Status: (row) => row.status,
      Issued: (row) => row.issued_quantity,
    },
  },
  rewards: {
    path: () => "/rewards",
    detail: (row) => `/rewards/${segment(row.id)}`,
    columns: { Reward: (row) => row.id, Claimed: (row) => row.claimed_quantity },
  },
  users: {
    find: "User",
    path: () => "/users",
    query: (text) => ({ q: text || undefined }),
    detail: (row) => `/users/${segment(row.user_id)}`,
    columns: { User: (row) => row.user_id },
  },
  jobs: {
    path: () => "/jobs",
    detail: (row) => `/jobs/${segment(row.id)}`,
    columns: {
      Job: (row) => row.id,
      Kind: (row) => row.kind,
      Status: (row) => row.status,
      Done: (row) => row.done,
      Total: (row) => row.total,
    },
  },
  "dead-letters": {
    path: () => "/dead-letters",
    columns: {
      "Dead letter": (row) => row.id,
      Partition: (row) => row.partition,
      Cause: (row) => row.cause,
      Time: (row) => row.buried_at,
    },
  },
};

class ListsCard {
  #callAdmin;
  #selected = LISTS.queues;
  #text = "";
  // Counts loads. The response to an older one is dropped.
  #load = 0;
  #next = null;

  constructor(callAdmin) {
    this.#callAdmin = callAdmin;
    $("list-select").addEventListener("change", (event) => {
      this.#selected = LISTS[event.target.value];
      $("list-search").value = "";
      this.show();
    });
    $("list-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.show();
    });
    $("list-next").addEventListener("click", () => this.#showPage(this.#next));
  }

  // Loads the first page of the selected list.
  show() {
    const { find } = this.#selected;
    $("list-find").hidden = !find;
    if (find) setText("list-find-label", find);
    this.#text = $("list-search").value.trim();
    return this.#showPage();
  }

  async #showPage(before) {
    const list = this.#selected;
    const load = (this.#load += 1);
    $("list-detail").hidden = true;
    if (list.required && !this.#text) {
      this.#showRows([], null);
      return setNotice("list-note", `Enter the id of a ${list.find.toLowerCase()}.`);
    }
    const query = list.single ? {} : { limit: PAGE_SIZE, before, ...list.query?.(this.#text) };
    await this.#attempt(load, async () => {
      const response = await this.#callAdmin("GET", list.path(this.#text), undefined, query);
      if (load !== this.#load) return;
      const { items, next } = list.single ? { items: [response] } : response;
      this.#showRows(items, next ?? null);
      setNotice("list-note", items.length ? null : "Nothing found.");
    });
  }

  #showRows(items, next) {
    const columns = Object.entries(this.#selected.columns);
    const head = columns.map(([title]) => createElement("th", { scope: "col" }, title));
    $("list-table").tHead.rows[0].replaceChildren(...head);
    $("list-table").hidden = items.length === 0;
    $("list-table").tBodies[0].replaceChildren(...items.map((item) => this.#row(item, columns)));
    this.#next = next;
    $("list-next").hidden = next === null;
  }

  #row(item, columns) {
    const cells = columns.map(([, read], index) => {
      const text = describeCell(read(item));
      const onclick = () => this.#showDetail(item, text);
      const content = index ? text : createElement("button", { class: "link", onclick }, text);
      return createElement("td", {}, content);
    });
    return createElement("tr", {}, ...cells);
  }

  async #showDetail(item, title) {
    const { detail } = this.#selected;
    const load = (this.#load += 1);
    await this.#attempt(load, async () => {
      const value = detail ? await this.#callAdmin("GET", detail(item)) : item;
      if (load !== this.#load) return;
      setNotice("list-note", null);
      setText("list-detail-title", title);
      $("list-detail-text").textContent = JSON.stringify(value, null, 2);
      $("list-detail").hidden = false;
      $("list-detail").focus();
    });
  }

  async #attempt(load, run) {
    try {
      await run();
    } catch (problem) {
      if (!(problem instanceof UsherError)) throw problem;
      if (load === this.#load) {
        this.#showRows([], null);
        setNotice("list-note", describeDetail(problem));
      }
    }
  }
}

function describeCell(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return formatNumber(value);
  if (/^\d{4}-\d\d-\d\dT/.test(value)) return formatDateTime(value);
  return String(value);
}

let adminKey = sessionStorage.getItem("usher-admin-key");
const queueCards = new Map();
let shownActions = null;

const admin = new UsherClient({ ...clientOptions, bearer: () => adminKey });
const callAdmin = (method, path, body, query) =>
  admin.request({ method, path: `/admin${path}`, body, query });

const lists = new ListsCard(callAdmin);
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
      if ($("dashboard").hidden) {
        showView("dashboard");
        lists.show();
      }
      setNotice("dashboard-note", null);
      for (const queue of items) queueCard(queue).update(queue);
      await simulation.update();
      await updateActions();
      showTotals(await callAdmin("GET", "/stats"));
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

// The service reads these from the stores, so every instance returns the same totals.
function showTotals(stats) {
  const facts = [
    ["Waiting", stats.waiting],
    ["Active", stats.active],
    ["Holds", stats.holds],
    ["Seats sold", stats.seats_sold],
    ["Payments confirmed", stats.payments_confirmed],
    ["Payments pending", stats.payments_pending],
    ["Coupons issued", stats.coupons_issued],
    ["Rewards claimed", stats.rewards_claimed],
    ["Outbox backlog", stats.outbox_backlog],
  ];
  $("totals").replaceChildren(
    ...facts.map(([name, value]) => factElement(name, describeValue(value))),
  );
}

function showService(metrics) {
  const sum = (name, labels) => sumMetric(metrics, name, labels);
  const facts = [
    ["Writer lag", sum("usher_outbox_lag_seconds"), { unit: " s" }],
    ["Oldest pending payment", sum("usher_payments_pending_oldest_seconds"), { unit: " s" }],
    ["Recovering partitions", sum("usher_partitions_recovering")],
    ["Halted partitions", sum("usher_outbox_halted_partitions")],
  ];
  $("service").replaceChildren(
    ...facts.map(([name, value, options]) => factElement(name, describeValue(value, options))),
  );
}

function describeValue(value, { unit = "" } = {}) {
  return value === null ? "–" : formatNumber(Math.round(value * 100) / 100) + unit;
}

function queueCard(queue) {
  if (!queueCards.has(queue.queue_id)) {
    const card = new QueueCard(callAdmin, queue);
    queueCards.set(queue.queue_id, card);
    $("queues").append(card.element);
  }
  return queueCards.get(queue.queue_id);
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
  const rows = items.map(({ at, status, method, route, object, before, after, actor, peer }) => {
    const time = new Date(at).toLocaleTimeString();
    const change = describeChange(before, after);
    const request = `${method} ${route}`;
    return tableRow([time, status ?? "?", request, object ?? "", change, actor, peer]);
  });
  $("actions").tBodies[0].replaceChildren(...rows);
}

// The fields that differ. A created or deleted object has only one side.
function describeChange(before, after) {
  if (!before || !after) return "";
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  const text = (value) => (value === undefined ? "–" : JSON.stringify(value));
  return names
    .filter((name) => text(before[name]) !== text(after[name]))
    .map((name) => `${name}: ${text(before[name])} → ${text(after[name])}`)
    .join(", ");
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
