// The look of a waiting page: the queue's own name, logo, colours and support link. The service
// writes them as JSON into the attribute `data-page` of `body`.

import { $, createElement } from "./dom.js";

// The contrast that text needs (WCAG 1.4.3).
const MIN_CONTRAST = 4.5;

export const branding = JSON.parse(document.body.dataset.page ?? "{}");

export function applyBranding() {
  const name = branding.event_name || "Usher";
  const title = createElement("strong", {}, name);
  if (branding.logo_url) {
    const logo = createElement("img", { src: branding.logo_url, alt: "", class: "logo" });
    // Without the image the name remains.
    logo.addEventListener("error", () => logo.remove());
    $("brand").replaceChildren(logo, title);
  } else {
    $("brand").replaceChildren(title);
  }
  $("support").hidden = !branding.support_url;
  if (branding.support_url) $("support-link").href = branding.support_url;
  applyColors();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyColors);
}

export const pageTitle = (text) => `${text} · ${branding.event_name || "Usher"}`;

function applyColors() {
  const { style } = document.documentElement;
  const { accent_color: accent, header_color: header } = branding;
  if (header) {
    style.setProperty("--header", header);
    style.setProperty("--on-header", readableOn(header));
    $("brand").parentElement.classList.add("branded");
  }
  if (!accent) return;
  style.setProperty("--accent-fill", accent);
  style.setProperty("--on-accent", readableOn(accent));
  // As text and lines the colour must be readable in the scheme of the visitor.
  style.removeProperty("--accent");
  const card = getComputedStyle(document.documentElement).getPropertyValue("--card").trim();
  if (contrast(accent, card) >= MIN_CONTRAST) style.setProperty("--accent", accent);
}

// Black or white: one of them always has enough contrast.
const readableOn = (color) =>
  contrast(color, "#ffffff") >= contrast(color, "#000000") ? "#ffffff" : "#000000";

// The contrast ratio of two colours as #rrggbb, from 1 to 21.
export function contrast(one, other) {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

function luminance(color) {
  const [red, green, blue] = [1, 3, 5].map((at) => {
    const value = parseInt(color.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
