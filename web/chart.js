// A line chart of the last few minutes, where each series has its own scale, and the card of a
// queue with such a chart.

import { createElement, describeDetail } from "./dom.js";
import { formatNumber } from "./messages.js";

// `max` limits the slider only. A setting beyond it stays until the slider is moved.
const SLIDERS = {
  promote_per_interval: { label: "Admitted per interval", max: 1000 },
  max_active: { label: "Maximum active users", max: 5000 },
};
const MODES = { open: "Open", paused: "Pause", closed: "Close" };

const MAX_SAMPLES = 180;
// The chart grows from the left until it has this number of samples.
const MIN_SAMPLES = 30;

export class LineChart {
  #series;
  element;
  legend;

  constructor(names) {
    const series = (name) => ({ values: [], line: createElement("polyline", { class: name }) });
    this.#series = new Map(names.map((name) => [name, series(name)]));
    const attributes = {
      class: "chart",
      viewBox: `0 0 ${MAX_SAMPLES} 100`,
      preserveAspectRatio: "none",
      "aria-hidden": "true",
    };
    const lines = [...this.#series.values()].map(({ line }) => line);
    this.element = createElement("svg", attributes, ...lines);
    this.legend = createElement("p", { class: "row" }, ...names.map(legendItem));
  }

  add(sample) {
    for (const [name, { values, line }] of this.#series) {
      values.push(sample[name]);
      if (values.length > MAX_SAMPLES) values.shift();
      const max = Math.max(1, ...values);
      const step = MAX_SAMPLES / (Math.max(MIN_SAMPLES, values.length) - 1);
      const point = (value, index) =>
        `${(index * step).toFixed(1)},${(98 - (value / max) * 96).toFixed(1)}`;
      line.setAttribute("points", values.map(point).join(" "));
    }
  }
}

function legendItem(name) {
  const swatch = createElement("span", { class: `swatch ${name}` });
  return createElement("span", { class: "legend" }, swatch, name);
}

export function factElement(name, value) {
  return createElement("div", {}, createElement("dt", {}, name), createElement("dd", {}, value));
}

// The state of one queue over time, with its controls.
export class QueueCard {
  #chart = new LineChart(["waiting", "active", "rate"]);
  #facts = createElement("dl", { class: "facts" });
  #note = createElement("p", { class: "bad", role: "alert" });
  #modeButtons = new Map();
  #sliders = new Map();
  // Sliders in motion. A refresh must not move them.
  #moving = new Set();
  #pending = Promise.resolve();
  #callAdmin;
  #id;
  #previous = null;

  constructor(callAdmin, queue) {
    this.#callAdmin = callAdmin;
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
        const queue = await this.#callAdmin("PATCH", `/queues/${this.#id}`, change);
        for (const name of Object.keys(change)) this.#moving.delete(name);
        this.#note.textContent = "";
        this.update(queue);
      } catch (problem) {
        this.#note.textContent = describeDetail(problem);
      }
    });
  }
}
