// A QR code as SVG.

import { createElement } from "./dom.js";
import { correction, generate } from "./vendor/lean-qr.js";

// The quiet zone of the standard, in modules.
const MARGIN = 4;

export function qrCode(text, label) {
  const code = generate(text, { minCorrectionLevel: correction.M });
  const size = code.size + 2 * MARGIN;
  let path = "";
  for (let y = 0; y < code.size; y += 1) {
    for (let x = 0; x < code.size; x += 1) {
      if (code.get(x, y)) path += `M${x + MARGIN} ${y + MARGIN}h1v1h-1z`;
    }
  }
  const attributes = { class: "qr", role: "img", "aria-label": label };
  return createElement(
    "svg",
    { ...attributes, viewBox: `0 0 ${size} ${size}`, "shape-rendering": "crispEdges" },
    createElement("rect", { width: size, height: size, fill: "#ffffff" }),
    createElement("path", { d: path, fill: "#000000" }),
  );
}
