// The seats of a schedule: its layout, the status of each seat, and the parts that are drawn.
//
// A small hall is drawn as a whole. A large one has parts of at most MAX_SEATS_PER_PART seats, and
// only one of them is in the document, so that a hall of 50,000 seats is usable on a phone.

const MAX_SEATS_PER_PART = 500;
const STATUSES = { a: "available", h: "held", s: "sold" };

export class SeatHall {
  #sections = [];
  #letters = [];
  // The parts, in the order of the layout: `{ sections: [{ name, price, from, to }], available }`.
  parts = [];

  // Replaces the layout. `sections` are those of the API.
  setLayout(sections) {
    this.#sections = [...sections].sort((one, other) => one.from - other.from);
    const total = Math.max(0, ...sections.map(({ to }) => to));
    const groups = total <= MAX_SEATS_PER_PART ? [this.#sections] : sections.flatMap(splitSection);
    this.parts = groups.map((group) => ({ sections: group, available: 0 }));
    this.#count();
  }

  // Replaces all statuses: one letter for each seat.
  setStatuses(letters) {
    this.#letters = [...letters];
    this.#count();
  }

  // Applies changes `[{ number, status }]` and returns the numbers of the changed seats.
  change(items) {
    for (const { number, status } of items) this.#letters[number - 1] = status[0];
    this.#count();
    return items.map(({ number }) => number);
  }

  get total() {
    return this.#letters.length;
  }

  get available() {
    return this.parts.reduce((sum, part) => sum + part.available, 0);
  }

  seat(number) {
    const section = this.#sections.find(({ from, to }) => from <= number && number <= to);
    const { name, price } = section ?? { name: "", price: 0 };
    return { number, section: name, price, status: STATUSES[this.#letters[number - 1]] };
  }

  seatsOf(part) {
    return part.sections.flatMap(({ name, price, from, to }) =>
      Array.from({ length: to - from + 1 }, (_, index) => {
        const number = from + index;
        return { number, section: name, price, status: STATUSES[this.#letters[number - 1]] };
      }),
    );
  }

  #count() {
    for (const part of this.parts) {
      part.available = 0;
      for (const { from, to } of part.sections) {
        for (let number = from; number <= to; number += 1) {
          if (this.#letters[number - 1] === "a") part.available += 1;
        }
      }
    }
  }
}

// Groups of one section each, with at most MAX_SEATS_PER_PART seats.
function splitSection({ name, price, from, to }) {
  const groups = [];
  for (let first = from; first <= to; first += MAX_SEATS_PER_PART) {
    const last = Math.min(to, first + MAX_SEATS_PER_PART - 1);
    groups.push([{ name, price, from: first, to: last }]);
  }
  return groups;
}
