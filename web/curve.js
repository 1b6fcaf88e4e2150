// The last minutes of a few numbers, each on a scale of its own.

import { make } from "./dom.js";

const SAMPLES = 180;
// Until there are so many the curve grows from the left.
const FIRST = 30;

export class Curve {
  #series;
  element;
  legend;

  constructor(names) {
    this.#series = new Map(names.map((name) => [name, { values: [], line: make("polyline", { class: name }) }]));
    this.element = make("svg", { class: "curve", viewBox: `0 0 ${SAMPLES} 100`, preserveAspectRatio: "none", "aria-hidden": "true" }, ...[...this.#series.values()].map((one) => one.line));
    this.legend = make("p", { class: "row" }, ...names.map((name) => make("span", { class: "key" }, make("span", { class: `swatch ${name}` }), name)));
  }

  add(sample) {
    for (const [name, { values, line }] of this.#series) {
      values.push(sample[name]);
      if (values.length > SAMPLES) values.shift();
      const top = Math.max(1, ...values);
      const step = SAMPLES / (Math.max(FIRST, values.length) - 1);
      line.setAttribute("points", values.map((value, n) => `${(n * step).toFixed(1)},${(98 - (value / top) * 96).toFixed(1)}`).join(" "));
    }
  }
}
