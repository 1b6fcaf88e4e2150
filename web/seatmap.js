// The seats of a date, in front of the stage, as SVG: a group of checkboxes that the arrow keys walk.

import { make } from "./dom.js";
import { money, word } from "./words.js";

const SIZE = 34;
const GAP = 6;
const PER_ROW = 10;
// Above the first row the stage, above each section its name.
const STAGE = 34;
const NAME = 24;

export class SeatMap {
  #parent;
  #most;
  #changed;
  #groups = new Map();
  #seats = [];
  chosen = new Set();

  constructor(parent, most, changed) {
    this.#parent = parent;
    this.#most = most;
    this.#changed = changed;
  }

  // Draws the seats; a second call with the same seats only changes what has changed.
  draw(seats) {
    if (seats.length !== this.#seats.length) this.#lay(seats);
    this.#seats = seats;
    for (const seat of seats) {
      if (seat.status !== "available") this.chosen.delete(seat.number);
      this.#paint(seat);
    }
    this.#changed(this.chosen);
  }

  price() {
    return this.#seats.filter((seat) => this.chosen.has(seat.number)).reduce((sum, seat) => sum + seat.price, 0);
  }

  forget() {
    this.chosen.clear();
  }

  #lay(seats) {
    this.#groups.clear();
    const width = PER_ROW * (SIZE + GAP) + GAP;
    const svg = make("svg", { class: "seats", role: "group", "aria-label": word("book.seats") });
    const middle = width / 2;
    svg.append(
      make("rect", { class: "stage", x: width / 6, y: 0, width: (width * 2) / 3, height: STAGE - 10, rx: 6, "aria-hidden": "true" }),
      make("text", { class: "name onstage", x: middle, y: STAGE - 17, "aria-hidden": "true" }, word("book.stage")),
    );
    let y = STAGE - SIZE - GAP;
    let column = PER_ROW;
    let section = null;
    seats.forEach((seat, n) => {
      if (seat.section !== section) {
        section = seat.section;
        column = PER_ROW;
        y += NAME;
        const name = word("book.section", { name: section, price: money(seat.price) });
        svg.append(make("text", { class: "name", x: middle, y: y + SIZE + GAP - 8, "aria-hidden": "true" }, name));
      }
      if (column === PER_ROW) {
        column = 0;
        y += SIZE + GAP;
      }
      const x = GAP + column * (SIZE + GAP);
      column += 1;
      const label = make("text", { x: x + SIZE / 2, y: y + SIZE / 2 + 5, "aria-hidden": "true" }, String(seat.number));
      const group = make(
        "g",
        { class: "seat", role: "checkbox", tabindex: n === 0 ? "0" : "-1", onclick: () => this.#toggle(seat.number), onkeydown: (event) => this.#key(event, n) },
        make("rect", { x, y, width: SIZE, height: SIZE, rx: 8 }),
        label,
      );
      this.#groups.set(seat.number, group);
      svg.append(group);
    });
    svg.setAttribute("viewBox", `0 0 ${width} ${y + SIZE + GAP}`);
    this.#parent.replaceChildren(svg);
  }

  #paint(seat) {
    const group = this.#groups.get(seat.number);
    const mine = this.chosen.has(seat.number);
    const status = { available: "free", held: "held", sold: "sold" }[seat.status];
    const label = word("book.seat", { n: seat.number, section: seat.section, price: money(seat.price), status: word(`book.${mine ? "mine" : status}`) });
    const now = `seat ${status}`;
    if (group.getAttribute("class") !== now) group.setAttribute("class", now);
    if (group.getAttribute("aria-label") !== label) group.setAttribute("aria-label", label);
    group.setAttribute("aria-checked", String(mine));
    group.setAttribute("aria-disabled", String(seat.status !== "available"));
  }

  #toggle(n) {
    const seat = this.#seats.find((seat) => seat.number === n);
    if (this.chosen.has(n)) this.chosen.delete(n);
    else if (seat.status === "available" && this.chosen.size < this.#most) this.chosen.add(n);
    this.#paint(seat);
    this.#changed(this.chosen);
  }

  #key(event, n) {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -PER_ROW, ArrowDown: PER_ROW }[event.key];
    if (step !== undefined) {
      const next = this.#seats[n + step];
      if (!next) return;
      event.preventDefault();
      this.#groups.get(this.#seats[n].number).setAttribute("tabindex", "-1");
      const group = this.#groups.get(next.number);
      group.setAttribute("tabindex", "0");
      group.focus();
    } else if (event.key === " " || event.key === "Enter") {
      event.preventDefault();
      this.#toggle(this.#seats[n].number);
    }
  }
}
