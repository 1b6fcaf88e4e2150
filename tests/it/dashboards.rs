//! Grafana's dashboards against the one list of metrics: what they draw exists, and they are drawn alike.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use usher::telemetry::{Kind, Metric};

/// Every panel of every dashboard, with the name of its file.
fn panels() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana/dashboards");
    let mut panels = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let board: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(board["uid"], format!("usher-{name}"));
        panels.extend(board["panels"].as_array().unwrap().iter().map(|panel| (name.clone(), panel.clone())));
    }
    panels
}

/// The names of metrics and of labels that an expression uses.
fn names(expression: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let words = |text: &str| -> BTreeSet<String> {
        text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_').map(str::to_owned).collect()
    };
    let metrics = words(expression).into_iter().filter(|word| word.starts_with("usher_")).collect();
    let grouped = expression.split(" by (").skip(1).filter_map(|rest| rest.split(')').next());
    let matched = expression.split('{').skip(1).filter_map(|rest| rest.split('=').next());
    let labels = grouped.chain(matched).flat_map(words).filter(|word| !word.is_empty()).collect();
    (metrics, labels)
}

/// The metric that a name of Prometheus belongs to: histograms have three names.
fn metric(name: &str) -> Option<Metric> {
    Metric::ALL.iter().copied().find(|metric| match metric.kind() {
        Kind::Histogram => {
            ["_bucket", "_sum", "_count"].iter().any(|end| name == format!("{}{end}", metric.name()))
        }
        _ => name == metric.name(),
    })
}

#[test]
fn every_panel_draws_metrics_and_labels_that_exist() {
    for (board, panel) in panels() {
        let title = &panel["title"];
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let (metrics, labels) = names(expression);
            assert!(!metrics.is_empty(), "{board}, {title}: {expression}");
            for name in &metrics {
                let metric =
                    metric(name).unwrap_or_else(|| panic!("{board}, {title}: {name} does not exist"));
                for label in &labels {
                    let known = metric.labels().contains(&label.as_str())
                        || ["le", "instance"].contains(&label.as_str());
                    assert!(known, "{board}, {title}: {name} has no label {label}");
                }
            }
        }
    }
}

#[test]
fn every_panel_says_what_it_shows_and_in_what_unit() {
    let panels = panels();
    assert!(panels.len() > 30);
    for (board, panel) in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(!title.is_empty() && !panel["description"].as_str().unwrap().is_empty(), "{board}, {title}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{board}, {title}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{board}, {title}");
        let text = panel.to_string();
        assert!(
            !text.contains("rate(") || text.contains("[$__rate_interval]") || text.contains("[5m]"),
            "{board}, {title}"
        );
    }
}

/// What nobody draws is seen by nobody; the list is for those that are only counted for other tools.
#[test]
fn every_metric_is_drawn_somewhere() {
    let drawn: BTreeSet<String> = panels()
        .iter()
        .flat_map(|(_, panel)| panel["targets"].as_array().unwrap().clone())
        .flat_map(|target| names(target["expr"].as_str().unwrap()).0)
        .filter_map(|name| metric(&name))
        .map(|metric| metric.name().to_owned())
        .collect();
    let missing: Vec<_> =
        Metric::ALL.iter().map(|metric| metric.name()).filter(|name| !drawn.contains(*name)).collect();
    assert_eq!(missing, ["usher_queue_promoted_total"], "admitted_total draws promotions and joins together");
}
