//! The pages below `docs/reference`, made from the code's own tables: the command line's grammar, the list of metrics, the OpenAPI documents.
//!
//! A page that says something else fails its test, which prints the page as it should be; `UPDATE_DOCS=1` writes it.

mod api;
mod metrics;
mod settings;

use std::path::Path;

/// What stands first on every page.
const MADE_BY: &str = "<!-- Made by tests/it/reference from the code; UPDATE_DOCS=1 cargo test --test it reference writes it anew. -->\n";

#[test]
fn settings_are_as_the_command_line_has_them() {
    compare("settings.md", &settings::page());
}

#[test]
fn metrics_are_as_the_list_has_them() {
    compare("metrics.md", &metrics::page());
}

#[test]
fn the_api_is_as_the_documents_have_it() {
    compare("api.md", &api::page());
}

fn compare(name: &str, body: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference").join(name);
    let (title, rest) = body.split_once('\n').unwrap();
    let page = format!("{title}\n\n{MADE_BY}{rest}");
    if std::fs::read_to_string(&path).is_ok_and(|there| there == page) {
        return;
    }
    assert!(
        std::env::var_os("UPDATE_DOCS").is_some(),
        "docs/reference/{name} tells something else; UPDATE_DOCS=1 writes this:\n{page}"
    );
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, page).unwrap();
}

/// A text within a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
