//! Payments by an external provider.

use reqwest::Method;
use serde_json::{Value, json};

use super::cases::{BadInputCase, BadInputRow, bodies, field, identities, ids, missing, pages};
use super::fixture::BadInputFixture;
use super::public::strangers;
use crate::support::api::ApiRequest;

const PRICE: i64 = 1_000;

pub(super) fn rows(fixture: &BadInputFixture) -> Vec<BadInputRow> {
    let refunds =
        |query: &str| fixture.api.admin_call(Method::GET, &format!("/admin/refunds-due{query}"));
    vec![
        confirm(fixture),
        void(fixture),
        refunded(fixture),
        BadInputRow::new(Method::GET, "/admin/refunds-due", vec![pages(refunds)]),
    ]
}

fn path(id: &str, verb: &str) -> String {
    format!("/v1/payments/{id}/{verb}")
}

/// References and names of providers that are no names.
fn texts(longest: usize) -> Vec<Value> {
    vec![
        json!(""),
        json!("x".repeat(longest + 1)),
        json!("a b"),
        json!("a\nb"),
        json!("결제"),
        json!(5),
        json!(null),
        json!(["pay_1"]),
    ]
}

/// Negative, fractional and too large amounts, and amounts that are no numbers.
fn amounts() -> Vec<Value> {
    vec![
        json!(-1),
        json!(0.5),
        json!("#1e3"),
        json!("1000"),
        json!(1_u64 << 53),
        json!(null),
        json!({"value": PRICE, "currency": "USD"}),
    ]
}

/// Callers that are no service. `call` has no identity and goes to an instance.
fn callers(fixture: &BadInputFixture, verb: &str, good: &Value) -> Vec<BadInputCase> {
    let path = path(&fixture.daves_payment, verb);
    let plain = || fixture.api.post(&path).json(good);
    let strict = || fixture.backend.post(&path).json(good);
    let mut cases = identities(plain);
    cases.extend([
        BadInputCase::new("the user", plain().user(&fixture.dave.user), 403, "forbidden"),
        BadInputCase::new("the token", plain().token(&fixture.dave.token), 401, "unauthenticated"),
        BadInputCase::new("no key", strict(), 401, "unauthenticated"),
        BadInputCase::new(
            "a key that is none",
            strict().header("authorization", "Bearer x"),
            401,
            "unauthenticated",
        ),
        BadInputCase::new(
            "a user without the key",
            strict().user(&fixture.dave.user),
            401,
            "unauthenticated",
        ),
        BadInputCase::new(
            "a key for another user",
            fixture.service(&path).user(&fixture.bob.user).json(good),
            404,
            "not_found",
        ),
    ]);
    cases
}

fn confirm(fixture: &BadInputFixture) -> BadInputRow {
    let good = json!({"provider": "toss", "reference": "pay_1", "amount": PRICE});
    let of = |id: &str| fixture.service(&path(id, "confirm"));
    let call = || of(&fixture.daves_payment);
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    BadInputRow::new(
        Method::POST,
        "/v1/payments/{id}/confirm",
        vec![
            callers(fixture, "confirm", &good),
            ids(|id| of(id).json(&good)),
            bodies(&good, call),
            missing(&good, "/provider", "provider", call),
            missing(&good, "/reference", "reference", call),
            missing(&good, "/amount", "amount", call),
            field(&good, "/provider", "provider", texts(64), call),
            field(&good, "/reference", "reference", texts(299), call),
            field(&good, "/amount", "amount", amounts(), call),
            vec![
                BadInputCase::invalid(
                    "another currency",
                    call().json(&with("currency", json!("USD"))),
                    "currency",
                ),
                BadInputCase::new(
                    "nothing",
                    call().json(&with("amount", json!(0))),
                    422,
                    "amount_mismatch",
                ),
                BadInputCase::new(
                    "too much",
                    call().json(&with("amount", json!(PRICE + 1))),
                    422,
                    "amount_mismatch",
                ),
                BadInputCase::new(
                    "a payment by wallet",
                    of(&fixture.carols_payment).json(&good),
                    409,
                    "already_confirmed",
                ),
            ],
        ],
    )
}

fn void(fixture: &BadInputFixture) -> BadInputRow {
    let of = |id: &str| fixture.service(&path(id, "void"));
    let call = || of(&fixture.daves_payment);
    let good = json!({"reason": "declined"});
    let own = |id: &str| fixture.api.post(&path(id, "void"));
    let reasons = vec![
        json!(""),
        json!("x".repeat(65)),
        json!("a\nb"),
        json!(5),
        json!(["declined"]),
        json!("overdue"),
    ];
    let of_form = |call: ApiRequest| call.raw("application/x-www-form-urlencoded", "reason=x");
    BadInputRow::new(
        Method::POST,
        "/v1/payments/{id}/void",
        vec![
            strangers(fixture, &fixture.daves_payment, own),
            ids(|id| of(id).json(&good)),
            field(&good, "/reason", "reason", reasons, call),
            vec![
                BadInputCase::invalid(
                    "an unknown field",
                    call().json(&json!({"because": "x"})),
                    "because",
                ),
                BadInputCase::new("a form", of_form(call()), 415, "unsupported_media_type"),
                BadInputCase::new(
                    "a key for another user",
                    call().user(&fixture.bob.user).json(&good),
                    404,
                    "not_found",
                ),
                BadInputCase::new(
                    "a confirmed payment",
                    of(&fixture.carols_payment),
                    409,
                    "not_voidable",
                ),
                BadInputCase::new(
                    "a confirmed payment, by its user",
                    own(&fixture.carols_payment).user(&fixture.carol.user),
                    409,
                    "not_voidable",
                ),
            ],
        ],
    )
}

fn refunded(fixture: &BadInputFixture) -> BadInputRow {
    let good = json!({"reference": "refund_1", "amount": PRICE});
    let of = |id: &str| fixture.service(&path(id, "refunded"));
    let call = || of(&fixture.daves_payment);
    let mut zero = amounts();
    zero.push(json!(0));
    let nothing_due =
        |id: &str| BadInputCase::new("nothing is due", of(id).json(&good), 422, "amount_mismatch");
    BadInputRow::new(
        Method::POST,
        "/v1/payments/{id}/refunded",
        vec![
            callers(fixture, "refunded", &good),
            ids(|id| of(id).json(&good)),
            bodies(&good, call),
            missing(&good, "/reference", "reference", call),
            missing(&good, "/amount", "amount", call),
            field(&good, "/reference", "reference", texts(299), call),
            field(&good, "/amount", "amount", zero, call),
            vec![nothing_due(&fixture.daves_payment), nothing_due(&fixture.carols_payment)],
        ],
    )
}
