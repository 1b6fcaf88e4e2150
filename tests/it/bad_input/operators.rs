//! The routes of users, totals, dead letters and jobs.

use reqwest::Method;
use serde_json::json;

use super::admin::keyless;
use super::cases::{BadInputCase, BadInputRow, admin_bodies, field, ids, missing, names, pages};
use super::fixture::BadInputFixture;

pub(super) fn rows(fixture: &BadInputFixture) -> Vec<BadInputRow> {
    let api = &fixture.api;
    let get = |path: &str| api.admin_call(Method::GET, path);
    let long = format!("q={}", "x".repeat(129));
    let searches = [long.as_str(), "q=a%20b", "q=%00", "q=%EA%B0%80", "q=a&q=b"]
        .map(|query| BadInputCase::invalid(query, get(&format!("/admin/users?{query}")), "q"));
    let search_pages = [("limit=0", "limit"), ("before=", "before"), ("after=1", "after")];
    let search_pages = search_pages.map(|(query, field)| {
        BadInputCase::invalid(query, get(&format!("/admin/users?{query}")), field)
    });
    let user_ids = ["a%20b", "%00", "%ff", &"x".repeat(129)].map(|id| {
        let call = get(&format!("/admin/users/{id}"));
        BadInputCase::new(format!("the id {id:.20}"), call, 404, "not_found")
    });
    let letters = ["1-1", "1", "x", "01-1", "70000-1", "%00"].map(|id| {
        let call = api.admin_call(Method::POST, &format!("/admin/dead-letters/{id}/retry"));
        BadInputCase::new(format!("the id {id}"), call, 404, "not_found")
    });
    // A valid cursor, but of an installation that was made a millisecond after 1970 began.
    let foreign = ["after=AQEBAAA", "after=x", "after=", "after=AQ"];
    let event_queries = [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("before=x", "before"),
        ("types=", "types"),
        ("types=payment.lost", "types"),
        ("types=payment.confirmed,", "types"),
        ("wait_seconds=31", "wait_seconds"),
        ("wait_seconds=-1", "wait_seconds"),
        ("wait_seconds=1.5", "wait_seconds"),
    ]
    .into_iter()
    .chain(foreign.map(|query| (query, "after")))
    .map(|(query, field)| {
        BadInputCase::invalid(query, get(&format!("/admin/events?{query}")), field)
    });
    let event_queries: Vec<_> = event_queries.collect();
    let cancel = |schedule: &str| {
        api.admin_call(Method::POST, &format!("/admin/schedules/{schedule}/cancel"))
    };
    let good = json!({"reason": "The artist is ill."});
    let reasons =
        vec![json!(""), json!("x".repeat(501)), json!("a\nb"), json!(5), json!(null), json!([])];
    vec![
        BadInputRow::new(
            Method::GET,
            "/admin/users",
            vec![
                keyless(fixture, Method::GET, "/admin/users"),
                searches.into(),
                search_pages.into(),
            ],
        ),
        BadInputRow::new(
            Method::GET,
            "/admin/users/{user}",
            vec![keyless(fixture, Method::GET, "/admin/users/x"), user_ids.into()],
        ),
        BadInputRow::new(
            Method::GET,
            "/admin/stats",
            vec![keyless(fixture, Method::GET, "/admin/stats")],
        ),
        BadInputRow::new(
            Method::GET,
            "/admin/dead-letters",
            vec![
                keyless(fixture, Method::GET, "/admin/dead-letters"),
                pages(|query| get(&format!("/admin/dead-letters{query}"))),
            ],
        ),
        BadInputRow::new(
            Method::GET,
            "/admin/events",
            vec![keyless(fixture, Method::GET, "/admin/events"), event_queries],
        ),
        BadInputRow::new(
            Method::POST,
            "/admin/dead-letters/{id}/retry",
            vec![keyless(fixture, Method::POST, "/admin/dead-letters/1-1/retry"), letters.into()],
        ),
        BadInputRow::new(
            Method::POST,
            "/admin/schedules/{schedule}/cancel",
            vec![
                keyless(fixture, Method::POST, "/admin/schedules/night/cancel"),
                names("nowhere", |name| cancel(name).json(&good)),
                admin_bodies(&good, || cancel("night")),
                missing(&good, "/reason", "reason", || cancel("night")),
                field(&good, "/reason", "reason", reasons, || cancel("night")),
            ],
        ),
        BadInputRow::new(
            Method::GET,
            "/admin/jobs",
            vec![
                keyless(fixture, Method::GET, "/admin/jobs"),
                pages(|query| get(&format!("/admin/jobs{query}"))),
            ],
        ),
        BadInputRow::new(
            Method::GET,
            "/admin/jobs/{id}",
            vec![
                keyless(fixture, Method::GET, "/admin/jobs/1"),
                ids(|id| get(&format!("/admin/jobs/{id}"))),
            ],
        ),
    ]
}
