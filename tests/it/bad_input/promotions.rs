//! Coupons and rewards, on both listeners.

use reqwest::Method;
use serde_json::{Value, json};

use super::admin::keyless;
use super::cases::{
    BadInputCase, BadInputRow, admin_bodies, field, identities, missing, names, new_names,
};
use super::fixture::BadInputFixture;
use crate::support::api::ApiRequest;

pub(super) fn rows(fixture: &BadInputFixture) -> Vec<BadInputRow> {
    let mut rows = public(fixture);
    rows.extend([
        coupon(fixture),
        reward(fixture),
        facts(fixture, Method::PUT),
        facts(fixture, Method::PATCH),
    ]);
    rows.extend(lists(fixture));
    rows
}

/// Invalid pages. `call` takes the query.
fn pages(call: impl Fn(&str) -> ApiRequest) -> Vec<BadInputCase> {
    [
        ("?limit=0", "limit"),
        ("?limit=501", "limit"),
        ("?limit=-1", "limit"),
        ("?limit=1e2", "limit"),
        ("?limit=", "limit"),
        ("?limit=1&limit=2", "limit"),
        ("?before=x", "before"),
        ("?before=1", "before"),
        ("?before=-1-00000000000040008000000000000001", "before"),
        ("?colour=red", "colour"),
    ]
    .map(|(query, field)| BadInputCase::invalid(query, call(query), field))
    .into()
}

fn public(fixture: &BadInputFixture) -> Vec<BadInputRow> {
    let (api, alice) = (&fixture.api, fixture.alice.user.as_str());
    let mut rows = Vec::new();
    for (template, collection) in
        [("/v1/coupons/{coupon}", "coupons"), ("/v1/rewards/{code}", "rewards")]
    {
        let unknown = names("nowhere", |name| api.get(&format!("/v1/{collection}/{name}")));
        rows.push(BadInputRow::new(Method::GET, template, vec![unknown]));
    }
    for (template, collection, what) in [
        ("/v1/coupons/{coupon}/issues", "coupons", "issues"),
        ("/v1/rewards/{code}/claims", "rewards", "claims"),
    ] {
        let ask = |name: &str| api.post(&format!("/v1/{collection}/{name}/{what}"));
        let unknown = names("nowhere", |name| ask(name).user(alice));
        rows.push(BadInputRow::new(
            Method::POST,
            template,
            vec![identities(|| ask("spring")), unknown],
        ));
    }
    let mine = |query: &str| api.get(&format!("/v1/coupons/issues/mine{query}"));
    let cases = vec![identities(|| mine("")), pages(|query| mine(query).user(alice))];
    rows.push(BadInputRow::new(Method::GET, "/v1/coupons/issues/mine", cases));

    let mine = |code: &str, query: &str| api.get(&format!("/v1/rewards/{code}/claims/mine{query}"));
    let cases = vec![
        identities(|| mine("x", "")),
        names("nowhere", |code| mine(code, "").user(alice)),
        pages(|query| mine("x", query).user(alice)),
    ];
    rows.push(BadInputRow::new(Method::GET, "/v1/rewards/{code}/claims/mine", cases));
    rows
}

const STARTS: &str = "2026-01-01T00:00:00Z";

fn moments() -> Vec<Value> {
    vec![
        json!("soon"),
        json!(""),
        json!(5),
        json!(null),
        json!("2026-01-01"),
        json!("2026-13-01T00:00:00Z"),
        json!("1969-12-31T23:59:59Z"),
        json!("+10000-01-01T00:00:00Z"),
    ]
}

fn titles() -> Vec<Value> {
    vec![
        json!(""),
        json!("x".repeat(256)),
        json!("a\u{0}b"),
        json!("a\nb"),
        json!(5),
        json!(null),
        json!([]),
    ]
}

/// Values that are not a positive amount of money.
fn amounts() -> Vec<Value> {
    vec![
        json!(0),
        json!(-1),
        json!(1.5),
        json!("5"),
        json!(9_007_199_254_740_992_i64),
        json!("#9223372036854775808"),
        json!("#1e2"),
        json!([]),
        json!(null),
    ]
}

fn coupon(fixture: &BadInputFixture) -> BadInputRow {
    let api = &fixture.api;
    let path = "/admin/coupons/spring";
    let call = || api.admin_call(Method::PUT, path);
    let good = json!({"title": "Spring", "total_quantity": 500, "discount_amount": 2_000,
        "min_available_amount": 0,
        "issue_starts_at": STARTS, "issue_ends_at": "2100-01-01T00:00:00Z"});
    let mut groups = vec![
        keyless(fixture, Method::PUT, path),
        new_names("coupon", |name| {
            api.admin_call(Method::PUT, &format!("/admin/coupons/{name}")).json(&good)
        }),
        admin_bodies(&good, call),
        field(&good, "/title", "title", titles(), call),
        field(&good, "/discount_amount", "discount_amount", amounts(), call),
        field(&good, "/min_available_amount", "min_available_amount", amounts().split_off(1), call),
        field(&good, "/issue_starts_at", "issue_starts_at", moments(), call),
        field(&good, "/issue_ends_at", "issue_ends_at", moments(), call),
        field(&good, "/issue_ends_at", "issue_ends_at", vec![json!(STARTS)], call),
        field(&good, "/type", "type", vec![json!("lottery"), json!("")], call),
        field(&good, "/id", "id", vec![json!("summer"), json!("a b"), json!(5)], call),
        field(&good, "/issued_quantity", "issued_quantity", vec![json!(5)], call),
        field(&good, "/status", "status", vec![json!("open")], call),
    ];
    let mut quantities = amounts();
    quantities.pop();
    quantities.push(json!(1_000_000_001));
    groups.push(field(&good, "/total_quantity", "total_quantity", quantities, call));
    groups.push(field(&good, "/discount_kind", "discount_kind", vec![json!("x"), json!(5)], call));
    for name in ["discount_percent", "discount_limit"] {
        groups.push(field(&good, &format!("/{name}"), name, vec![json!(5)], call));
    }
    let mut seconds = amounts();
    seconds.pop();
    seconds.push(json!(315_360_001));
    groups.push(field(&good, "/valid_seconds", "valid_seconds", seconds, call));
    let mut times = moments();
    times.retain(|time| !time.is_null());
    groups.push(field(&good, "/valid_until", "valid_until", times, call));
    groups.push(field(&good, "/valid_until", "valid_until", vec![json!(STARTS)], call));
    let mut share = good.clone();
    share["discount_kind"] = json!("percent");
    share["discount_amount"] = json!(null);
    share["discount_percent"] = json!(15);
    let mut percents = amounts();
    percents.push(json!(101));
    groups.push(field(&share, "/discount_percent", "discount_percent", percents, call));
    groups.push(missing(&share, "/discount_percent", "discount_percent", call));
    let mut limits = amounts();
    limits.pop();
    groups.push(field(&share, "/discount_limit", "discount_limit", limits, call));
    groups.push(field(&share, "/discount_amount", "discount_amount", vec![json!(5)], call));
    for name in ["title", "discount_amount", "issue_starts_at", "issue_ends_at"] {
        groups.push(missing(&good, &format!("/{name}"), name, call));
    }
    BadInputRow::new(Method::PUT, "/admin/coupons/{coupon}", groups)
}

fn reward(fixture: &BadInputFixture) -> BadInputRow {
    let api = &fixture.api;
    let path = "/admin/rewards/hello";
    let call = || api.admin_call(Method::PUT, path);
    let good = json!({"title": "Hello", "starts_at": STARTS, "ends_at": "2100-01-01T00:00:00Z",
        "active": true,
        "conditions": [{"fact": "login_days", "op": ">=", "value": 7}],
        "reward": {"kind": "points", "amount": 5}});
    let condition =
        |member: &str| (format!("/conditions/0/{member}"), format!("conditions[0].{member}"));
    let mut groups = vec![
        keyless(fixture, Method::PUT, path),
        new_names("code", |name| {
            api.admin_call(Method::PUT, &format!("/admin/rewards/{name}")).json(&good)
        }),
        admin_bodies(&good, call),
        field(&good, "/title", "title", titles(), call),
        field(&good, "/starts_at", "starts_at", moments(), call),
        field(&good, "/ends_at", "ends_at", moments(), call),
        field(&good, "/ends_at", "ends_at", vec![json!(STARTS)], call),
        field(&good, "/active", "active", vec![json!(1), json!("true"), json!(null)], call),
        field(&good, "/revocable", "revocable", vec![json!(1), json!("true"), json!(null)], call),
        field(&good, "/code", "code", vec![json!("bye"), json!("a b"), json!(5)], call),
        field(
            &good,
            "/conditions",
            "conditions",
            vec![json!({}), json!(null), json!("none")],
            call,
        ),
        field(&good, "/reward", "reward", vec![json!(5), json!(null), json!("points")], call),
        field(&good, "/reward", "reward.kind", vec![json!({}), json!({"kind": "gold"})], call),
    ];
    let many = vec![good["conditions"][0].clone(); 21];
    groups.push(field(&good, "/conditions", "conditions", vec![json!(many)], call));
    for (member, bad) in [
        ("fact", vec![json!(""), json!("a b"), json!("x".repeat(65)), json!(5), json!(null)]),
        ("op", vec![json!(">"), json!("="), json!(""), json!(5), json!(null)]),
        (
            "value",
            vec![
                json!(1.5),
                json!("7"),
                json!(9_007_199_254_740_992_i64),
                json!("#1e2"),
                json!(null),
            ],
        ),
        ("colour", vec![json!("red")]),
    ] {
        let (at, name) = condition(member);
        groups.push(field(&good, &at, &name, bad, call));
    }
    for name in ["title", "starts_at", "ends_at", "reward"] {
        groups.push(missing(&good, &format!("/{name}"), name, call));
    }
    for member in ["fact", "op", "value"] {
        let (at, name) = condition(member);
        groups.push(missing(&good, &at, &name, call));
    }
    BadInputRow::new(Method::PUT, "/admin/rewards/{code}", groups)
}

/// The same rules for both methods, except that a merge takes null.
fn facts(fixture: &BadInputFixture, method: Method) -> BadInputRow {
    let api = &fixture.api;
    let path = format!("/admin/users/{}/facts", fixture.alice.user);
    let call = || api.admin_call(method.clone(), &path);
    let good = json!({"login_days": 7});
    let mut bad = vec![
        json!(1.5),
        json!("7"),
        json!(null),
        json!([]),
        json!(true),
        json!("#1e2"),
        json!(9_007_199_254_740_992_i64),
        json!(-9_007_199_254_740_992_i64),
        json!("#9223372036854775808"),
    ];
    if method == Method::PATCH {
        bad.retain(|value| !value.is_null());
    }
    let mut groups = vec![
        keyless(fixture, method.clone(), &path),
        field(&good, "/login_days", "login_days", bad, call),
        ["a%20b", "a%09b", "%00", "%C3%A4", "%7F", &"x".repeat(129)]
            .map(|user| {
                let call = api
                    .admin_call(method.clone(), &format!("/admin/users/{user}/facts"))
                    .json(&good);
                BadInputCase::invalid(format!("the user {user}"), call, "user")
            })
            .into(),
    ];
    for name in ["paid_total", "reservations_confirmed", "a b", ""] {
        groups.push(vec![BadInputCase::invalid(
            format!("the fact {name:?}"),
            call().json(&json!({name: 1})),
            name,
        )]);
    }
    let many: Value =
        (0..101).map(|n| (format!("f{n}"), json!(1))).collect::<serde_json::Map<_, _>>().into();
    let twice = call().raw("application/json", r#"{"login_days": 7, "login_days": 8}"#);
    groups.push(vec![BadInputCase::invalid("a fact twice", twice, "login_days")]);
    groups.push(vec![BadInputCase::invalid("101 facts", call().json(&many), "")]);
    BadInputRow::new(method, "/admin/users/{user}/facts", groups)
}

/// The operator's lists.
fn lists(fixture: &BadInputFixture) -> Vec<BadInputRow> {
    let api = &fixture.api;
    [
        ("/admin/coupons/{coupon}/issues", "coupons", "issues"),
        ("/admin/rewards/{code}/claims", "rewards", "claims"),
    ]
    .map(|(template, collection, what)| {
        let call = |name: &str, query: &str| {
            api.admin_call(Method::GET, &format!("/admin/{collection}/{name}/{what}{query}"))
        };
        let mut groups = vec![
            keyless(fixture, Method::GET, &format!("/admin/{collection}/x/{what}")),
            names("nowhere", |name| call(name, "")),
            pages(|query| call("x", query)),
        ];
        if what == "claims" {
            groups.push(vec![BadInputCase::invalid(
                "a status",
                call("x", "?status=open"),
                "status",
            )]);
        }
        BadInputRow::new(Method::GET, template, groups)
    })
    .into()
}
