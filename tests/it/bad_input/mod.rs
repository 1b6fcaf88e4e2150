//! Bad input: for every route and every field of both listeners, which requests are refused, with
//! which problem, and that they change nothing.
//!
//! A documented route without a row here fails `every_route_has_bad_input_cases`.

mod admin;
mod cases;
mod definitions;
mod external;
mod fixture;
mod money;
mod operators;
mod promotions;
mod public;
mod unexpected_bodies;
mod webhooks;

use std::collections::BTreeSet;

use cases::{BadInputCase, BadInputRow};
use fixture::BadInputFixture;

use crate::support::documents::documented_routes;

fn rows(fixture: &BadInputFixture) -> Vec<BadInputRow> {
    let mut rows = public::rows(fixture);
    rows.extend(money::rows(fixture));
    rows.extend(external::rows(fixture));
    rows.extend(admin::rows(fixture));
    rows.extend(promotions::rows(fixture));
    rows.extend(definitions::rows(fixture));
    rows.extend(operators::rows(fixture));
    rows.extend(webhooks::rows(fixture));
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_requests_are_refused_and_change_nothing() {
    let fixture = BadInputFixture::set().await;
    let mut failures = Vec::new();
    let mut before = fixture.state().await;
    for row in rows(&fixture) {
        assert!(!row.cases.is_empty(), "{} {} has no case", row.method, row.template);
        let place = format!("{} {}", row.method, row.template);
        // The gate accepts every method.
        let accepts_all = row.template.contains("/gate");
        let wrong_method = (!accepts_all).then(|| fixture.wrong_method(&row));
        for case in row.cases.into_iter().chain(wrong_method) {
            if let Err(wrong) = check(case).await {
                failures.push(format!("{place}: {wrong}"));
            }
        }
        let after = fixture.state().await;
        if before != after {
            for (key, value) in &after {
                if before.get(key) != Some(value) {
                    failures.push(format!(
                        "{place} changed {key} from {:?} to {value}",
                        before.get(key)
                    ));
                }
            }
            for key in before.keys().filter(|key| !after.contains_key(*key)) {
                failures.push(format!("{place} removed {key}"));
            }
            before = after;
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

async fn check(case: BadInputCase) -> Result<(), String> {
    let BadInputCase { what, call, status, code, field, headers } = case;
    let answer = call.send().await;
    let seen = format!("{what}: {} {} {:?}", answer.status, answer.text, answer.headers);
    let body = answer.as_problem(status, code).map_err(|wrong| format!("{wrong}; {seen}"))?;
    if let Some(field) = field {
        let errors = body["errors"].as_array().cloned().unwrap_or_default();
        if !errors
            .iter()
            .any(|error| error["field"] == field && error["message"].as_str() != Some(""))
        {
            return Err(format!("expected an error of the field {field:?}, got {seen}"));
        }
    }
    match headers.iter().find(|header| answer.header(header).is_none()) {
        Some(header) => Err(format!("expected the header {header}, got {seen}")),
        None => Ok(()),
    }
}

#[tokio::test]
async fn every_route_has_bad_input_cases() {
    let fixture = BadInputFixture::set().await;
    let rows: BTreeSet<_> = rows(&fixture)
        .iter()
        .map(|row| (row.method.to_string(), row.template.to_owned()))
        .collect();
    let routes = documented_routes();
    let bare: Vec<_> = routes.difference(&rows).collect();
    assert!(bare.is_empty(), "routes without a row of bad input: {bare:?}");
    let gone: Vec<_> = rows.difference(&routes).collect();
    assert!(gone.is_empty(), "rows of routes that are not in the documents: {gone:?}");
}
