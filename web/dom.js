// DOM helpers shared by all pages.

import { NetworkError } from "./client/errors.js";
import { message } from "./messages.js";

export const $ = (id) => document.getElementById(id);

// Writes only a changed text, because a screen reader announces every write to a live region.
export function setText(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
}

// Sets the text of an element and hides the element if the text is empty.
export function setNotice(id, text) {
  $(id).hidden = !text;
  setText(id, text ?? "");
}

// A notice with several sources. It shows the text of the first source that has one.
export class NoticeStack {
  #id;
  #texts;

  // `sources` are in descending order of priority.
  constructor(id, sources) {
    this.#id = id;
    this.#texts = new Map(sources.map((source) => [source, null]));
  }

  set(source, text) {
    this.#texts.set(source, text);
    setNotice(this.#id, [...this.#texts.values()].find(Boolean));
  }
}

// Shows one section and hides the others. If the focus was in a section that is now hidden, it
// moves to the shown section.
export function showView(id) {
  for (const section of document.querySelectorAll("[data-view]")) {
    const shown = section.id === id;
    const hadFocus = !shown && section.contains(document.activeElement);
    section.hidden = !shown;
    if (hadFocus) $(id).focus();
  }
}

const SVG_TAGS = ["svg", "g", "path", "rect", "text", "polyline", "title"];

// Creates an HTML or SVG element. An attribute `on…` adds an event listener. Attributes that are
// `false` or `null` are left out.
export function createElement(tag, attributes = {}, ...children) {
  const element = SVG_TAGS.includes(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children);
  return element;
}

// The texts for the codes of errors. A code without one has the text of its status.
const PROBLEM_MESSAGES = {
  offline: "error.offline",
  unreachable: "error.network",
  overloaded: "error.overloaded",
  queue_full: "error.overloaded",
  rate_limited: "error.rate_limited",
  insufficient_balance: "booking.insufficient",
  not_enough_seats: "booking.notenough",
  not_payable: "error.not_payable",
  coupon_not_applicable: "error.coupon",
  coupon_expired: "error.coupon",
  sold_out: "booking.coupon.gone",
  not_started: "error.coupon_time",
  ended: "error.coupon_time",
  booking_not_open: "error.booking_not_open",
  cancellation_closed: "error.cancellation_closed",
  not_cancellable: "error.not_cancellable",
  balance_limit_exceeded: "error.balance_limit",
  payment_failed: "error.payment",
  not_found: "error.not_found",
  unauthenticated: "error.unauthenticated",
  visit_over: "booking.visit_over.why",
  queue_token_expired: "queue.expired.why",
};

// The code of an error. Without a response it says whether the device is offline.
export function problemCode(problem) {
  if (problem instanceof NetworkError) return navigator.onLine ? "unreachable" : "offline";
  return problem.code;
}

// A sentence for an error that a page does not handle in a specific way.
export function describeProblem(problem) {
  const key = PROBLEM_MESSAGES[problemCode(problem)];
  if (key) return message(key);
  return message(problem.isTemporary ? "error.server" : "error.request");
}

// For operators: the sentence of the service, which names fields and values.
export function describeDetail(problem) {
  return problem.detail && problem.status < 500 ? problem.detail : describeProblem(problem);
}
