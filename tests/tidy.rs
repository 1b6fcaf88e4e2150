//! Keeps the walls of the house: who may import whom, who may speak to which store, and what no file may have.
//!
//! `main → cli → app → rooms → {redis, mysql, outbox, telemetry, http} → {ids, money, partition, time}`

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The longest file of the service, and of its tests, in lines.
const LONGEST: usize = 400;
const LONGEST_TEST: usize = 600;

/// Small types that everybody may name.
const EVERYBODYS: [&str; 4] = ["ids", "money", "partition", "time"];
/// What every room stands on.
const FLOOR: [&str; 7] = ["redis", "mysql", "store_error", "outbox", "telemetry", "http", "edge"];

/// Which of the other top modules a module may name, beside everybody's; `None` for one that this test has not heard of.
fn may_name(module: &str) -> Option<Vec<&'static str>> {
    let floor_and = |rooms: &[&'static str]| Some([&FLOOR, rooms].concat());
    match module {
        "lib" | "failpoint" | "shutdown" | "telemetry" | "dev" | "ids" | "money" | "partition"
        | "time" | "tls" | "web" => Some(vec![]),
        "main" => Some(vec!["cli"]),
        "cli" => Some(vec!["app", "config", "failpoint", "redis", "telemetry", "top"]),
        // Knows the metrics' names, and an instance only from outside.
        "top" => Some(vec!["telemetry"]),
        "app" => floor_and(&[
            "audit",
            "catalogue",
            "config",
            "coupons",
            "dev",
            "failpoint",
            "idempotency",
            "payment",
            "queue",
            "recovery",
            "rewards",
            "seats",
            "shutdown",
            "tls",
            "top",
            "wallet",
            "web",
        ]),
        "config" => Some(vec!["dev", "edge", "http", "redis", "shutdown", "top"]),
        // Reads what every room reads.
        "fuzz_tests" => {
            floor_and(&["catalogue", "coupons", "payment", "queue", "rewards", "seats", "wallet"])
        }
        // The kit knows no room: of the stores only how their failures are told.
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
        "idempotency" | "queue" => floor_and(&[]),
        "catalogue" => floor_and(&["queue"]),
        "seats" => floor_and(&["catalogue", "queue"]),
        "wallet" | "coupons" => floor_and(&["idempotency"]),
        "rewards" => floor_and(&["wallet"]),
        "payment" => floor_and(&["queue", "seats", "wallet", "coupons", "idempotency"]),
        _ => None,
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below some directories, as its path from the root and its text. Those that are no text are left out, and what npm and pip bring.
fn files(dirs: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = dirs.iter().map(|dir| root().join(dir)).collect();
    while let Some(path) = open.pop() {
        if ["node_modules", ".venv"].iter().any(|brought| path.ends_with(brought)) {
            continue;
        }
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if let Ok(text) = fs::read_to_string(&path) {
            found.push((path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(), text));
        }
    }
    found.sort();
    found
}

/// The service's own Rust files.
fn sources() -> Vec<(String, String)> {
    let sources: Vec<_> =
        files(&["src"]).into_iter().filter(|(path, _)| path.ends_with(".rs")).collect();
    assert!(sources.len() > 50);
    sources
}

/// The same without their unit tests.
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

/// The top modules that a text names by `crate::`.
fn named(text: &str) -> BTreeSet<String> {
    let word = |text: &str| {
        text.chars().take_while(|it| it.is_ascii_alphanumeric() || *it == '_').collect::<String>()
    };
    let mut named = BTreeSet::new();
    for (at, start) in text.match_indices("crate::").chain(text.match_indices("usher::")) {
        let rest = &text[at + start.len()..];
        match rest.strip_prefix('{') {
            None => drop(named.insert(word(rest))),
            Some(list) => {
                // The heads of a list such as `{mysql::{self, x}, queue}`.
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
fn lists_of_imports_are_read() {
    let text = "use crate::{mysql::{self, pool}, queue, redis as r};\nuse crate::http::Json; usher::cli::x()";
    assert_eq!(
        named(text).into_iter().collect::<Vec<_>>(),
        ["cli", "http", "mysql", "queue", "redis"]
    );
}

#[test]
fn arrows_run_one_way() {
    for (path, text) in sources() {
        let module = module(&path);
        let Some(allowed) = may_name(module) else {
            panic!("{path}: tests/tidy.rs does not know what `{module}` may name")
        };
        for other in named(&text) {
            let fine = other == module
                || EVERYBODYS.contains(&other.as_str())
                || allowed.contains(&other.as_str());
            // The library's own lines in the binary, and what a macro or a visibility names.
            let no_module = ["", "self"].contains(&other.as_str());
            assert!(fine || no_module, "{path}: `{module}` must not name `{other}`");
        }
    }
}

#[test]
fn one_room_speaks_to_redis() {
    for (path, text) in sources() {
        let names =
            text.split(|it: char| !it.is_alphanumeric() && it != '_').any(|word| word == "fred");
        assert!(!names || path.starts_with("src/redis/"), "{path} names fred");
        let calls = text.contains(".call(&scripts::") || text.contains("scripts::");
        let store = path.ends_with("store.rs") || path.starts_with("src/redis/");
        // Each file of recovery lays one room's state by the scripts that are there for nothing else.
        let recovery = path.starts_with("src/recovery/");
        assert!(!calls || store || recovery, "{path}: scripts are called in store.rs");
    }
}

#[test]
fn sql_stands_where_it_belongs() {
    for (path, text) in service() {
        let place = path.ends_with("/sql.rs")
            || ["src/audit/", "src/outbox/", "src/mysql/", "src/recovery/", "src/app/"]
                .iter()
                .any(|dir| path.starts_with(dir));
        assert!(place || !text.contains("sqlx::query"), "{path} holds SQL");
    }
}

#[test]
fn only_the_root_sees_the_whole_configuration() {
    for (path, text) in service() {
        let root = ["app", "cli", "config"].contains(&module(&path));
        assert!(root || !text.contains("config::Config"), "{path} names Config");
    }
}

#[test]
fn domain_errors_know_no_http_and_rules_no_stores() {
    for (path, text) in service() {
        if path.ends_with("/error.rs") {
            assert!(!text.contains("StatusCode") && !text.contains("Problem"), "{path} knows HTTP");
        }
        if path.ends_with("/rules.rs") {
            for word in ["async ", "sqlx", "crate::redis", "crate::mysql", "StatusCode", "Problem"]
            {
                assert!(!text.contains(word), "{path}: rules are pure, and this has «{word}»");
            }
        }
    }
}

#[test]
fn metric_names_are_spelled_once() {
    for (path, text) in service() {
        assert!(
            path == "src/telemetry/metric.rs" || !text.contains("\"usher_"),
            "{path} spells a metric's name"
        );
    }
}

#[test]
fn no_file_is_long() {
    let mut lengths = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LONGEST, "{path} has {lines} lines");
        lengths.push(lines);
    }
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!(median <= 150, "the median file has {median} lines");
    for (path, text) in files(&["tests"]) {
        let lines = text.lines().count();
        assert!(lines <= LONGEST_TEST || !path.ends_with(".rs"), "{path} has {lines} lines");
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for (path, text) in sources() {
        // The documentation of a module of tests may stand where it is included.
        assert!(text.starts_with("//!"), "{path} opens without `//!`");
    }
}

#[test]
fn nothing_is_left_undone_and_nothing_names_a_machine() {
    // In two halves, so that this file passes.
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
                // Homebrew's own place on Linux is the same on every machine.
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

/// Who is paged at night looks for the alert's name.
#[test]
fn every_alert_has_its_place_in_the_operators_book() {
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
