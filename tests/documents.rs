//! Holds the documents against what they speak of: tests that are named exist, dependencies that are there have their reason.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_test_that_security_names_exists() {
    let page = text("docs/security.md");
    let named: Vec<_> = page.split('`').filter_map(|word| word.split_once(".rs: ")).collect();
    assert!(named.len() > 30, "{named:?}");
    for (file, test) in named {
        let path = if file.starts_with("src/") {
            format!("{file}.rs")
        } else {
            format!("tests/{file}.rs")
        };
        assert!(text(&path).contains(&format!("fn {test}(")), "{path} has no {test}");
    }
    for risk in 1..=10 {
        assert!(page.contains(&format!("| API{risk} ")), "API{risk} is missing");
    }
}

/// The names below the headings of a manifest that list dependencies; a member of the workspace is none.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let (mut listing, mut names) = (false, BTreeSet::new());
    for line in manifest.lines() {
        if line.starts_with('[') {
            listing = line.ends_with("dependencies]");
        } else if let Some((name, rest)) = line.split_once('=')
            && listing
            && !rest.contains("path = ")
            && !line.starts_with('#')
        {
            names.insert(name.trim().to_owned());
        }
    }
    names
}

#[test]
fn every_dependency_has_its_reason() {
    let manifests = ["Cargo.toml", "loadtest/rush/Cargo.toml", "loadtest/strategies/Cargo.toml"];
    let needed: BTreeSet<_> = manifests.iter().flat_map(|path| dependencies(&text(path))).collect();
    let page = text("docs/dependencies.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let listed: BTreeSet<_> =
        rows.filter(|(_, reason)| reason.len() > 4).map(|(name, _)| name.to_owned()).collect();
    assert!(needed.len() > 40, "{needed:?}");
    assert_eq!(
        needed.difference(&listed).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "have no reason"
    );
    assert_eq!(
        listed.difference(&needed).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "are not needed"
    );
}

#[test]
fn no_crate_may_have_unsafe_code() {
    assert!(text("Cargo.toml").contains("[workspace.lints.rust]\nunsafe_code = \"forbid\""));
    for manifest in ["Cargo.toml", "loadtest/rush/Cargo.toml", "loadtest/strategies/Cargo.toml"] {
        assert!(text(manifest).contains("[lints]\nworkspace = true"), "{manifest}");
    }
}
