//! The structure of the source: which module may import which, which may use which store, and what
//! no file may contain.
//!
//! `main → cli → app → domains → {redis, mysql, outbox, telemetry, http} → {ids, money, partition,
//! time}`

use std::collections::BTreeSet;
use std::fs;

use super::{files, root};

const MAX_SOURCE_LINES: usize = 400;
const MAX_TEST_LINES: usize = 600;
const MAX_MEDIAN_LINES: usize = 150;

/// Modules of small types, which every module may import.
const COMMON_MODULES: [&str; 6] =
    ["coupon_terms", "definition", "ids", "money", "partition", "time"];
/// Modules that every domain may import.
const BASE_MODULES: [&str; 7] =
    ["redis", "mysql", "store_error", "outbox", "telemetry", "http", "edge"];

/// The other top modules that a module may import, beside the common ones. `None` for a module that
/// is not listed here.
fn allowed_imports(module: &str) -> Option<Vec<&'static str>> {
    let base_and = |domains: &[&'static str]| Some([&BASE_MODULES, domains].concat());
    match module {
        "lib" | "coupon_terms" | "definition" | "failpoint" | "shutdown" | "telemetry" | "ids"
        | "money" | "partition" | "time" | "tls" => Some(vec![]),
        "web" => Some(vec!["http"]),
        "main" => Some(vec!["cli"]),
        "cli" => Some(vec!["app", "config", "dev", "failpoint", "redis", "telemetry"]),
        // Knows the names of metrics, and instances only over HTTP.
        "dev" => Some(vec!["telemetry"]),
        "app" => base_and(&[
            "audit",
            "catalogue",
            "config",
            "coupons",
            "dev",
            "events",
            "failpoint",
            "idempotency",
            "payment",
            "queue",
            "recovery",
            "rewards",
            "seats",
            "shutdown",
            "tls",
            "users",
            "wallet",
            "web",
            "webhooks",
        ]),
        "config" => Some(vec!["dev", "edge", "http", "redis", "shutdown"]),
        // Parses the input of every domain.
        "fuzz_tests" => {
            base_and(&["catalogue", "coupons", "payment", "queue", "rewards", "seats", "wallet"])
        }
        // Knows no domain, and of the stores only their errors.
        "http" => Some(vec!["redis", "mysql", "store_error", "telemetry"]),
        "edge" => Some(vec!["http", "telemetry", "shutdown", "tls"]),
        "redis" => Some(vec!["failpoint", "telemetry", "tls"]),
        "mysql" => Some(vec!["telemetry"]),
        "outbox" => Some(vec!["redis", "mysql", "store_error", "failpoint", "telemetry"]),
        "store_error" => Some(vec!["redis", "mysql"]),
        "recovery" => {
            Some(vec!["redis", "mysql", "store_error", "outbox", "failpoint", "telemetry"])
        }
        // Shares no code with the modules that it checks.
        "audit" => Some(vec!["redis", "mysql", "store_error", "telemetry", "http"]),
        "events" => base_and(&["coupons", "payment", "rewards", "seats", "users", "wallet"]),
        "webhooks" => base_and(&["events", "tls"]),
        "idempotency" | "users" => base_and(&[]),
        // Serves the waiting page.
        "queue" => base_and(&["users", "web"]),
        "catalogue" => base_and(&["queue"]),
        "seats" => base_and(&["catalogue", "idempotency", "queue", "users"]),
        "wallet" => base_and(&["idempotency"]),
        "coupons" => base_and(&["idempotency", "users"]),
        "rewards" => base_and(&["users", "wallet"]),
        "payment" => base_and(&["queue", "seats", "wallet", "coupons", "idempotency", "users"]),
        _ => None,
    }
}

/// The Rust files of the service.
fn sources() -> Vec<(String, String)> {
    let sources: Vec<_> =
        files(&["src"]).into_iter().filter(|(path, _)| path.ends_with(".rs")).collect();
    assert!(sources.len() > 50);
    sources
}

/// As [`sources`], without unit tests.
fn service() -> Vec<(String, String)> {
    let is_test = |path: &str| path.ends_with("/tests.rs") || path.ends_with("_tests.rs");
    let cut =
        |text: String| text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned();
    sources()
        .into_iter()
        .filter(|(path, _)| !is_test(path))
        .map(|(path, text)| (path, cut(text)))
        .collect()
}

/// `src/seats/store.rs` belongs to `seats`, `src/cli.rs` to `cli`.
fn module(path: &str) -> &str {
    path.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default()
}

/// The top modules that a text imports by `crate::` or `usher::`.
fn imported_modules(text: &str) -> BTreeSet<String> {
    let word = |text: &str| {
        text.chars().take_while(|it| it.is_ascii_alphanumeric() || *it == '_').collect::<String>()
    };
    let mut named = BTreeSet::new();
    for (at, start) in text.match_indices("crate::").chain(text.match_indices("usher::")) {
        let rest = &text[at + start.len()..];
        match rest.strip_prefix('{') {
            None => drop(named.insert(word(rest))),
            Some(list) => {
                // The first words of a list such as `{mysql::{self, x}, queue}`.
                let (mut depth, mut head) = (0, true);
                for (place, it) in list.char_indices() {
                    match it {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => head = true,
                        _ if head && !it.is_whitespace() => {
                            named.insert(word(&list[place..]));
                            head = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    named
}

#[test]
fn import_lists_are_parsed() {
    let text = "use crate::{mysql::{self, pool}, queue, redis as r};\n\
                use crate::http::Json; usher::cli::x()";
    assert_eq!(
        imported_modules(text).into_iter().collect::<Vec<_>>(),
        ["cli", "http", "mysql", "queue", "redis"]
    );
}

#[test]
fn modules_import_only_lower_layers() {
    for (path, text) in sources() {
        let module = module(&path);
        let Some(allowed) = allowed_imports(module) else {
            panic!("{path}: tests/tidy/structure.rs does not list `{module}`")
        };
        for other in imported_modules(&text) {
            let fine = other == module
                || COMMON_MODULES.contains(&other.as_str())
                || allowed.contains(&other.as_str());
            // `crate::` alone in a macro or a visibility.
            let no_module = ["", "self"].contains(&other.as_str());
            assert!(fine || no_module, "{path}: `{module}` must not import `{other}`");
        }
    }
}

#[test]
fn only_stores_use_redis() {
    for (path, text) in sources() {
        let names =
            text.split(|it: char| !it.is_alphanumeric() && it != '_').any(|word| word == "fred");
        assert!(!names || path.starts_with("src/redis/"), "{path} uses fred");
        let calls = text.contains(".call(&scripts::") || text.contains("scripts::");
        let store = path.ends_with("store.rs") || path.starts_with("src/redis/");
        // Recovery restores the state of every domain with scripts of its module.
        let recovery = path.starts_with("src/recovery/");
        assert!(!calls || store || recovery, "{path}: only store.rs may call scripts");
    }
}

#[test]
fn sql_is_only_in_sql_files() {
    for (path, text) in service() {
        let place = path.ends_with("/sql.rs")
            || ["src/audit/", "src/outbox/", "src/mysql/", "src/recovery/", "src/app/"]
                .iter()
                .any(|dir| path.starts_with(dir));
        assert!(place || !text.contains("sqlx::query"), "{path} contains SQL");
    }
}

#[test]
fn only_the_top_layer_sees_the_whole_configuration() {
    for (path, text) in service() {
        let root = ["app", "cli", "config"].contains(&module(&path));
        assert!(root || !text.contains("config::UsherConfig"), "{path} uses UsherConfig");
    }
}

#[test]
fn domain_errors_know_no_http_and_rules_know_no_stores() {
    for (path, text) in service() {
        if path.ends_with("/error.rs") {
            assert!(!text.contains("StatusCode") && !text.contains("Problem"), "{path} knows HTTP");
        }
        if path.ends_with("/rules.rs") {
            for word in ["async ", "sqlx", "crate::redis", "crate::mysql", "StatusCode", "Problem"]
            {
                assert!(
                    !text.contains(word),
                    "{path}: rules must be pure and must not contain `{word}`"
                );
            }
        }
    }
}

#[test]
fn metric_names_are_defined_once() {
    for (path, text) in service() {
        assert!(
            path == "src/telemetry/metric.rs" || !text.contains("\"usher_"),
            "{path} contains a metric name"
        );
    }
}

#[test]
fn no_file_is_long() {
    let mut lengths = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= MAX_SOURCE_LINES, "{path} has {lines} lines");
        lengths.push(lines);
    }
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!(median <= MAX_MEDIAN_LINES, "the median file has {median} lines");
    for (path, text) in files(&["tests"]) {
        let lines = text.lines().count();
        assert!(lines <= MAX_TEST_LINES || !path.ends_with(".rs"), "{path} has {lines} lines");
    }
}

#[test]
fn every_file_has_module_docs() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{path} has no `//!` at its start");
    }
}

#[test]
fn no_file_has_todos_or_paths_of_a_machine() {
    // In two halves, because this file is checked, too.
    let undone = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|halves| halves.concat());
    let macros = ["dbg", "todo", "unimplemented"].map(|name| format!("{name}!("));
    let paths = ["root", "tmp", "work", "Users", "home"].map(|top| format!("/{top}/"));
    let mut looked_at = 0;
    let dirs = [
        "src",
        "tests",
        "lua",
        "migrations",
        "scripts",
        "deploy",
        "grafana",
        ".ci",
        "build.rs",
        "Cargo.toml",
        "Makefile",
        "Dockerfile",
        "docker-compose.yml",
        "deny.toml",
        "clippy.toml",
    ];
    for (path, text) in files(&dirs) {
        looked_at += 1;
        for line in text.lines() {
            for word in undone.iter().chain(&macros) {
                let whole = line
                    .split(|it: char| it.is_whitespace() || "/:;,\"".contains(it))
                    .any(|it| it.starts_with(word.as_str()));
                assert!(!whole, "{path}: {line}");
            }
            for place in &paths {
                // The directory of Homebrew on Linux is the same on every machine.
                let known = line.contains("/home/linuxbrew/")
                    || path == "Dockerfile"
                    || path == "docker-compose.yml";
                assert!(known || !line.contains(place.as_str()), "{path}: {line}");
            }
        }
    }
    assert!(looked_at > 100);
}

#[test]
fn alerts_name_metrics_that_exist() {
    let rules = fs::read_to_string(root().join("grafana/prometheus/alerts.yml")).unwrap();
    let words = rules.split(|it: char| !(it.is_ascii_alphanumeric() || it == '_'));
    let named: BTreeSet<&str> = words.filter(|word| word.starts_with("usher_")).collect();
    let known: BTreeSet<&str> =
        usher::telemetry::Metric::ALL.iter().map(|metric| metric.name()).collect();
    assert!(
        named.len() > 4 && named.is_subset(&known),
        "{:?}",
        named.difference(&known).collect::<Vec<_>>()
    );
}

#[test]
fn every_alert_has_a_runbook() {
    let rules = fs::read_to_string(root().join("grafana/prometheus/alerts.yml")).unwrap();
    let named = |line: &str| line.trim().strip_prefix("- alert: ").map(str::to_owned);
    let alerts: BTreeSet<String> = rules.lines().filter_map(named).collect();
    let book = fs::read_to_string(root().join("docs/operate.md")).unwrap();
    let headings: BTreeSet<String> = (book.lines())
        .filter_map(|line| line.strip_prefix("### Usher").map(|rest| format!("Usher{rest}")))
        .collect();
    assert!(alerts.len() > 4);
    assert_eq!(headings, alerts, "docs/operate.md has a heading for each alert, and for no other");
}
