//! The admin listener.

use reqwest::Method;
use serde_json::{Value, json};

use super::cases::{
    BadInputCase, BadInputRow, admin_bodies, field, ids, invalid_keys, missing, names, new_names,
    pages,
};
use super::fixture::BadInputFixture;
use crate::support::api::ApiRequest;
use crate::support::{CONCERT, SCHEDULE};

pub(super) fn rows(fixture: &BadInputFixture) -> Vec<BadInputRow> {
    let api = &fixture.api;
    let mut rows = vec![
        BadInputRow::new(
            Method::POST,
            "/admin/audit",
            vec![keyless(fixture, Method::POST, "/admin/audit")],
        ),
        BadInputRow::new(
            Method::GET,
            "/admin/actions",
            vec![
                keyless(fixture, Method::GET, "/admin/actions"),
                pages(|query| api.admin_call(Method::GET, &format!("/admin/actions{query}"))),
            ],
        ),
    ];
    let of_concert =
        |name: &str| api.admin_call(Method::GET, &format!("/admin/concerts/{name}/reservations"));
    rows.push(BadInputRow::new(
        Method::GET,
        "/admin/concerts/{concert}/reservations",
        vec![
            keyless(fixture, Method::GET, "/admin/concerts/show/reservations"),
            names("nowhere", of_concert),
            pages(|query| {
                api.admin_call(Method::GET, &format!("/admin/concerts/show/reservations{query}"))
            }),
            ["status=", "status=sold", "status=HELD", "status=held&status=paying"]
                .map(|query| {
                    let path = format!("/admin/concerts/show/reservations?{query}");
                    let call = api.admin_call(Method::GET, &path);
                    BadInputCase::invalid(format!("?{query}"), call, "status")
                })
                .into(),
        ],
    ));
    rows.extend(single_objects(fixture));
    rows.push(cancellation(fixture));
    rows.push(queue(fixture));
    rows.extend(queue_deletions(fixture));
    rows.push(concert(fixture));
    rows
}

/// Single reservations and payments.
fn single_objects(fixture: &BadInputFixture) -> Vec<BadInputRow> {
    let api = &fixture.api;
    let mut rows = Vec::new();
    for (method, template) in [
        (Method::GET, "/admin/reservations/{id}"),
        (Method::DELETE, "/admin/reservations/{id}"),
        (Method::GET, "/admin/payments/{id}"),
    ] {
        let at = |id: &str| template.replace("{id}", id);
        let call = |id: &str| api.admin_call(method.clone(), &at(id));
        let mut cases = vec![keyless(fixture, method.clone(), &at(&fixture.bobs)), ids(call)];
        if method == Method::DELETE {
            let bought = call(&fixture.carols);
            cases.push(vec![BadInputCase::new("a bought one", bought, 409, "not_releasable")]);
        }
        rows.push(BadInputRow::new(method.clone(), template, cases));
    }
    rows
}

/// The cancellation of a reservation by an operator.
fn cancellation(fixture: &BadInputFixture) -> BadInputRow {
    let at = |id: &str| format!("/admin/reservations/{id}/cancel");
    let call = |id: &str| fixture.api.admin_call(Method::POST, &at(id));
    // Carol has bought seat 3.
    let carols = || call(&fixture.carols);
    let good = json!({"reason": "A broken seat.", "seats": [3]});
    let reasons =
        vec![json!(""), json!("x".repeat(501)), json!("a\nb"), json!(5), json!(null), json!([])];
    let seats = vec![json!([]), json!([4]), json!([3, 3]), json!([3, 4]), json!([0]), json!(3)];
    let elements = vec![json!([-3]), json!([3.5]), json!(["3"]), json!([4_294_967_296_u64])];
    BadInputRow::new(
        Method::POST,
        "/admin/reservations/{id}/cancel",
        vec![
            keyless(fixture, Method::POST, &at(&fixture.carols)),
            ids(|id| call(id).json(&good)),
            invalid_keys(|| carols().json(&good)),
            admin_bodies(&good, carols),
            missing(&good, "/reason", "reason", carols),
            field(&good, "/reason", "reason", reasons, carols),
            field(&good, "/seats", "seats", seats, carols),
            field(&good, "/seats", "seats[0]", elements, carols),
            [("Alice's", &fixture.alices), ("Bob's", &fixture.bobs)]
                .map(|(whose, id)| {
                    let call = call(id).json(&json!({"reason": "A broken seat."}));
                    BadInputCase::new(format!("{whose} hold"), call, 409, "not_cancellable")
                })
                .into(),
        ],
    )
}

/// Callers without the admin key. A user id and a queue token do not replace it.
pub(super) fn keyless(fixture: &BadInputFixture, method: Method, path: &str) -> Vec<BadInputCase> {
    let call = || fixture.api.keyless_admin_call(method.clone(), path).json(&json!({}));
    let bad = |what: &str, call: ApiRequest| {
        BadInputCase::new(what, call, 401, "unauthenticated").with_header("www-authenticate")
    };
    vec![
        bad("no key", call()),
        bad("an empty key", call().header("authorization", "Bearer ")),
        bad(
            "a wrong key",
            call().header("authorization", "Bearer 0ff1ce-c2b7a9d84e5f6a1b3c8d7e9f0b"),
        ),
        bad("half a key", call().header("authorization", "Bearer 0ff1ce-c2b7a9d84e5f6a1b")),
        bad(
            "a key without its scheme",
            call().header("authorization", "0ff1ce-c2b7a9d84e5f6a1b3c8d7e9f0a"),
        ),
        bad("a user", call().user(&fixture.alice.user).token(&fixture.alice.token)),
    ]
}

/// The fields of the look of a waiting page.
fn queue_page(good: &Value, call: impl Fn() -> ApiRequest + Copy) -> Vec<Vec<BadInputCase>> {
    let others = [json!(5), json!(true), json!([]), json!({})];
    let with = |bad: Vec<Value>| [bad, others.to_vec()].concat();
    let name = with(vec![json!({"k o": "x"}), json!({"ko": 5}), json!("x".repeat(101))]);
    let mut groups = vec![
        field(good, "/page", "page", vec![json!(5), json!("x"), json!([]), json!(true)], call),
        field(good, "/page/name", "page.name", vec![json!("x")], call),
        field(good, "/page/event_name", "page.event_name", name, call),
    ];
    let urls = [
        "",
        "http://a.example/",
        "//a.example/",
        "javascript:alert(1)",
        "https://",
        "https://a.example; script-src *",
        "https://user@a.example/",
    ];
    let long = format!("https://a.example/{}", "x".repeat(500));
    let urls = with([urls.map(|url| json!(url)).to_vec(), vec![json!(long)]].concat());
    let colors = with(["", "red", "0055aa", "rgb(0,0,0)"].map(|color| json!(color)).to_vec());
    for (name, bad) in [
        ("logo_url", &urls),
        ("support_url", &urls),
        ("accent_color", &colors),
        ("header_color", &colors),
    ] {
        let (at, path) = (format!("/page/{name}"), format!("page.{name}"));
        groups.push(field(good, &at, &path, bad.clone(), call));
    }
    groups
}

fn queue(fixture: &BadInputFixture) -> BadInputRow {
    let api = &fixture.api;
    let path = "/admin/queues/show";
    let call = || api.admin_call(Method::PUT, path);
    let good = json!({
        "mode": "open", "promote_per_interval": 10_000, "interval_ms": 1_000, "max_active": 10_000,
        "active_seconds": 300,
        "claim_seconds": 60, "max_waiting": null, "opens_at": null, "closes_at": null,
        "prequeue_starts_at": null, "order": "fifo",
        "restore_seconds": 30, "message": null, "visit": "fixed", "visit_limit_seconds": null,
        "page": {
            "event_name": null, "logo_url": null, "accent_color": null, "header_color": null,
            "support_url": null,
        },
        "abandon_after_seconds": null, "private": false,
    });
    let mut groups = vec![
        keyless(fixture, Method::PUT, path),
        new_names("queue", |name| {
            api.admin_call(Method::PUT, &format!("/admin/queues/{name}")).json(&good)
        }),
        admin_bodies(&good, call),
    ];
    for (name, highest) in [
        ("promote_per_interval", 1_000_000_u64),
        ("interval_ms", 3_600_000),
        ("max_active", 10_000_000),
        ("active_seconds", 86_400),
        ("claim_seconds", 86_400),
        ("max_waiting", 100_000_000),
    ] {
        let mut bad = vec![
            json!(0),
            json!(highest + 1),
            json!(-1),
            json!(1.5),
            json!("5"),
            json!(1_u64 << 32),
            json!("#1e2"),
            json!([]),
            json!(true),
        ];
        if name == "interval_ms" {
            bad.push(json!(99));
        }
        if name != "max_waiting" {
            bad.push(json!(null));
        }
        groups.push(field(&good, &format!("/{name}"), name, bad, call));
    }
    let bad = [
        json!(3_601),
        json!(-1),
        json!(1.5),
        json!("5"),
        json!(1_u64 << 32),
        json!([]),
        json!(true),
        json!(null),
    ];
    groups.push(field(&good, "/restore_seconds", "restore_seconds", bad.to_vec(), call));
    for name in ["opens_at", "closes_at", "prequeue_starts_at"] {
        let mut bad = times();
        if name == "prequeue_starts_at" {
            bad.push(json!("2100-01-01T00:00:00Z"));
        }
        groups.push(field(&good, &format!("/{name}"), name, bad, call));
    }
    let words = vec![json!("ajar"), json!("OPEN"), json!(""), json!(5), json!(null)];
    groups.push(field(&good, "/mode", "mode", words.clone(), call));
    groups.push(field(&good, "/visit", "visit", words.clone(), call));
    let limits = [59, 86_401, 1 << 32].map(|limit: u64| json!(limit)).to_vec();
    let limits = [limits, vec![json!(-1), json!(60.5), json!("60"), json!([]), json!(true)]];
    groups.push(field(&good, "/visit_limit_seconds", "visit_limit_seconds", limits.concat(), call));
    let seconds = [29, 86_401, 1 << 32].map(|seconds: u64| json!(seconds)).to_vec();
    let seconds = [seconds, vec![json!(-1), json!(30.5), json!("60"), json!([]), json!(true)]];
    let abandon = "abandon_after_seconds";
    groups.push(field(&good, "/abandon_after_seconds", abandon, seconds.concat(), call));
    let flags = vec![json!(1), json!("true"), json!([]), json!(null)];
    groups.push(field(&good, "/private", "private", flags, call));
    let long = "x".repeat(501);
    let messages = vec![
        json!(5),
        json!(true),
        json!([]),
        json!({}),
        json!({"k o": "x"}),
        json!({"ko": 5}),
        json!({"ko": null}),
        json!({"ko": long}),
        json!(long),
    ];
    groups.push(field(&good, "/message", "message", messages, call));
    groups.extend(queue_page(&good, call));
    groups.push(field(&good, "/order", "order", [words, vec![json!("lottery")]].concat(), call));
    let mut against = good;
    against["opens_at"] = json!("2100-01-01T00:00:00Z");
    let earlier = vec![json!("2100-01-01T00:00:00Z"), json!("2099-01-01T00:00:00Z")];
    groups.push(field(&against, "/closes_at", "closes_at", earlier, call));
    let later = vec![json!("2100-01-01T00:00:00Z"), json!("2101-01-01T00:00:00Z")];
    groups.push(field(&against, "/prequeue_starts_at", "prequeue_starts_at", later, call));
    BadInputRow::new(Method::PUT, "/admin/queues/{queue}", groups)
}

fn queue_deletions(fixture: &BadInputFixture) -> [BadInputRow; 2] {
    let api = &fixture.api;
    let call = |path: &str| api.admin_call(Method::DELETE, path);
    let queries = ["force=yes", "force=1", "force=", "Force=true", "force=true&force=true", "x=1"];
    let queries = queries.map(|query| {
        let call = call(&format!("/admin/queues/show?{query}"));
        BadInputCase::new(format!("the query {query}"), call, 422, "invalid_request")
    });
    let forced = call("/admin/queues/show?force=true");
    let in_use = BadInputCase::new("a queue of a concert", forced, 409, "in_use");
    let of_queue = vec![
        keyless(fixture, Method::DELETE, "/admin/queues/show?force=true"),
        names("nowhere", |name| call(&format!("/admin/queues/{name}?force=true"))),
        queries.into(),
        vec![in_use],
    ];
    let path = format!("/admin/queues/show/users/{}", fixture.alice.user);
    let mut queue_names = names("nowhere", |name| {
        call(&format!("/admin/queues/{name}/users/{}", fixture.alice.user))
    });
    // Clients resolve it, and the path is that of another route.
    queue_names.retain(|case| !case.what.contains("%2e%2e"));
    let of_user = vec![
        keyless(fixture, Method::DELETE, &path),
        queue_names,
        ids(|user| call(&format!("/admin/queues/show/users/{user}"))),
    ];
    [
        BadInputRow::new(Method::DELETE, "/admin/queues/{queue}", of_queue),
        BadInputRow::new(Method::DELETE, "/admin/queues/{queue}/users/{user}", of_user),
    ]
}

/// Values that are not a time, or one out of range.
fn times() -> Vec<Value> {
    vec![
        json!("soon"),
        json!(""),
        json!(5),
        json!("2100-01-01"),
        json!("2100-01-01T00:00:00"),
        json!("2100-13-01T00:00:00Z"),
        json!("2100-02-30T00:00:00Z"),
        json!("1969-12-31T23:59:59Z"),
        json!("0000-01-01T00:00:00Z"),
        json!("+12000-01-01T00:00:00Z"),
    ]
}

fn concert(fixture: &BadInputFixture) -> BadInputRow {
    let api = &fixture.api;
    let path = "/admin/concerts/show";
    let call = || api.admin_call(Method::PUT, path);
    let good = json!({
        "title": "The show", "queue_id": CONCERT, "hold_seconds": 300, "payment_seconds": 600,
        "max_seats_per_user": 4,
        "cancel_until": null,
        "schedules": [{
            "id": SCHEDULE, "starts_at": "2100-01-01T19:00:00Z", "booking_opens_at": null,
            "booking_closes_at": null,
            "sections": [{"name": "A", "from": 1, "to": 50, "price": 1_000}],
        }],
    });
    let at = |at: &str, name: &str, bad: Vec<Value>| field(&good, at, name, bad, call);
    let text = |most: usize| {
        vec![json!(""), json!("x".repeat(most + 1)), json!("a\nb"), json!(5), json!(null)]
    };
    let name = || {
        vec![json!(""), json!("a b"), json!("{p1}"), json!("a:b"), json!("x".repeat(65)), json!(5)]
    };
    let number = |highest: u64| {
        vec![json!(0), json!(highest + 1), json!(-1), json!(1.5), json!("5"), json!(1_u64 << 32)]
    };
    let section = "/schedules/0/sections/0";
    let sections = "schedules[0].sections";
    let price = vec![
        json!(-1),
        json!(1.5),
        json!("1000"),
        json!(null),
        json!(1_u64 << 53),
        json!(1_u64 << 63),
        json!("#1e3"),
    ];
    let groups = vec![
        keyless(fixture, Method::PUT, path),
        new_names("concert", |name| {
            api.admin_call(Method::PUT, &format!("/admin/concerts/{name}")).json(&good)
        }),
        admin_bodies(&good, call),
        missing(&good, "/title", "title", call),
        missing(&good, "/schedules", "schedules", call),
        at("/title", "title", text(255)),
        at("/queue_id", "queue_id", name()),
        at("/hold_seconds", "hold_seconds", number(86_400)),
        at(
            "/payment_seconds",
            "payment_seconds",
            vec![json!(59), json!(3_601), json!(-1), json!(60.5), json!("600")],
        ),
        at("/max_seats_per_user", "max_seats_per_user", number(100)),
        at("/cancel_until", "cancel_until", times()),
        at(
            "/schedules",
            "schedules",
            vec![
                json!(null),
                json!({}),
                json!("night"),
                json!([good["schedules"][0], good["schedules"][0]]),
            ],
        ),
        at("/schedules/0", "schedules[0]", vec![json!(null), json!(5), json!("night")]),
        at("/schedules/0/id", "schedules[0].id", [name(), vec![json!("other-night")]].concat()),
        at(
            "/schedules/0/starts_at",
            "schedules[0].starts_at",
            [times(), vec![json!(null)]].concat(),
        ),
        at("/schedules/0/booking_opens_at", "schedules[0].booking_opens_at", times()),
        at("/schedules/0/booking_closes_at", "schedules[0].booking_closes_at", times()),
        at("/schedules/0/colour", "schedules[0].colour", vec![json!("red")]),
        missing(&good, "/schedules/0/id", "schedules[0].id", call),
        missing(&good, "/schedules/0/starts_at", "schedules[0].starts_at", call),
        missing(&good, "/schedules/0/sections", sections, call),
        at(
            "/schedules/0/sections",
            sections,
            vec![json!([]), json!(null), json!({}), gap(), overlap()],
        ),
        at(&format!("{section}/name"), sections, text(64)[..3].to_vec()),
        at(&format!("{section}/name"), "schedules[0].sections[0].name", text(64)[3..].to_vec()),
        at(&format!("{section}/from"), sections, vec![json!(0), json!(2), json!(51)]),
        at(&format!("{section}/from"), "schedules[0].sections[0].from", number(1)[2..].to_vec()),
        at(&format!("{section}/to"), sections, vec![json!(0), json!(100_001), json!(u32::MAX)]),
        at(&format!("{section}/to"), "schedules[0].sections[0].to", number(1)[2..].to_vec()),
        at(&format!("{section}/price"), "schedules[0].sections[0].price", price),
        at(
            &format!("{section}/price"),
            sections,
            vec![json!(10_000_000_000_001_i64), json!((1_u64 << 53) - 1)],
        ),
        at(&format!("{section}/colour"), "schedules[0].sections[0].colour", vec![json!("red")]),
        missing(&good, &format!("{section}/name"), "schedules[0].sections[0].name", call),
        missing(&good, &format!("{section}/from"), "schedules[0].sections[0].from", call),
        missing(&good, &format!("{section}/to"), "schedules[0].sections[0].to", call),
        missing(&good, &format!("{section}/price"), "schedules[0].sections[0].price", call),
        in_use(&good, call),
    ];
    BadInputRow::new(Method::PUT, "/admin/concerts/{concert}", groups)
}

fn gap() -> Value {
    json!([{"name": "A", "from": 1, "to": 10, "price": 1},
        {"name": "B", "from": 12, "to": 50, "price": 1}])
}

fn overlap() -> Value {
    json!([{"name": "A", "from": 1, "to": 10, "price": 1},
        {"name": "B", "from": 10, "to": 50, "price": 1}])
}

/// Changes that would remove seats that Alice and Bob hold or that Carol bought.
fn in_use(good: &Value, call: impl Fn() -> ApiRequest) -> Vec<BadInputCase> {
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut body = good.clone();
        change(&mut body);
        call().json(&body)
    };
    let bad = |what: &str, call: ApiRequest| BadInputCase::new(what, call, 409, "in_use");
    vec![
        bad(
            "a smaller hall",
            changed(&|body| body["schedules"][0]["sections"][0]["to"] = json!(2)),
        ),
        bad("no dates", changed(&|body| body["schedules"] = json!([]))),
        bad("another date", changed(&|body| body["schedules"][0]["id"] = json!("matinee"))),
        bad("another queue", changed(&|body| body["queue_id"] = json!("other"))),
        bad("another queue", changed(&|body| body["queue_id"] = json!("brand-new"))),
    ]
}
