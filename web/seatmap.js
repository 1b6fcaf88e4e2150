// A part of a hall as SVG, in rows in front of the stage. Each seat is a checkbox. The arrow keys
// move between the seats.

import { createElement } from "./dom.js";
import { formatMoney, message } from "./messages.js";

const SEAT_SIZE = 34;
const SEAT_GAP = 6;
const SEATS_PER_ROW = 10;
const STAGE_HEIGHT = 34;
const SECTION_NAME_HEIGHT = 24;

export class SeatMap {
  #parent;
  #selected;
  #onToggle;
  #groups = new Map();
  #numbers = [];

  // `selected` is the set of selected seat numbers, which the map only reads. `onToggle(number)` is
  // called when the visitor selects or deselects a seat.
  constructor(parent, selected, onToggle) {
    this.#parent = parent;
    this.#selected = selected;
    this.#onToggle = onToggle;
  }

  // Draws these seats instead of the previous ones.
  draw(seats) {
    this.#groups.clear();
    this.#numbers = seats.map(({ number }) => number);
    const width = SEATS_PER_ROW * (SEAT_SIZE + SEAT_GAP) + SEAT_GAP;
    const label = message("booking.seats");
    const svg = createElement("svg", { class: "seats", role: "group", "aria-label": label });
    svg.append(...stage(width));
    let y = STAGE_HEIGHT - SEAT_SIZE - SEAT_GAP;
    let column = SEATS_PER_ROW;
    let section = null;
    seats.forEach((seat, index) => {
      // A new section starts with its name and a new row.
      if (seat.section !== section) {
        section = seat.section;
        column = SEATS_PER_ROW;
        y += SECTION_NAME_HEIGHT;
        svg.append(sectionName(seat, width / 2, y + SEAT_SIZE + SEAT_GAP - 8));
      }
      if (column === SEATS_PER_ROW) {
        column = 0;
        y += SEAT_SIZE + SEAT_GAP;
      }
      const group = this.#seatElement(seat, index, SEAT_GAP + column * (SEAT_SIZE + SEAT_GAP), y);
      column += 1;
      this.#groups.set(seat.number, group);
      svg.append(group);
      this.update(seat);
    });
    svg.setAttribute("viewBox", `0 0 ${width} ${y + SEAT_SIZE + SEAT_GAP}`);
    this.#parent.replaceChildren(svg);
  }

  // Updates a seat if it is drawn. It keeps the focus.
  update(seat) {
    const group = this.#groups.get(seat.number);
    if (!group) return;
    const isSelected = this.#selected.has(seat.number);
    const status = isSelected ? "selected" : seat.status;
    const label = message("booking.seat", {
      n: seat.number,
      section: seat.section,
      price: formatMoney(seat.price),
      status: message(`booking.status.${status}`),
    });
    const className = `seat ${seat.status}`;
    if (group.getAttribute("class") !== className) group.setAttribute("class", className);
    if (group.getAttribute("aria-label") !== label) group.setAttribute("aria-label", label);
    group.setAttribute("aria-checked", String(isSelected));
    group.setAttribute("aria-disabled", String(seat.status !== "available"));
  }

  #seatElement(seat, index, x, y) {
    const attributes = {
      class: "seat",
      role: "checkbox",
      // One seat is in the tab order. The arrow keys reach the others.
      tabindex: index === 0 ? "0" : "-1",
      onclick: () => this.#onToggle(seat.number),
      onkeydown: (event) => this.#onKey(event, index),
    };
    const center = { x: x + SEAT_SIZE / 2, y: y + SEAT_SIZE / 2 + 5 };
    return createElement(
      "g",
      attributes,
      createElement("rect", { x, y, width: SEAT_SIZE, height: SEAT_SIZE, rx: 8 }),
      createElement("text", { ...center, "aria-hidden": "true" }, String(seat.number)),
    );
  }

  #onKey(event, index) {
    if (event.key === " " || event.key === "Enter") {
      event.preventDefault();
      this.#onToggle(this.#numbers[index]);
      return;
    }
    const steps = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -SEATS_PER_ROW, ArrowDown: SEATS_PER_ROW,
    };
    const target = this.#groups.get(this.#numbers[index + steps[event.key]]);
    if (!target) return;
    event.preventDefault();
    this.#groups.get(this.#numbers[index]).setAttribute("tabindex", "-1");
    target.setAttribute("tabindex", "0");
    target.focus();
  }
}

function stage(width) {
  const hidden = { "aria-hidden": "true" };
  const box = { x: width / 6, y: 0, width: (width * 2) / 3, height: STAGE_HEIGHT - 10, rx: 6 };
  const label = { class: "name stage-name", x: width / 2, y: STAGE_HEIGHT - 17 };
  return [
    createElement("rect", { class: "stage", ...box, ...hidden }),
    createElement("text", { ...label, ...hidden }, message("booking.stage")),
  ];
}

function sectionName(seat, x, y) {
  const text = message("booking.section", { name: seat.section, price: formatMoney(seat.price) });
  return createElement("text", { class: "name", x, y, "aria-hidden": "true" }, text);
}
