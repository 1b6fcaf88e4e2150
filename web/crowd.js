// The demo crowd of `usher dev`: how many, how fast, what it does. Where there is none its card stays hidden.

import { $, make, say } from "./dom.js";
import { number } from "./words.js";

const PATH = "/dev/crowd";
const FACTS = [["in_line", "In line"], ["inside", "Inside"], ["owners", "Own seats"], ["visits", "Visits"], ["paid", "Paid"], ["cancelled", "Cancelled"], ["gave_up", "Left without"], ["failed", "Failed calls"]];

export class CrowdCard {
  #admin;
  #known = true;
  #moving = new Set();
  #turn = Promise.resolve();

  // `admin(method, path, body)` calls the admin API.
  constructor(admin) {
    this.#admin = admin;
    for (const name of ["people", "pace_percent"]) {
      const range = $(`crowd-${name}`);
      range.addEventListener("input", () => {
        this.#moving.add(name);
        this.#tell(name, range.value);
      });
      range.addEventListener("change", () => this.#put({ [name]: Number(range.value) }));
    }
    $("crowd-home").addEventListener("click", () => this.#put({ people: 0 }));
  }

  async update() {
    if (!this.#known) return;
    try {
      this.#show(await this.#admin("GET", PATH));
    } catch (problem) {
      if (problem.status === 404) this.#known = false;
      else throw problem;
    }
  }

  #show(crowd) {
    $("crowd").hidden = false;
    for (const name of ["people", "pace_percent"]) {
      if (this.#moving.has(name)) continue;
      $(`crowd-${name}`).value = crowd[name];
      this.#tell(name, crowd[name]);
    }
    const left = crowd.seconds_left;
    say("crowd-left", crowd.people ? `Goes home by itself in ${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}.` : "Nobody is here. Move the first slider, and they come for a quarter of an hour.");
    $("crowd-facts").replaceChildren(...FACTS.map(([name, title]) => make("div", {}, make("dt", {}, title), make("dd", {}, number(crowd[name])))));
  }

  #tell(name, value) {
    say(`crowd-${name}-value`, name === "people" ? number(value) : `${number(value)} %`);
  }

  // One change after the other, each on top of what is wished for by then.
  #put(change) {
    this.#turn = this.#turn.then(async () => {
      try {
        const { people, pace_percent, minutes } = await this.#admin("GET", PATH);
        const crowd = await this.#admin("PUT", PATH, { people, pace_percent, minutes, ...change });
        for (const name of Object.keys(change)) this.#moving.delete(name);
        this.#show(crowd);
        say("crowd-note", "");
      } catch (problem) {
        say("crowd-note", problem.message);
      }
    });
  }
}
