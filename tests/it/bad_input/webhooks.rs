//! The routes of webhooks.

use reqwest::Method;
use serde_json::{Value, json};

use super::admin::keyless;
use super::cases::{BadInputRow, admin_bodies, field, missing, names, new_names, pages};
use super::fixture::BadInputFixture;

pub(super) fn rows(fixture: &BadInputFixture) -> Vec<BadInputRow> {
    let api = &fixture.api;
    let get = |path: &str| api.admin_call(Method::GET, path);
    let put = |id: &str| api.admin_call(Method::PUT, &format!("/admin/webhooks/{id}"));
    let of = |method: Method, id: &str, more: &str| {
        api.admin_call(method, &format!("/admin/webhooks/{id}{more}"))
    };
    let good = json!({"url": "https://8.8.8.8/hook", "types": ["wallet.charged"],
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"});
    let urls = [
        "ftp://example.com/",
        "https://user:password@example.com/",
        "https://example.com/#fragment",
        "/hook",
        "",
        "http://127.0.0.1:1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://[::ffff:127.0.0.1]/",
        "http://[fd00::1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://localhost/",
    ];
    let mut urls: Vec<Value> = urls.map(Value::from).into();
    urls.extend([json!(null), json!(5), json!("x".repeat(3_000))]);
    let secrets = ["", "secret", "whsec_", "whsec_c2hvcnQ=", "whsk_c2hvcnQ=", "whpk_c2hvcnQ="]
        .map(Value::from);
    let cursors = [json!(""), json!("x"), json!("AQEBAAA"), json!(5)];
    let replay = json!({"after": fixture.event_cursor});
    let replays = || of(Method::POST, "books", "/replay");
    vec![
        BadInputRow::new(
            Method::GET,
            "/admin/webhooks",
            vec![keyless(fixture, Method::GET, "/admin/webhooks")],
        ),
        BadInputRow::new(
            Method::PUT,
            "/admin/webhooks/{id}",
            vec![
                keyless(fixture, Method::PUT, "/admin/webhooks/books"),
                admin_bodies(&good, || put("books")),
                new_names("id", |id| put(id).json(&good)),
                missing(&good, "/url", "url", || put("books")),
                missing(&good, "/types", "types", || put("books")),
                field(&good, "/url", "url", urls, || put("books")),
                field(&good, "/types", "types", vec![json!([]), json!("all"), json!(null)], || {
                    put("books")
                }),
                field(&good, "/types/0", "types[0]", vec![json!("payment.lost"), json!(5)], || {
                    put("books")
                }),
                field(&good, "/active", "active", vec![json!("yes"), json!(1)], || put("books")),
                field(&good, "/secret", "secret", secrets.into(), || put("books")),
                field(&good, "/after", "after", cursors.to_vec(), || put("books")),
            ],
        ),
        BadInputRow::new(
            Method::GET,
            "/admin/webhooks/{id}",
            vec![
                keyless(fixture, Method::GET, "/admin/webhooks/books"),
                names("nowhere", |id| of(Method::GET, id, "")),
            ],
        ),
        BadInputRow::new(
            Method::DELETE,
            "/admin/webhooks/{id}",
            vec![
                keyless(fixture, Method::DELETE, "/admin/webhooks/books"),
                names("nowhere", |id| of(Method::DELETE, id, "")),
            ],
        ),
        BadInputRow::new(
            Method::GET,
            "/admin/webhooks/{id}/deliveries",
            vec![
                keyless(fixture, Method::GET, "/admin/webhooks/books/deliveries"),
                names("nowhere", |id| of(Method::GET, id, "/deliveries")),
                pages(|query| get(&format!("/admin/webhooks/books/deliveries{query}"))),
            ],
        ),
        BadInputRow::new(
            Method::POST,
            "/admin/webhooks/{id}/rotate",
            vec![
                keyless(fixture, Method::POST, "/admin/webhooks/books/rotate"),
                names("nowhere", |id| of(Method::POST, id, "/rotate")),
            ],
        ),
        BadInputRow::new(
            Method::POST,
            "/admin/webhooks/{id}/replay",
            vec![
                keyless(fixture, Method::POST, "/admin/webhooks/books/replay"),
                names("nowhere", |id| of(Method::POST, id, "/replay").json(&replay)),
                admin_bodies(&replay, replays),
                missing(&replay, "/after", "after", replays),
                field(&replay, "/after", "after", cursors.to_vec(), replays),
            ],
        ),
        BadInputRow::new(
            Method::POST,
            "/admin/webhooks/{id}/test",
            vec![
                keyless(fixture, Method::POST, "/admin/webhooks/books/test"),
                names("nowhere", |id| of(Method::POST, id, "/test")),
            ],
        ),
    ]
}
