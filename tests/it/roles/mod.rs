//! Authorization: every route of both listeners, called by every role.
//!
//! The table in `docs/security.md` is the result of this test. A documented route without a row
//! fails it, and so does a response other than the row's or a different table in the document;
//! `UPDATE_DOCS=1` writes the document. A role without permission also changes nothing, and learns
//! nothing about the user's objects.

mod fixture;
mod rows;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use fixture::{CallerRole, ROLES, RoleFixture};
use rows::RoleRow;

use crate::support::documents::documented_routes;

/// The markers around the table in the document.
const TABLE_MARKERS: [&str; 2] =
    ["<!-- roles: written by tests/it/roles -->\n", "<!-- /roles -->\n"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_answers_each_role_as_documented() {
    let fixture = Box::pin(RoleFixture::set()).await;
    let (mut wrong, mut table) = (Vec::new(), header());
    for row in rows::rows() {
        let mut line = format!("| `{} {}`{} |", row.method, row.template, row.note());
        for (role, expected) in ROLES.into_iter().zip(row.all_answers()) {
            let seen = match expected {
                "" => "–".to_owned(),
                _ => ask(&fixture, &row, role, &mut wrong).await,
            };
            if !expected.is_empty() && seen != expected {
                wrong.push(format!(
                    "{} {}{} by {role}: {seen}, not {expected}",
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
    assert!(wrong.is_empty(), "{} responses are wrong:\n{}", wrong.len(), wrong.join("\n"));
    compare(&table);
}

/// The request of one role, and the user's state before and after it.
async fn ask(
    fixture: &RoleFixture,
    row: &RoleRow,
    role: CallerRole,
    wrong: &mut Vec<String>,
) -> String {
    let case = fixture.case(row.needs).await;
    let before = fixture.user_state(&case).await;
    let answer = (row.call)(fixture, &case, role).send_head().await;
    let after = fixture.user_state(&case).await;
    let place = format!("{} {} by {role}", row.method, row.template);
    if !(role.speaks_for_the_user() || role.has_admin_key() && row.is_admins()) {
        if before != after {
            wrong.push(format!("{place} changed the user's state from {before:?} to {after:?}"));
        }
        for own in case.secrets() {
            if answer.text.contains(own) {
                wrong.push(format!("{place} discloses the user's data: {}", answer.text));
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
    let [begin, end] = TABLE_MARKERS
        .map(|mark| file.find(mark).expect("docs/security.md has the markers of the table"));
    let begin = begin + TABLE_MARKERS[0].len();
    if file[begin..end] == *table {
        return;
    }
    assert!(
        std::env::var_os("UPDATE_DOCS").is_some(),
        "docs/security.md has a different table; UPDATE_DOCS=1 writes this one:\n{table}"
    );
    std::fs::write(&path, format!("{}{table}{}", &file[..begin], &file[end..])).unwrap();
}

#[test]
fn every_documented_route_has_a_row() {
    let rows: BTreeSet<_> =
        rows::rows().iter().map(|row| (row.method.to_string(), row.template.to_owned())).collect();
    let routes = documented_routes();
    let bare: Vec<_> = routes.difference(&rows).collect();
    assert!(bare.is_empty(), "routes without a row: {bare:?}");
    let gone: Vec<_> = rows
        .difference(&routes)
        .filter(|(_, path)| !rows::UNDOCUMENTED.contains(&path.as_str()))
        .collect();
    assert!(gone.is_empty(), "rows of routes that are neither documented nor known: {gone:?}");
}
