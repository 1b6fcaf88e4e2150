//! Prometheus' text format, as far as our own `/metrics` uses it.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::telemetry::Metric;

/// One line with a value.
#[derive(Debug, Clone, PartialEq)]
struct MetricSample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl MetricSample {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
    }
}

/// What was exposed at one moment.
#[derive(Debug, Clone)]
pub(super) struct MetricScrape {
    at: Instant,
    samples: Vec<MetricSample>,
}

impl MetricScrape {
    /// Reads a whole page; lines that are none of ours are left out.
    pub(super) fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self { at: Instant::now(), samples: lines.filter_map(sample).collect() }
    }

    /// Whether an instance of Usher exposed it.
    pub(super) fn is_usher(&self) -> bool {
        self.of(Metric::BuildInfo).next().is_some()
    }

    /// The version that runs.
    pub(super) fn version(&self) -> &str {
        self.of(Metric::BuildInfo).find_map(|sample| sample.label("version")).unwrap_or_default()
    }

    /// Seconds since an earlier look.
    pub(super) fn seconds_since(&self, before: &Self) -> f64 {
        self.at.saturating_duration_since(before.at).as_secs_f64().max(0.001)
    }

    /// All of a metric together.
    pub(super) fn sum(&self, metric: Metric) -> f64 {
        self.of(metric).map(|sample| sample.value).sum()
    }

    /// What of a metric has such a value of a label, together.
    pub(super) fn sum_of(&self, metric: Metric, label: &str, value: &str) -> f64 {
        self.of(metric)
            .filter(|sample| sample.label(label) == Some(value))
            .map(|sample| sample.value)
            .sum()
    }

    /// All of a metric whose label begins like this, together.
    pub(super) fn sum_like(&self, metric: Metric, label: &str, start: &str) -> f64 {
        let like = |sample: &&MetricSample| {
            sample.label(label).is_some_and(|value| value.starts_with(start))
        };
        self.of(metric).filter(like).map(|sample| sample.value).sum()
    }

    /// The values of a label, in order.
    pub(super) fn values(&self, metric: Metric, label: &str) -> Vec<String> {
        let mut values: Vec<_> =
            self.of(metric).filter_map(|it| it.label(label).map(str::to_owned)).collect();
        values.sort();
        values.dedup();
        values
    }

    /// A quantile of what a histogram has counted since an earlier look, in its unit: the upper bound of the bucket in which it lies. `None` where nothing was
    /// counted.
    pub(super) fn quantile(
        &self,
        before: &Self,
        metric: Metric,
        fits: Option<(&str, &str)>,
        quantile: f64,
    ) -> Option<f64> {
        let name = format!("{}_bucket", metric.name());
        let buckets = |scrape: &Self| {
            let mut buckets: BTreeMap<u64, f64> = BTreeMap::new();
            let fit = |sample: &&MetricSample| {
                sample.name == name
                    && fits.is_none_or(|(label, value)| sample.label(label) == Some(value))
            };
            for sample in scrape.samples.iter().filter(fit) {
                let bound: f64 =
                    sample.label("le").and_then(|le| le.parse().ok()).unwrap_or(f64::INFINITY);
                // Bounds are not negative, so their bits are in their order.
                *buckets.entry(bound.to_bits()).or_default() += sample.value;
            }
            buckets
        };
        let (then, now) = (buckets(before), buckets(self));
        let since = |bound: &u64, count: &f64| count - then.get(bound).unwrap_or(&0.0);
        let all = now
            .iter()
            .next_back()
            .map(|(bound, count)| since(bound, count))
            .filter(|all| *all > 0.0)?;
        let found = now.iter().find(|(bound, count)| since(bound, count) >= quantile * all);
        found.map(|(bound, _)| f64::from_bits(*bound))
    }

    /// How many a histogram has counted, and their sum.
    pub(super) fn count_and_sum(&self, metric: Metric) -> (f64, f64) {
        let total = |end: &str| {
            let name = format!("{}{end}", metric.name());
            self.samples
                .iter()
                .filter(|sample| sample.name == name)
                .map(|sample| sample.value)
                .sum()
        };
        (total("_count"), total("_sum"))
    }

    fn of(&self, metric: Metric) -> impl Iterator<Item = &MetricSample> {
        self.samples.iter().filter(move |sample| sample.name == metric.name())
    }
}

/// `name value` or `name{label="text",…} value`.
fn sample(line: &str) -> Option<MetricSample> {
    let Some((name, rest)) = line.split_once('{') else {
        let (name, value) = line.split_once(' ')?;
        return Some(MetricSample {
            name: name.to_owned(),
            labels: Vec::new(),
            value: value.trim().parse().ok()?,
        });
    };
    let (mut labels, mut rest) = (Vec::new(), rest);
    while !rest.starts_with('}') {
        let (label, after) = rest.split_once("=\"")?;
        let (text, after) = quoted(after)?;
        labels.push((label.trim_start_matches(',').to_owned(), text));
        rest = after;
    }
    let value = rest[1..].trim().parse().ok()?;
    Some(MetricSample { name: name.to_owned(), labels, value })
}

/// A text up to its quote, and what follows that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut plain, mut letters) = (String::new(), text.char_indices());
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((plain, &text[at + 1..])),
            '\\' => match letters.next()?.1 {
                'n' => plain.push('\n'),
                other => plain.push(other),
            },
            other => plain.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let read = |line: &str| sample(line).map(|it| (it.name, it.labels, it.value));
        assert_eq!(read("a 1.5"), Some(("a".to_owned(), vec![], 1.5)));
        let labels = vec![("b".to_owned(), "x\"}\\y".to_owned()), ("c".to_owned(), String::new())];
        assert_eq!(read(r#"a{b="x\"}\\y",c=""} 2"#), Some(("a".to_owned(), labels, 2.0)));
        assert_eq!(read(r#"a{b="x} 2"#), None);
        assert_eq!(read("a"), None);
    }

    #[test]
    fn quantiles_are_of_what_came_since() {
        let name = Metric::HttpRequestSeconds.name();
        let page = |counts: [u32; 3]| {
            let line = |(le, count): (&str, u32)| {
                format!("{name}_bucket{{route=\"/\",le=\"{le}\"}} {count}\n")
            };
            MetricScrape::read(
                &["0.1", "0.5", "+Inf"].into_iter().zip(counts).map(line).collect::<String>(),
            )
        };
        let quantile =
            |before, now, q| page(now).quantile(&page(before), Metric::HttpRequestSeconds, None, q);
        assert_eq!(quantile([0, 0, 0], [50, 99, 100], 0.5), Some(0.1));
        assert_eq!(quantile([0, 0, 0], [50, 99, 100], 0.99), Some(0.5));
        assert_eq!(quantile([50, 50, 50], [50, 60, 60], 0.5), Some(0.5));
        assert_eq!(quantile([0, 0, 0], [0, 0, 1], 0.5), Some(f64::INFINITY));
        assert_eq!(quantile([9, 9, 9], [9, 9, 9], 0.5), None);
    }
}
