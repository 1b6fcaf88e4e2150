//! The pages in `docs/reference`, generated from the command line, the list of metrics and the
//! OpenAPI documents.
//!
//! A page that differs fails its test, which prints the expected page; `UPDATE_DOCS=1` writes it.

mod api;
mod metrics;
mod settings;

use std::path::Path;

/// The first line of every page.
const GENERATED_BY: &str = "<!-- Made by tests/it/reference from the code; UPDATE_DOCS=1 cargo test --test it reference writes it anew. -->\n";

#[test]
fn settings_reference_matches_the_command_line() {
    compare("settings.md", &settings::page());
}

#[test]
fn metrics_reference_matches_the_metric_list() {
    compare("metrics.md", &metrics::page());
}

#[test]
fn api_reference_matches_the_openapi_documents() {
    compare("api.md", &api::page());
}

fn compare(name: &str, body: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference").join(name);
    let (title, rest) = body.split_once('\n').unwrap();
    let page = format!("{title}\n\n{GENERATED_BY}{rest}");
    if std::fs::read_to_string(&path).is_ok_and(|there| there == page) {
        return;
    }
    assert!(
        std::env::var_os("UPDATE_DOCS").is_some(),
        "docs/reference/{name} is outdated; UPDATE_DOCS=1 writes this:\n{page}"
    );
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, page).unwrap();
}

/// A text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
