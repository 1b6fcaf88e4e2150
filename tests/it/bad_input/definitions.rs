//! The routes that all definitions have in common: lists, patches, deletions and preconditions.

use reqwest::Method;
use serde_json::{Value, json};

use super::admin::keyless;
use super::cases::{BadInputCase, BadInputRow, admin_bodies, field, names};
use super::fixture::BadInputFixture;
use crate::support::api::ApiRequest;

/// A kind of definition with one that exists.
struct DefinitionKind {
    list: &'static str,
    one: &'static str,
    path: &'static str,
    /// A patch that changes nothing.
    patch: Value,
    put: Value,
}

fn kinds() -> [DefinitionKind; 4] {
    let concert = crate::support::world::concert_definition(50, 1_000);
    [
        DefinitionKind {
            list: "/admin/queues",
            one: "/admin/queues/{queue}",
            path: "/admin/queues/show",
            patch: json!({"claim_seconds": 60}),
            put: crate::support::world::fast_queue_settings(),
        },
        DefinitionKind {
            list: "/admin/concerts",
            one: "/admin/concerts/{concert}",
            path: "/admin/concerts/show",
            patch: json!({"title": "The show"}),
            put: concert,
        },
        DefinitionKind {
            list: "/admin/coupons",
            one: "/admin/coupons/{coupon}",
            path: "/admin/coupons/gift",
            patch: json!({"title": "Gift"}),
            put: crate::coupons::payments::coupon(100, 100),
        },
        DefinitionKind {
            list: "/admin/rewards",
            one: "/admin/rewards/{code}",
            path: "/admin/rewards/gift",
            patch: json!({"title": "Gift"}),
            put: super::fixture::reward(),
        },
    ]
}

pub(super) fn rows(fixture: &BadInputFixture) -> Vec<BadInputRow> {
    kinds().into_iter().flat_map(|kind| kind_rows(fixture, &kind)).collect()
}

fn kind_rows(fixture: &BadInputFixture, kind: &DefinitionKind) -> Vec<BadInputRow> {
    let (api, path) = (&fixture.api, kind.path);
    let call = |method: Method| api.admin_call(method, path);
    let named = |method: Method| {
        names("nowhere", |name| {
            let call = api.admin_call(method.clone(), &format!("{}/{name}", kind.list));
            if method == Method::PATCH { call.json(&kind.patch) } else { call }
        })
    };
    let queries = [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=ten", "limit"),
        ("limit=1&limit=1", "limit"),
        ("before=", "before"),
        ("before=a%20b", "before"),
        ("before=%00", "before"),
        ("after=1", "after"),
    ];
    let queries = queries.map(|(query, field)| {
        let call = api.admin_call(Method::GET, &format!("{}?{query}", kind.list));
        BadInputCase::invalid(query, call, field)
    });
    let patch = || call(Method::PATCH);
    let vendor = patch().raw("application/vnd.usher+json", kind.patch.to_string());
    let null = json!({"colour": null});
    let wrong = vec![json!([]), json!({"a": 1}), json!(true)];
    let name = kind.patch.as_object().unwrap().keys().next().unwrap();
    let patches = vec![
        keyless(fixture, Method::PATCH, path),
        named(Method::PATCH),
        admin_bodies(&kind.patch, patch),
        field(&kind.patch, &format!("/{name}"), name, wrong, patch),
        vec![
            BadInputCase::new("another JSON type", vendor, 415, "unsupported_media_type"),
            BadInputCase::invalid("an unknown field is null", patch().json(&null), "colour"),
        ],
        preconditions(|| patch().json(&kind.patch)),
    ];
    let deletions = vec![
        keyless(fixture, Method::DELETE, path),
        named(Method::DELETE),
        preconditions(|| call(Method::DELETE)),
    ];
    vec![
        BadInputRow::new(
            Method::GET,
            kind.list,
            vec![keyless(fixture, Method::GET, kind.list), queries.into()],
        ),
        BadInputRow::new(
            Method::GET,
            kind.one,
            vec![keyless(fixture, Method::GET, path), named(Method::GET)],
        ),
        BadInputRow::new(
            Method::PUT,
            kind.one,
            vec![preconditions(|| call(Method::PUT).json(&kind.put))],
        ),
        BadInputRow::new(Method::PATCH, kind.one, patches),
        BadInputRow::new(Method::DELETE, kind.one, deletions),
    ]
}

/// Preconditions of a change of a definition that exists.
fn preconditions(call: impl Fn() -> ApiRequest) -> Vec<BadInputCase> {
    let malformed =
        ["", "a", "\"a", "\"a\" \"b\"", "w/\"a\"", "*, \"a\""].into_iter().flat_map(|tag| {
            ["if-match", "if-none-match"].map(|header| {
                let what = format!("{header}: {tag}");
                BadInputCase::new(what, call().header(header, tag), 400, "malformed_request")
            })
        });
    let other = "\"00112233445566778899aabbccddeeff\"";
    let failed = [("if-match", other), ("if-match", "W/\"a\""), ("if-none-match", "*")];
    let failed = failed.map(|(header, tag)| {
        let what = format!("{header}: {tag}");
        BadInputCase::new(what, call().header(header, tag), 412, "precondition_failed")
    });
    malformed.chain(failed).collect()
}
