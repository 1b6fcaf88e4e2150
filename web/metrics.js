// Reads Prometheus' text, as far as the console needs it: the sum of a metric over its labels, or of those that match.

export function sum(text, name, labels = {}) {
  let total = null;
  for (const line of text.split("\n")) {
    const match = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!match || match[1] !== name) continue;
    const has = Object.entries(labels).every(([key, value]) => (match[2] ?? "").includes(`${key}="${value}"`));
    if (has) total = (total ?? 0) + Number(match[3]);
  }
  return total;
}
