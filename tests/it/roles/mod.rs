//! Who may do what: every route of both listeners, asked by everybody.
//!
//! The table in `docs/security.md` is what this test sees. A documented route without a row fails it, as does an answer other than the row's, and a file
//! that says something else; `UPDATE_DOCS=1` writes the file anew. Whoever may not do something also changes nothing by trying, and is told nothing of
//! what belongs to the user whose things are asked for.

mod rows;
mod stage;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use rows::Row;
use stage::{ROLES, Role, Stage};

use crate::support::documents::documented_routes;

/// Between these lines of the file the table stands.
const MARKS: [&str; 2] = ["<!-- roles: written by tests/it/roles -->\n", "<!-- /roles -->\n"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_answers_everybody_as_the_table_says() {
    let stage = Box::pin(Stage::set()).await;
    let (mut wrong, mut table) = (Vec::new(), header());
    for row in rows::rows() {
        let mut line = format!("| `{} {}`{} |", row.method, row.template, row.note());
        for (role, expected) in ROLES.into_iter().zip(row.answers) {
            let seen = match expected {
                "" => "–".to_owned(),
                _ => ask(&stage, &row, role, &mut wrong).await,
            };
            if !expected.is_empty() && seen != expected {
                wrong.push(format!(
                    "{} {}{} asked by {role}: {seen}, not {expected}",
                    row.method,
                    row.template,
                    row.note()
                ));
            }
            write!(line, " {seen} |").unwrap();
        }
        table.push_str(&line);
        table.push('\n');
    }
    assert!(wrong.is_empty(), "{} answers are wrong:\n{}", wrong.len(), wrong.join("\n"));
    compare(&table);
}

/// One caller's request, with what the user had before and after it.
async fn ask(stage: &Stage, row: &Row, role: Role, wrong: &mut Vec<String>) -> String {
    let case = stage.case(row.needs).await;
    let before = stage.picture(&case).await;
    let answer = (row.call)(stage, &case, role).send_head().await;
    let after = stage.picture(&case).await;
    let place = format!("{} {} asked by {role}", row.method, row.template);
    if !(role.speaks_for_the_user() || role == Role::Admin && row.is_admins()) {
        if before != after {
            wrong.push(format!("{place} changed what the user has from {before:?} to {after:?}"));
        }
        for own in case.secrets() {
            if answer.text.contains(own) {
                wrong.push(format!("{place} is told what is the user's: {}", answer.text));
            }
        }
    }
    // A reward has a code, too.
    let code = answer.body["code"].as_str().filter(|_| answer.status >= 400);
    let code = code.map_or_else(String::new, |code| format!(" `{code}`"));
    format!("{}{code}", answer.status)
}

fn header() -> String {
    let names = ROLES.map(|role| role.to_string()).join(" | ");
    format!("| route | {names} |\n|:--|{}\n", ":--|".repeat(ROLES.len()))
}

fn compare(table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md");
    let file = std::fs::read_to_string(&path).unwrap();
    let [begin, end] =
        MARKS.map(|mark| file.find(mark).expect("docs/security.md has the marks of the table"));
    let begin = begin + MARKS[0].len();
    if file[begin..end] == *table {
        return;
    }
    assert!(
        std::env::var_os("UPDATE_DOCS").is_some(),
        "docs/security.md tells another table; UPDATE_DOCS=1 writes this one:\n{table}"
    );
    std::fs::write(&path, format!("{}{table}{}", &file[..begin], &file[end..])).unwrap();
}

#[test]
fn every_documented_route_has_a_row() {
    let rows: BTreeSet<_> =
        rows::rows().iter().map(|row| (row.method.to_string(), row.template.to_owned())).collect();
    let routes = documented_routes();
    let bare: Vec<_> = routes.difference(&rows).collect();
    assert!(bare.is_empty(), "routes of which nobody says who may call them: {bare:?}");
    let gone: Vec<_> = rows
        .difference(&routes)
        .filter(|(_, path)| !rows::UNDOCUMENTED.contains(&path.as_str()))
        .collect();
    assert!(gone.is_empty(), "rows of routes that are neither documented nor known: {gone:?}");
}
