// The language of the page and its texts. The service selects the language from Accept-Language and
// writes it to the `lang` attribute of the document.

import { messageTable } from "./message_table.js";

export const language = document.documentElement.lang === "ko" ? "ko" : "en";

// Returns the text of a key. `values` replace the names in braces.
export function message(key, values = {}) {
  const [english, korean] = messageTable[key];
  const text = language === "ko" ? korean : english;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// Fills in the elements of the page: `data-message` names the text of an element and `data-label`
// its label for screen readers.
export function localizePage(root = document) {
  for (const element of root.querySelectorAll("[data-message]")) {
    element.textContent = message(element.dataset.message);
  }
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", message(element.dataset.label));
  }
}

// The visitor's own region formats numbers and times if it uses the language of the page.
const locale = navigator.language.startsWith(language) ? navigator.language : language;

export const formatNumber = (value) => new Intl.NumberFormat(locale).format(value);

// Every amount of an installation has the same currency (ISO 4217).
let currency = "KRW";
export const setCurrency = (code) => (currency = code);

// `value` is in the minor unit of the currency.
export function formatMoney(value) {
  if (currency === "KRW") return message("money", { n: formatNumber(value) });
  const format = new Intl.NumberFormat(locale, { style: "currency", currency });
  return format.format(value / 10 ** format.resolvedOptions().maximumFractionDigits);
}

export const formatTime = (time) =>
  new Date(time).toLocaleTimeString(locale, { timeStyle: "short" });

export const formatDateTime = (time) =>
  new Date(time).toLocaleString(locale, { dateStyle: "medium", timeStyle: "short" });

// For narrow columns: no year.
export function formatShortTime(time) {
  const date = new Date(time).toLocaleDateString(locale, { month: "numeric", day: "numeric" });
  return `${date} ${formatTime(time)}`;
}

export function formatDuration(seconds) {
  if (seconds < 60) return message("time.seconds", { n: Math.max(0, Math.ceil(seconds)) });
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 60) return message("time.minutes", { n: minutes });
  return message("time.hours", { h: Math.floor(minutes / 60), n: minutes % 60 });
}

// The time until an event, to the second, for a countdown: "2 d 03:04:05".
export function formatCountdown(milliseconds) {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  const pad = (value) => String(value).padStart(2, "0");
  const hours = Math.floor(seconds / 3600) % 24;
  const rest = `${pad(hours)}:${pad(Math.floor(seconds / 60) % 60)}:${pad(seconds % 60)}`;
  const days = Math.floor(seconds / 86400);
  return days ? message("time.days", { d: days, rest }) : rest;
}
