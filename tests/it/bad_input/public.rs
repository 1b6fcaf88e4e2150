//! The public listener, except for routes that move money.

use reqwest::Method;
use serde_json::{Value, json};

use super::cases::{
    BadInputCase, BadInputRow, bodies, field, identities, ids, invalid_keys, keys, missing, names,
    pages, tokens,
};
use super::fixture::BadInputFixture;
use crate::support::{SCHEDULE, new_key};

pub(super) fn rows(fixture: &BadInputFixture) -> Vec<BadInputRow> {
    let mut rows = queue(fixture);
    rows.extend(catalogue(fixture));
    rows.extend(reservations(fixture));
    rows
}

fn queue(fixture: &BadInputFixture) -> Vec<BadInputRow> {
    let api = &fixture.api;
    let mut rows = Vec::new();

    let unknown = names("nowhere", |name| api.get(&format!("/v1/queues/{name}")));
    rows.push(BadInputRow::new(Method::GET, "/v1/queues/{queue}", vec![unknown]));
    let unknown = names("nowhere", |name| api.get(&format!("/v1/queues/{name}/draws")));
    rows.push(BadInputRow::new(Method::GET, "/v1/queues/{queue}/draws", vec![unknown]));
    let unknown = names("nowhere", |name| api.get(&format!("/v1/queues/{name}/line")));
    rows.push(BadInputRow::new(Method::GET, "/v1/queues/{queue}/line", vec![unknown]));

    let join = |name: &str| api.post(&format!("/v1/queues/{name}/tokens"));
    let unknown = names("nowhere", |name| join(name).user(&fixture.bob.user));
    let closed = BadInputCase::new(
        "a closed queue",
        join("shut").user(&fixture.bob.user),
        403,
        "queue_closed",
    );
    let unnamed = identities(|| join("show"));
    rows.push(BadInputRow::new(
        Method::POST,
        "/v1/queues/{queue}/tokens",
        vec![unknown, unnamed, vec![closed]],
    ));

    for method in [Method::GET, Method::DELETE] {
        let call = |name: &str| api.call(method.clone(), &format!("/v1/queues/{name}/tokens/me"));
        let token = &fixture.alice.token;
        let elsewhere = |name| {
            BadInputCase::new("of another queue", call(name).token(token), 403, "wrong_queue")
        };
        let spent = BadInputCase::new(
            "a used-up token",
            call("show").token(&fixture.carol.token),
            410,
            "queue_token_expired",
        );
        let cases = vec![elsewhere("other"), elsewhere("nowhere"), spent];
        let bad_names = names("%20", |name| call(name).token(token));
        let bad_tokens = tokens(fixture, || call("show"));
        rows.push(BadInputRow::new(
            method.clone(),
            "/v1/queues/{queue}/tokens/me",
            vec![bad_tokens, bad_names, cases],
        ));
    }
    let stream = |name: &str| api.get(&format!("/v1/queues/{name}/tokens/me/events"));
    let (token, path) = (&fixture.alice.token, "/v1/queues/show/tokens/me/events");
    let queries = vec![
        BadInputCase::new(
            "a forged token",
            api.get(&format!("{path}?token=x.y.z")),
            401,
            "invalid_queue_token",
        ),
        BadInputCase::invalid(
            "an unknown parameter",
            api.get(&format!("{path}?tokens=x")).token(token),
            "tokens",
        ),
        BadInputCase::new("of another queue", stream("other").token(token), 403, "wrong_queue"),
    ];
    let bad_tokens = tokens(fixture, || stream("show"));
    rows.push(BadInputRow::new(
        Method::GET,
        "/v1/queues/{queue}/tokens/me/events",
        vec![bad_tokens, queries],
    ));

    for (template, rest) in [
        ("/v1/queues/{queue}/check", "check"),
        ("/v1/queues/{queue}/gate", "gate"),
        ("/v1/queues/{queue}/gate/{path}", "gate/seats//a%2Fb"),
    ] {
        rows.push(gate(fixture, template, rest));
    }

    let keys = api.post("/.well-known/jwks.json");
    let case = BadInputCase::new("another method", keys, 405, "method_not_allowed");
    rows.push(BadInputRow::new(Method::GET, "/.well-known/jwks.json", vec![vec![case]]));
    rows
}

/// The forward authentication at `rest` of a queue.
fn gate(fixture: &BadInputFixture, template: &'static str, rest: &str) -> BadInputRow {
    let (api, token) = (&fixture.api, &fixture.alice.token);
    let check = |name: &str| api.get(&format!("/v1/queues/{name}/{rest}"));
    let not_inside = vec![
        BadInputCase::new("no token", check("show"), 401, "not_admitted"),
        BadInputCase::new(
            "a forged token",
            check("show").token(&fixture.foreign_token()),
            401,
            "not_admitted",
        ),
        BadInputCase::new("of another queue", check("other").token(token), 401, "not_admitted"),
        BadInputCase::new(
            "a used-up token",
            check("show").token(&fixture.carol.token),
            401,
            "not_admitted",
        ),
        BadInputCase::new(
            "a waiting user",
            check("show").token(&fixture.wendy.token),
            401,
            "not_admitted",
        ),
    ];
    BadInputRow::new(Method::GET, template, vec![names("nowhere", check), not_inside])
}

fn catalogue(fixture: &BadInputFixture) -> Vec<BadInputRow> {
    let api = &fixture.api;
    let list = BadInputCase::new("a path beside it", api.get("/v1/concerts/"), 404, "not_found");
    let unknown = names("nowhere", |name| api.get(&format!("/v1/concerts/{name}")));

    let dates = |name: &str| api.get(&format!("/v1/concerts/{name}/schedules"));
    let date_cases = vec![
        tokens(fixture, || dates("show")),
        names("nowhere", |name| dates(name).token(&fixture.alice.token)),
        ["all=1", "all=", "all=true&all=true", "colour=red"]
            .map(|query| {
                let call = api
                    .get(&format!("/v1/concerts/show/schedules?{query}"))
                    .token(&fixture.alice.token);
                let field = query.split('=').next().unwrap();
                BadInputCase::invalid(format!("?{query}"), call, field)
            })
            .into(),
        admission(fixture, |token, name| dates(name).token(token), ["show", "other", "slow"]),
    ];

    let map = |name: &str| api.get(&format!("/v1/schedules/{name}/seats"));
    let filtered = |query: &str| {
        api.get(&format!("/v1/schedules/{SCHEDULE}/seats?{query}")).token(&fixture.alice.token)
    };
    let filters = vec![
        BadInputCase::invalid("an unknown status", filtered("status=reserved"), "status"),
        BadInputCase::invalid("an empty status", filtered("status="), "status"),
        BadInputCase::invalid("two statuses", filtered("status=held&status=sold"), "status"),
        BadInputCase::invalid("an unknown parameter", filtered("colour=red"), "colour"),
        BadInputCase::invalid("an unknown view", filtered("view=tree"), "view"),
        BadInputCase::invalid("an empty view", filtered("view="), "view"),
        BadInputCase::invalid("a view twice", filtered("view=list&view=status"), "view"),
        BadInputCase::invalid("statuses by status", filtered("view=status&status=held"), "status"),
        BadInputCase::invalid("two sections", filtered("section=A&section=A"), "section"),
    ];
    let unknown_sections = ["B", "a", "", "A%20", "%00", "1"];
    let layout = |name: &str| api.get(&format!("/v1/schedules/{name}/layout"));
    let layout_cases = vec![
        names("nowhere", layout),
        unknown_sections
            .map(|name| {
                let path = format!("/v1/schedules/{SCHEDULE}/layout?section={name}");
                let call = api.get(&path).header("if-none-match", "*");
                BadInputCase::invalid(format!("the section {name}"), call, "section")
            })
            .into(),
    ];
    let map_cases = vec![
        tokens(fixture, || map(SCHEDULE)),
        names("nowhere", |name| map(name).token(&fixture.alice.token)),
        admission(
            fixture,
            |token, name| map(name).token(token),
            [SCHEDULE, "other-night", "slow-night"],
        ),
        filters,
        ["", "view=status&"]
            .into_iter()
            .flat_map(|view| unknown_sections.map(|name| format!("{view}section={name}")))
            .map(|query| BadInputCase::invalid(query.clone(), filtered(&query), "section"))
            .collect(),
    ];
    vec![
        BadInputRow::new(Method::GET, "/v1/concerts", vec![vec![list]]),
        BadInputRow::new(Method::GET, "/v1/concerts/{concert}", vec![unknown]),
        BadInputRow::new(Method::GET, "/v1/concerts/{concert}/schedules", date_cases),
        BadInputRow::new(Method::GET, "/v1/schedules/{schedule}/layout", layout_cases),
        BadInputRow::new(Method::GET, "/v1/schedules/{schedule}/seats", map_cases),
        seat_stream(fixture),
    ]
}

fn seat_stream(fixture: &BadInputFixture) -> BadInputRow {
    let api = &fixture.api;
    let stream = |name: &str| api.get(&format!("/v1/schedules/{name}/seats/events"));
    let of_query = |query: &str| api.get(&format!("/v1/schedules/{SCHEDULE}/seats/events?{query}"));
    let forged = |query: &str| {
        BadInputCase::new(format!("?{query}"), of_query(query), 401, "invalid_queue_token")
    };
    let unknown = |query: &str, field: &str| {
        let call = of_query(query).token(&fixture.alice.token);
        BadInputCase::invalid(format!("?{query}"), call, field)
    };
    BadInputRow::new(
        Method::GET,
        "/v1/schedules/{schedule}/seats/events",
        vec![
            tokens(fixture, || stream(SCHEDULE)),
            names("nowhere", |name| stream(name).token(&fixture.alice.token)),
            admission(
                fixture,
                |token, name| stream(name).token(token),
                [SCHEDULE, "other-night", "slow-night"],
            ),
            vec![
                forged("token=x.y.z"),
                forged("token="),
                forged("token=%00"),
                unknown("section=A", "section"),
                unknown("token=a&token=b", "token"),
            ],
        ],
    )
}

/// Token holders who are not active. `things` are the arguments of `call`: of the concert, of the
/// other queue, of the slow one.
fn admission(
    fixture: &BadInputFixture,
    call: impl Fn(&str, &str) -> crate::support::api::ApiRequest,
    things: [&str; 3],
) -> Vec<BadInputCase> {
    let [show, other, slow] = things;
    vec![
        BadInputCase::new(
            "of another queue",
            call(&fixture.alice.token, other),
            403,
            "wrong_queue",
        ),
        BadInputCase::new(
            "a used-up token",
            call(&fixture.carol.token, show),
            410,
            "queue_token_expired",
        ),
        BadInputCase::new("a waiting token", call(&fixture.wendy.token, slow), 403, "not_admitted")
            .with_header("retry-after"),
    ]
}

fn reservations(fixture: &BadInputFixture) -> Vec<BadInputRow> {
    let api = &fixture.api;
    let token = &fixture.alice.token;
    let good = json!({"schedule_id": SCHEDULE, "seats": [10]});
    let tokenless = || api.post("/v1/reservations");
    let call = || tokenless().token(token);
    let of = |token: &str, schedule: &str, seats: serde_json::Value| {
        tokenless().token(token).json(&json!({"schedule_id": schedule, "seats": seats}))
    };
    let names = ["nowhere", "show"]
        .map(|name| BadInputCase::new(name, of(token, name, json!([1])), 404, "not_found"));
    let many: Vec<u32> = (1..=300).collect();
    let every_seat: Vec<u32> = (1..=10_000).collect();
    let hold = vec![
        tokens(fixture, || tokenless().json(&good)),
        invalid_keys(|| call().json(&good)),
        bodies(&good, call),
        missing(&good, "/schedule_id", "schedule_id", call),
        missing(&good, "/seats", "seats", call),
        field(
            &good,
            "/schedule_id",
            "schedule_id",
            vec![
                json!(5),
                json!(null),
                json!(""),
                json!("a b"),
                json!("{p1}"),
                json!("x".repeat(65)),
                json!(["night"]),
            ],
            call,
        ),
        field(
            &good,
            "/seats",
            "seats",
            vec![
                json!([]),
                json!([0]),
                json!([51]),
                json!([4, 4]),
                json!(null),
                json!("4"),
                json!(4),
                json!({}),
                json!(many),
                json!([4_294_967_295_u32]),
                json!(every_seat),
            ],
            call,
        ),
        field(
            &good,
            "/seats/0",
            "seats[0]",
            vec![
                json!(-1),
                json!(1.5),
                json!("4"),
                json!(null),
                json!([4]),
                json!(4_294_967_296_u64),
                json!("#1e1"),
            ],
            call,
        ),
        admission(
            fixture,
            |token, schedule| of(token, schedule, json!([10])),
            [SCHEDULE, "other-night", "slow-night"],
        ),
        names.into(),
        vec![
            BadInputCase::new(
                "five seats",
                of(token, SCHEDULE, json!([5, 6, 7, 8, 9])),
                422,
                "seat_limit_exceeded",
            ),
            BadInputCase::new(
                "four above one held",
                of(token, SCHEDULE, json!([5, 6, 7, 8])),
                422,
                "seat_limit_exceeded",
            ),
            BadInputCase::new(
                "another user's seat",
                of(token, SCHEDULE, json!([4, 2])),
                409,
                "seat_taken",
            ),
            BadInputCase::new(
                "a seat that is sold",
                of(token, SCHEDULE, json!([3])),
                409,
                "seat_taken",
            ),
            BadInputCase::new(
                "the user's own seat",
                of(token, SCHEDULE, json!([1])),
                409,
                "seat_taken",
            ),
        ],
    ];
    let mut rows = vec![BadInputRow::new(Method::POST, "/v1/reservations", hold)];
    let mine = |query: &str| api.get(&format!("/v1/reservations/mine{query}"));
    let paged = pages(|query| mine(query).user(&fixture.alice.user));
    rows.push(BadInputRow::new(
        Method::GET,
        "/v1/reservations/mine",
        vec![identities(|| mine("")), paged],
    ));
    rows.push(best(fixture));
    rows.push(cancel(fixture));
    for method in [Method::GET, Method::DELETE] {
        let call = |id: &str| api.call(method.clone(), &format!("/v1/reservations/{id}"));
        let mut cases = strangers(fixture, &fixture.bobs, call);
        if method == Method::DELETE {
            let bought = call(&fixture.carols);
            cases.push(BadInputCase::new(
                "a bought reservation",
                bought.user(&fixture.carol.user),
                409,
                "not_releasable",
            ));
        }
        let unknown = ids(|id| call(id).token(token));
        let unknown_to_user = ids(|id| call(id).user(&fixture.alice.user));
        rows.push(BadInputRow::new(
            method.clone(),
            "/v1/reservations/{id}",
            vec![cases, unknown, unknown_to_user],
        ));
    }
    rows
}

fn best(fixture: &BadInputFixture) -> BadInputRow {
    let bare = || fixture.api.post("/v1/reservations/best");
    let call = || bare().token(&fixture.alice.token);
    let good = json!({"schedule_id": SCHEDULE, "quantity": 1, "section": "A"});
    let of = |body: serde_json::Value| call().json(&body);
    let quantities = [
        json!(0),
        json!(-1),
        json!(1.5),
        json!("1"),
        json!(null),
        json!("#1e0"),
        json!(4_294_967_296_u64),
    ];
    BadInputRow::new(
        Method::POST,
        "/v1/reservations/best",
        vec![
            tokens(fixture, || bare().json(&good)),
            invalid_keys(|| call().json(&good)),
            bodies(&good, call),
            missing(&good, "/quantity", "quantity", call),
            field(&good, "/quantity", "quantity", quantities.into(), call),
            field(&good, "/section", "section", vec![json!(5), json!([]), json!({})], call),
            vec![
                BadInputCase::new(
                    "nowhere",
                    of(json!({"schedule_id": "nowhere", "quantity": 1})),
                    404,
                    "not_found",
                ),
                BadInputCase::new(
                    "five",
                    of(json!({"schedule_id": SCHEDULE, "quantity": 5})),
                    422,
                    "seat_limit_exceeded",
                ),
            ],
        ],
    )
}

fn cancel(fixture: &BadInputFixture) -> BadInputRow {
    let call = |id: &str| fixture.api.post(&format!("/v1/reservations/{id}/cancel"));
    let (alice, bob) = (&fixture.alice.user, &fixture.bob.user);
    let of = |id: &str| call(id).user(alice).key(&new_key());
    // Carol has bought seat 3.
    let carol = || call(&fixture.carols).user(&fixture.carol.user).key(&new_key());
    let bought = |body: Value| carol().json(&body);
    BadInputRow::new(
        Method::POST,
        "/v1/reservations/{id}/cancel",
        vec![
            identities(|| call(&fixture.carols).key(&new_key())),
            keys(|| call(&fixture.alices).user(alice)),
            ids(of),
            vec![
                BadInputCase::new("another user's", of(&fixture.carols), 404, "not_found"),
                BadInputCase::new(
                    "a reservation that is not bought",
                    of(&fixture.alices),
                    409,
                    "not_cancellable",
                ),
                BadInputCase::new(
                    "seats of a form",
                    carol().raw("application/x-www-form-urlencoded", "seats=3"),
                    415,
                    "unsupported_media_type",
                ),
                BadInputCase::new(
                    "no JSON",
                    carol().raw("application/json", "seats=3"),
                    400,
                    "malformed_request",
                ),
                BadInputCase::invalid("an unknown field", bought(json!({"seat": 3})), "seat"),
                BadInputCase::invalid(
                    "seats twice",
                    carol().raw("application/json", r#"{"seats": [3], "seats": [3]}"#),
                    "seats",
                ),
                BadInputCase::new(
                    "too long",
                    carol().raw("application/json", " ".repeat(65_537)),
                    413,
                    "body_too_large",
                ),
                BadInputCase::new(
                    "Bob's hold, by Bob",
                    call(&fixture.bobs).user(bob).key(&new_key()),
                    409,
                    "not_cancellable",
                ),
            ],
            [
                json!([]),
                json!([4]),
                json!([3, 3]),
                json!([3, 4]),
                json!([0]),
                json!([-3]),
                json!([3.5]),
                json!(["3"]),
                json!(3),
                json!("3"),
                json!({}),
            ]
            .map(|seats| {
                let call = bought(json!({"seats": seats}));
                let field = if seats
                    .as_array()
                    .is_some_and(|it| it.first().is_some_and(|it| it.as_u64().is_none()))
                {
                    "seats[0]"
                } else {
                    "seats"
                };
                BadInputCase::invalid(format!("the seats {seats}"), call, field)
            })
            .into(),
        ],
    )
}

/// Users who do not own the object: Alice for Bob's or Carol's, and an unknown user.
pub(super) fn strangers(
    fixture: &BadInputFixture,
    id: &str,
    call: impl Fn(&str) -> crate::support::api::ApiRequest,
) -> Vec<BadInputCase> {
    let (token, user) = (&fixture.alice.token, &fixture.alice.user);
    vec![
        BadInputCase::new("another user's, by token", call(id).token(token), 404, "not_found"),
        BadInputCase::new("another user's, by identity", call(id).user(user), 404, "not_found"),
        BadInputCase::new(
            "by a token of another queue",
            call(id).token(&fixture.alice_elsewhere.token),
            404,
            "not_found",
        ),
        BadInputCase::new("no identity", call(id), 401, "unauthenticated"),
        BadInputCase::new("an id with a space", call(id).user("a b"), 401, "unauthenticated"),
        BadInputCase::new(
            "a forged token",
            call(id).token(&fixture.foreign_token()),
            401,
            "invalid_queue_token",
        ),
        BadInputCase::new(
            "an empty token",
            call(id).token("").user(user),
            401,
            "invalid_queue_token",
        ),
        BadInputCase::new(
            "two users",
            call(id).token(token).user(&fixture.bob.user),
            403,
            "wrong_user",
        ),
    ]
}
