// The console's card for the simulated users of `usher dev`. It stays hidden in other deployments.

import { $, createElement, describeDetail, setText } from "./dom.js";
import { formatNumber } from "./messages.js";

const PATH = "/dev/crowd";
const SLIDERS = ["people", "pace_percent"];
const FACTS = [
  ["in_line", "Waiting"],
  ["inside", "Active"],
  ["owners", "With seats"],
  ["visits", "Visits"],
  ["paid", "Paid"],
  ["cancelled", "Cancelled"],
  ["gave_up", "Left without seats"],
  ["failed", "Failed calls"],
];

export class SimulationCard {
  #callAdmin;
  #available = true;
  // Sliders in motion. A refresh must not move them.
  #moving = new Set();
  #pending = Promise.resolve();

  // `callAdmin(method, path, body)` calls the admin API.
  constructor(callAdmin) {
    this.#callAdmin = callAdmin;
    for (const name of SLIDERS) {
      const slider = $(`simulation-${name}`);
      slider.addEventListener("input", () => {
        this.#moving.add(name);
        this.#showValue(name, slider.value);
      });
      slider.addEventListener("change", () => this.#change({ [name]: Number(slider.value) }));
    }
    $("simulation-stop").addEventListener("click", () => this.#change({ people: 0 }));
  }

  async update() {
    if (!this.#available) return;
    try {
      this.#show(await this.#callAdmin("GET", PATH));
    } catch (problem) {
      if (problem.status !== 404) throw problem;
      this.#available = false;
    }
  }

  #show(state) {
    $("simulation").hidden = false;
    for (const name of SLIDERS) {
      if (this.#moving.has(name)) continue;
      $(`simulation-${name}`).value = state[name];
      this.#showValue(name, state[name]);
    }
    setText("simulation-status", describeStatus(state));
    const facts = FACTS.map(([name, title]) =>
      createElement(
        "div", {},
        createElement("dt", {}, title), createElement("dd", {}, formatNumber(state[name])),
      ));
    $("simulation-facts").replaceChildren(...facts);
  }

  #showValue(name, value) {
    const text = name === "people" ? formatNumber(value) : `${formatNumber(value)} %`;
    setText(`simulation-${name}-value`, text);
  }

  // A PUT replaces all settings. Changes run one at a time, each on the current settings.
  #change(change) {
    this.#pending = this.#pending.then(async () => {
      try {
        const { people, pace_percent, minutes } = await this.#callAdmin("GET", PATH);
        const settings = { people, pace_percent, minutes, ...change };
        const state = await this.#callAdmin("PUT", PATH, settings);
        for (const name of Object.keys(change)) this.#moving.delete(name);
        this.#show(state);
        setText("simulation-note", "");
      } catch (problem) {
        setText("simulation-note", describeDetail(problem));
      }
    });
  }
}

function describeStatus({ people, seconds_left: left }) {
  if (people === 0) return "Stopped. Set the number of users to start it for 15 minutes.";
  return `Stops in ${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}.`;
}
