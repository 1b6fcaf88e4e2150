//! Grafana dashboards: they use existing metrics and follow the rules of Grafana's linter.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use usher::telemetry::{Metric, MetricKind};

/// Every dashboard, by file name.
fn dashboards() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana/dashboards");
    let mut boards = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        boards.push((name, serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap()));
    }
    assert_eq!(boards.len(), 3);
    boards
}

/// Every panel of every dashboard, with the file name.
pub(crate) fn panels() -> Vec<(String, Value)> {
    let panels = |(name, board): (String, Value)| {
        let panels = board["panels"].as_array().unwrap().clone();
        panels.into_iter().map(move |panel| (name.clone(), panel))
    };
    dashboards().into_iter().flat_map(panels).collect()
}

/// The expressions of a panel.
pub(crate) fn expressions(panel: &Value) -> Vec<String> {
    let targets = panel["targets"].as_array().unwrap();
    targets.iter().map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// The label matchers of an expression, one text per pair of braces.
fn matchers(expression: &str) -> impl Iterator<Item = &str> {
    expression.split('{').skip(1).filter_map(|rest| rest.split('}').next())
}

/// The metric names and label names in an expression.
fn names(expression: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let words = |text: &str| -> BTreeSet<String> {
        text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_').map(str::to_owned).collect()
    };
    let metrics = words(expression).into_iter().filter(|word| word.starts_with("usher_")).collect();
    let grouped = expression.split(" by (").skip(1).filter_map(|rest| rest.split(')').next());
    let matched = matchers(expression)
        .flat_map(|text| text.split(", "))
        .filter_map(|it| it.split('=').next());
    let labels = grouped.chain(matched).flat_map(words).filter(|word| !word.is_empty()).collect();
    (metrics, labels)
}

/// The metric of a Prometheus name. Histograms have three names.
fn metric(name: &str) -> Option<Metric> {
    Metric::ALL.iter().copied().find(|metric| match metric.kind() {
        MetricKind::Histogram => ["_bucket", "_sum", "_count"]
            .iter()
            .any(|end| name == format!("{}{end}", metric.name())),
        _ => name == metric.name(),
    })
}

#[test]
fn every_panel_uses_existing_metrics_and_labels() {
    for (board, panel) in panels() {
        let title = &panel["title"];
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let (metrics, labels) = names(expression);
            assert!(!metrics.is_empty(), "{board}, {title}: {expression}");
            for name in &metrics {
                let metric = metric(name)
                    .unwrap_or_else(|| panic!("{board}, {title}: {name} does not exist"));
                for label in &labels {
                    let known = metric.labels().contains(&label.as_str())
                        || ["le", "instance", "job"].contains(&label.as_str());
                    assert!(known, "{board}, {title}: {name} has no label {label}");
                }
            }
        }
    }
}

/// The rules of Grafana's dashboard linter for a dashboard.
#[test]
fn every_dashboard_passes_the_linter() {
    for (name, board) in dashboards() {
        assert_eq!(board["uid"], format!("usher-{name}"));
        assert_eq!(board["editable"], false, "{name}");
        let list = board["templating"]["list"].as_array().unwrap();
        let source = &list[0];
        assert_eq!(
            (&source["name"], &source["label"], &source["type"], &source["query"]),
            (
                &json!("datasource"),
                &json!("Data source"),
                &json!("datasource"),
                &json!("prometheus")
            ),
            "{name}"
        );
        for (nth, (variable, label)) in
            [("job", "Job"), ("instance", "Instance")].into_iter().enumerate()
        {
            let found = &list[nth + 1];
            assert_eq!(
                (&found["name"], &found["label"]),
                (&json!(variable), &json!(label)),
                "{name}"
            );
        }
        for variable in &list[1..] {
            let seen = ["type", "multi", "allValue", "refresh"].map(|key| variable[key].clone());
            // 2: refresh when the time range changes.
            assert_eq!(
                seen,
                [json!("query"), json!(true), json!(".+"), json!(2)],
                "{name}, {variable}"
            );
            assert_eq!(variable["datasource"]["uid"], "${datasource}", "{name}");
        }
        let mut ids: Vec<_> =
            board["panels"].as_array().unwrap().iter().map(|panel| &panel["id"]).collect();
        let many = ids.len();
        ids.sort_by_key(|id| id.as_u64());
        ids.dedup();
        assert_eq!(ids.len(), many, "{name}: two panels have one id");
    }
}

/// The rules of the linter for a panel.
#[test]
fn every_panel_passes_the_linter() {
    let panels = panels();
    assert!(panels.len() > 50);
    for (board, panel) in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(
            !title.is_empty() && !panel["description"].as_str().unwrap().is_empty(),
            "{board}, {title}"
        );
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{board}, {title}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{board}, {title}");
        let all = expressions(&panel);
        assert!(!all.is_empty(), "{board}, {title}");
        for expression in all {
            let place = format!("{board}, {title}: {expression}");
            // Every selector contains job and instance.
            let selected = names_in_order(&expression).count();
            let by_both = |text: &&str| text.starts_with(r#"job=~"$job", instance=~"$instance""#);
            assert_eq!(matchers(&expression).filter(by_both).count(), selected, "{place}");
            // Rates use the interval that Grafana knows to contain enough samples.
            for function in ["rate(", "irate("] {
                for (at, _) in expression.match_indices(function) {
                    let range =
                        expression[at..].split('[').nth(1).and_then(|rest| rest.split(']').next());
                    assert_eq!(range, Some("$__rate_interval"), "{place}");
                }
            }
            // Counters are not drawn without a rate.
            for (at, _) in names_in_order(&expression).filter(|(_, name)| name.ends_with("_total"))
            {
                let before = &expression[..at];
                assert!(["rate(", "increase("].iter().any(|it| before.ends_with(it)), "{place}");
            }
            if expression.contains("histogram_quantile(") {
                assert!(
                    expression.contains("sum by (le") && expression.contains("_bucket{"),
                    "{place}"
                );
            }
        }
    }
}

/// Each metric of an expression with its offset.
fn names_in_order(expression: &str) -> impl Iterator<Item = (usize, &str)> {
    expression.match_indices("usher_").map(|(at, _)| {
        let name = expression[at..].split('{').next().unwrap();
        (at, name)
    })
}

/// Metrics on no dashboard, with the reason.
#[test]
fn every_metric_is_on_a_dashboard() {
    let drawn: BTreeSet<String> = panels()
        .iter()
        .flat_map(|(_, panel)| panel["targets"].as_array().unwrap().clone())
        .flat_map(|target| names(target["expr"].as_str().unwrap()).0)
        .filter_map(|name| metric(&name))
        .map(|metric| metric.name().to_owned())
        .collect();
    let missing: Vec<_> = Metric::ALL
        .iter()
        .map(|metric| metric.name())
        .filter(|name| !drawn.contains(*name))
        .collect();
    assert_eq!(
        missing,
        ["usher_queue_promoted_total"],
        "admitted_total draws promotions and joins together"
    );
}
