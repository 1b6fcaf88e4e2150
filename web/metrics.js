// Reads the Prometheus text format, as far as the console needs it.

// Returns the sum of a metric over the label sets that contain `labels`, or null without a sample.
export function sumMetric(text, name, labels = {}) {
  let total = null;
  for (const line of text.split("\n")) {
    const match = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!match || match[1] !== name) continue;
    const matches = ([key, value]) => (match[2] ?? "").includes(`${key}="${value}"`);
    if (Object.entries(labels).every(matches)) total = (total ?? 0) + Number(match[3]);
  }
  return total;
}
