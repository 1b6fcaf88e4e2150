// The little of the page that all of them share.

export const $ = (id) => document.getElementById(id);

// Writes only what differs: a live region must not speak again because nothing changed.
export function say(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
}

// A note with more than one author: the first of them who has something to say is heard.
export class Note {
  #id;
  #texts;

  constructor(id, authors) {
    this.#id = id;
    this.#texts = new Map(authors.map((author) => [author, null]));
  }

  set(author, text) {
    this.#texts.set(author, text);
    const heard = [...this.#texts.values()].find(Boolean);
    $(this.#id).hidden = !heard;
    say(this.#id, heard ?? "");
  }
}

// Shows one of the sections and hides the others; moves the focus there when the visitor was in one that has gone.
export function show(id) {
  for (const section of document.querySelectorAll("[data-view]")) {
    const wanted = section.id === id;
    const had = !wanted && section.contains(document.activeElement);
    section.hidden = !wanted;
    if (had) $(id).focus();
  }
}

export function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "rect", "text", "polyline", "title"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}
