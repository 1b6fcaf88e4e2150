//! Payments and the wallet.

use reqwest::Method;
use serde_json::json;

use super::cases::{
    BadInputCase, BadInputRow, bodies, field, identities, ids, keys, missing, pages, tokens,
};
use super::fixture::BadInputFixture;
use super::public::strangers;
use crate::support::{new_key, new_user};

pub(super) fn rows(fixture: &BadInputFixture) -> Vec<BadInputRow> {
    let mut rows = payments(fixture);
    rows.extend(wallet(fixture));
    rows
}

fn payments(fixture: &BadInputFixture) -> Vec<BadInputRow> {
    let api = &fixture.api;
    let token = &fixture.alice.token;
    let good = json!({"reservation_id": fixture.alices});
    let external = json!({"reservation_id": fixture.alices, "method": "external"});
    let bare = || api.post("/v1/payments");
    let call = || bare().token(token).key(&new_key());
    let of = |token: &str, id: &str| {
        bare().token(token).key(&new_key()).json(&json!({"reservation_id": id}))
    };
    let not_there = |what: &str, id: &str| BadInputCase::new(what, of(token, id), 404, "not_found");
    let paying = vec![
        tokens(fixture, || bare().key(&new_key()).json(&good)),
        keys(|| bare().token(token).json(&good)),
        bodies(&good, call),
        missing(&good, "/reservation_id", "reservation_id", call),
        field(
            &good,
            "/reservation_id",
            "reservation_id",
            vec![json!(5), json!(null), json!([fixture.alices]), json!({}), json!(true)],
            call,
        ),
        field(
            &good,
            "/expected_amount",
            "expected_amount",
            vec![json!(-1), json!(1.5), json!("5"), json!(1_u64 << 53), json!([])],
            call,
        ),
        field(
            &good,
            "/method",
            "method",
            vec![json!("card"), json!("External"), json!(""), json!(5), json!(null)],
            call,
        ),
        field(
            &external,
            "/wallet_amount",
            "wallet_amount",
            vec![json!(-1), json!(1.5), json!("5"), json!(1_u64 << 53), json!(1_000), json!([])],
            call,
        ),
        field(&good, "/wallet_amount", "wallet_amount", vec![json!(0), json!(1)], call),
        vec![
            not_there("an empty id", ""),
            not_there("no id", "x"),
            not_there("an id in braces", &format!("{{{}}}", fixture.alices)),
            not_there("an unknown id", &new_user()),
            not_there("the id of a payment", &fixture.carols_payment),
            not_there("another user's hold", &fixture.bobs),
            not_there("another user's purchase", &fixture.carols),
            BadInputCase::new(
                "another user who waits",
                of(&fixture.wendy.token, &fixture.alices),
                404,
                "not_found",
            ),
            BadInputCase::new(
                "of another queue",
                of(token, &fixture.alices_elsewhere),
                403,
                "wrong_queue",
            ),
            BadInputCase::new(
                "by a token of another queue",
                of(&fixture.alice_elsewhere.token, &fixture.alices),
                403,
                "wrong_queue",
            ),
            BadInputCase::new(
                "a paid reservation",
                of(&fixture.carol.token, &fixture.carols),
                409,
                "not_payable",
            ),
        ],
    ];
    let list = |query: &str| api.get(&format!("/v1/payments{query}"));
    let listing =
        vec![identities(|| list("")), pages(|query| list(query).user(&fixture.alice.user))];
    let show = |id: &str| api.get(&format!("/v1/payments/{id}"));
    let reading = vec![
        strangers(fixture, &fixture.carols_payment, show),
        ids(|id| show(id).token(token)),
        ids(|id| show(id).user(&fixture.alice.user)),
        vec![BadInputCase::new(
            "the id of a reservation",
            show(&fixture.alices).token(token),
            404,
            "not_found",
        )],
    ];
    vec![
        BadInputRow::new(Method::POST, "/v1/payments", paying),
        BadInputRow::new(Method::GET, "/v1/payments", listing),
        BadInputRow::new(Method::GET, "/v1/payments/{id}", reading),
    ]
}

fn wallet(fixture: &BadInputFixture) -> Vec<BadInputRow> {
    let api = &fixture.api;
    let mut rows = vec![BadInputRow::new(
        Method::GET,
        "/v1/wallet",
        vec![identities(|| api.get("/v1/wallet"))],
    )];
    let user = &fixture.alice.user;
    let entries = |query: &str| api.get(&format!("/v1/wallet/entries{query}"));
    let unnamed = identities(|| entries(""));
    rows.push(BadInputRow::new(
        Method::GET,
        "/v1/wallet/entries",
        vec![unnamed, pages(|query| entries(query).user(user))],
    ));
    let good = json!({"amount": 100});
    for path in ["/v1/wallet/charges", "/v1/wallet/uses"] {
        let bare = || api.post(path);
        let call = || bare().user(user).key(&new_key());
        let of = |amount: i64| call().json(&json!({"amount": amount}));
        let bad = [
            json!(0),
            json!(-0.0),
            json!(-1),
            json!(-500),
            json!(12.5),
            json!(100.0),
            json!(1_u64 << 53),
            json!(1_u64 << 63),
            json!(i64::MIN),
            json!(u64::MAX),
            json!("#1e3"),
            json!("#1e400"),
            json!("#1E3"),
            json!("#100.00"),
            json!("#18446744073709551616"),
            json!("100"),
            json!("nan"),
            json!("0x10"),
            json!("1e3"),
            json!(""),
            json!(null),
            json!(true),
            json!([100]),
            json!({"amount": 100}),
        ];
        let raw = |body: &str| call().raw("application/json", body.to_owned());
        let unreadable = ["0x10", "NaN", "Infinity", "+5", "05", ".5", "5.", "1_000", "'5'"]
            .map(|amount| raw(&format!("{{\"amount\": {amount}}}")))
            .map(|call| BadInputCase::new("no JSON number", call, 400, "malformed_request"));
        let beyond = match path {
            "/v1/wallet/uses" => {
                BadInputCase::new("more than there is", of(5_001), 402, "insufficient_balance")
            }
            _ => BadInputCase::new(
                "more than fits",
                of((1 << 53) - 5_000),
                422,
                "balance_limit_exceeded",
            ),
        };
        rows.push(BadInputRow::new(
            Method::POST,
            path,
            vec![
                identities(|| bare().key(&new_key()).json(&good)),
                keys(|| bare().user(user).json(&good)),
                bodies(&good, call),
                missing(&good, "/amount", "amount", call),
                field(&good, "/amount", "amount", bad.into(), call),
                field(
                    &good,
                    "/reference",
                    "reference",
                    vec![json!(""), json!("x".repeat(65)), json!("a\nb"), json!(5), json!([])],
                    call,
                ),
                unreadable.into(),
                vec![beyond],
            ],
        ));
    }
    rows
}
