//! Parses the part of Prometheus' text format that Usher's `/metrics` uses.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::telemetry::Metric;

/// One line of the text format.
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

/// All samples of one moment.
#[derive(Debug, Clone)]
pub(super) struct MetricScrape {
    at: Instant,
    samples: Vec<MetricSample>,
}

impl MetricScrape {
    /// Parses a whole page. Skips lines that are not understood.
    pub(super) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self { at: Instant::now(), samples: lines.filter_map(parse_sample).collect() }
    }

    /// Whether an instance of Usher exposed it.
    pub(super) fn is_usher(&self) -> bool {
        self.of(Metric::BuildInfo).next().is_some()
    }

    /// The version of the instance.
    pub(super) fn version(&self) -> &str {
        self.of(Metric::BuildInfo).find_map(|sample| sample.label("version")).unwrap_or_default()
    }

    pub(super) fn seconds_since(&self, earlier: &Self) -> f64 {
        self.at.saturating_duration_since(earlier.at).as_secs_f64().max(0.001)
    }

    /// The sum over all series of a metric.
    pub(super) fn sum(&self, metric: Metric) -> f64 {
        self.of(metric).map(|sample| sample.value).sum()
    }

    /// The sum over the series with this value of a label.
    pub(super) fn sum_with(&self, metric: Metric, label: &str, value: &str) -> f64 {
        self.of(metric)
            .filter(|sample| sample.label(label) == Some(value))
            .map(|sample| sample.value)
            .sum()
    }

    /// The sum over the series whose label starts with `prefix`.
    pub(super) fn sum_with_prefix(&self, metric: Metric, label: &str, prefix: &str) -> f64 {
        let matches = |sample: &&MetricSample| {
            sample.label(label).is_some_and(|value| value.starts_with(prefix))
        };
        self.of(metric).filter(matches).map(|sample| sample.value).sum()
    }

    /// The values of a label, sorted.
    pub(super) fn label_values(&self, metric: Metric, label: &str) -> Vec<String> {
        let mut values: Vec<_> =
            self.of(metric).filter_map(|it| it.label(label).map(str::to_owned)).collect();
        values.sort();
        values.dedup();
        values
    }

    /// A quantile of the observations since an earlier scrape: the upper bound of its bucket.
    /// `None` without observations.
    pub(super) fn quantile(
        &self,
        earlier: &Self,
        metric: Metric,
        filter: Option<(&str, &str)>,
        quantile: f64,
    ) -> Option<f64> {
        let name = format!("{}_bucket", metric.name());
        let buckets = |scrape: &Self| {
            let mut buckets: BTreeMap<u64, f64> = BTreeMap::new();
            let matches = |sample: &&MetricSample| {
                sample.name == name
                    && filter.is_none_or(|(label, value)| sample.label(label) == Some(value))
            };
            for sample in scrape.samples.iter().filter(matches) {
                let bound: f64 =
                    sample.label("le").and_then(|le| le.parse().ok()).unwrap_or(f64::INFINITY);
                // The bit patterns of non-negative floats sort as their values do.
                *buckets.entry(bound.to_bits()).or_default() += sample.value;
            }
            buckets
        };
        let (old, new) = (buckets(earlier), buckets(self));
        let since = |bound: &u64, count: &f64| count - old.get(bound).unwrap_or(&0.0);
        let total = new
            .iter()
            .next_back()
            .map(|(bound, count)| since(bound, count))
            .filter(|total| *total > 0.0)?;
        let found = new.iter().find(|(bound, count)| since(bound, count) >= quantile * total);
        found.map(|(bound, _)| f64::from_bits(*bound))
    }

    /// The number of observations of a histogram, and their sum.
    pub(super) fn count_and_sum(&self, metric: Metric) -> (f64, f64) {
        let total = |suffix: &str| {
            let name = format!("{}{suffix}", metric.name());
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
fn parse_sample(line: &str) -> Option<MetricSample> {
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
        let (text, after) = parse_quoted(after)?;
        labels.push((label.trim_start_matches(',').to_owned(), text));
        rest = after;
    }
    let value = rest[1..].trim().parse().ok()?;
    Some(MetricSample { name: name.to_owned(), labels, value })
}

/// The text up to the closing quote, and the rest of the line.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
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
    fn samples_are_parsed() {
        let read = |line: &str| parse_sample(line).map(|it| (it.name, it.labels, it.value));
        assert_eq!(read("a 1.5"), Some(("a".to_owned(), vec![], 1.5)));
        let labels = vec![("b".to_owned(), "x\"}\\y".to_owned()), ("c".to_owned(), String::new())];
        assert_eq!(read(r#"a{b="x\"}\\y",c=""} 2"#), Some(("a".to_owned(), labels, 2.0)));
        assert_eq!(read(r#"a{b="x} 2"#), None);
        assert_eq!(read("a"), None);
    }

    #[test]
    fn quantiles_cover_the_time_since_the_earlier_scrape() {
        let name = Metric::HttpRequestSeconds.name();
        let page = |counts: [u32; 3]| {
            let line = |(le, count): (&str, u32)| {
                format!("{name}_bucket{{route=\"/\",le=\"{le}\"}} {count}\n")
            };
            MetricScrape::parse(
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
