// A line chart of the last few minutes. Each series has its own scale.

import { createElement } from "./dom.js";

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
