//! External payments: the two phases, what is refused, and what a void gives back.

use futures::future::join_all;
use serde_json::json;

use super::external_sale::{ExternalSale, OFF, PRICE};
use crate::support::{CONCERT, SCHEDULE, eventually, new_key};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirmed_payment_has_three_parts() {
    let sale = ExternalSale::open().await;
    let (guest, reservation) = sale.holder(5_000, &[1]).await;
    let key = new_key();
    let more = json!({"coupon_issue_id": sale.coupon_issue(&guest).await, "wallet_amount": 3_000,
        "expected_amount": PRICE - OFF});
    let pending = sale.begin(&guest, &reservation, more.clone(), &key).await;
    let payment = pending.expect(201);
    for (field, value) in [
        ("status", json!("pending")),
        ("method", json!("external")),
        ("due_amount", json!(PRICE - OFF - 3_000)),
        ("wallet_amount", json!(3_000)),
        ("discount", json!(OFF)),
        ("paid", json!(0)),
        ("settled_at", json!(null)),
    ] {
        assert_eq!(payment[field], value, "{field}: {payment}");
    }
    assert!(payment["due_at"].is_string(), "{payment}");
    assert_eq!(sale.users.balance(&guest.user).await, 2_000, "the wallet part is debited");
    let other = sale.users.active_user(CONCERT).await;
    assert_eq!(sale.users.seats(&other.token, SCHEDULE).await[0], "held");
    let held = sale.reservation(&guest, &payment).await;
    assert_eq!((&held["status"], &held["held_until"]), (&json!("paying"), &payment["due_at"]));
    let again = sale.begin(&guest, &reservation, more, &key).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.expect(201), payment);
    sale.world.stores.audit().await;

    let confirmed = sale.confirm(&payment, "pay_1").await.expect(200);
    assert_eq!(confirmed["status"], "confirmed");
    assert_eq!(
        (&confirmed["provider"], &confirmed["reference"]),
        (&json!("toss"), &json!("pay_1"))
    );
    assert_eq!((&confirmed["paid"], &confirmed["due_at"]), (&json!(PRICE - OFF), &json!(null)));
    assert_eq!(sale.confirm(&payment, "pay_1").await.expect(200), confirmed, "again: the same");
    sale.confirm(&payment, "pay_2").await.problem(409, "already_confirmed");
    sale.service(1, &payment, "void", json!({})).await.problem(409, "not_voidable");
    assert_eq!(sale.users.seats(&other.token, SCHEDULE).await[0], "sold");
    let issues =
        sale.users.get("/v1/coupons/issues/mine").user(&guest.user).send().await.expect(200);
    assert!(issues["items"][0]["used_at"].is_string(), "{issues}");
    assert_eq!(sale.world.stores.audit().await.payments_that_are("confirmed"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_confirmations_move_nothing() {
    let sale = ExternalSale::open().await;
    let (guest, payment) = sale.pending(1).await;
    let body = |amount| json!({"provider": "toss", "reference": "pay_1", "amount": amount});
    for amount in [0, PRICE - 1, PRICE + 1] {
        let refused = sale.service(0, &payment, "confirm", body(amount)).await;
        assert_eq!(refused.problem(422, "amount_mismatch")["due_amount"], PRICE);
    }
    assert_eq!(sale.read(&guest, &payment).await["status"], "pending");
    // The wrong amounts did not use the reference.
    let (_, other) = sale.pending(2).await;
    sale.confirm(&other, "pay_1").await.expect(200);
    sale.confirm(&payment, "pay_1").await.problem(409, "reference_used");
    // The same reference of another provider is another payment.
    let body = json!({"provider": "stripe", "reference": "pay_1", "amount": PRICE});
    sale.service(1, &payment, "confirm", body).await.expect(200);
    sale.world.stores.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_confirmations_use_a_reference_once() {
    let sale = ExternalSale::open().await;
    let mut payments = Vec::new();
    for seat in 1..=6 {
        payments.push(sale.pending(seat).await.1);
    }
    let body = json!({"provider": "toss", "reference": "same", "amount": PRICE});
    let calls = payments.iter().enumerate().flat_map(|(at, payment)| {
        let body = &body;
        let sale = &sale;
        (0..2).map(move |turn| sale.service((at + turn) % 2, payment, "confirm", body.clone()))
    });
    let answers = join_all(calls).await;
    let confirmed: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(confirmed.len(), 2, "both calls for one payment");
    assert_eq!(confirmed[0].body["id"], confirmed[1].body["id"]);
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        refused.problem(409, "reference_used");
    }
    sale.world.stores.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn void_gives_back_what_was_taken() {
    let sale = ExternalSale::open().await;
    let (guest, reservation) = sale.holder(5_000, &[1]).await;
    let issue = sale.coupon_issue(&guest).await;
    let more = json!({"coupon_issue_id": issue, "wallet_amount": 3_000});
    let key = new_key();
    let payment = sale.begin(&guest, &reservation, more.clone(), &key).await.expect(201);
    let voided =
        sale.service(0, &payment, "void", json!({"reason": "declined_by_card"})).await.expect(200);
    assert_eq!(
        (&voided["status"], &voided["reason"]),
        (&json!("voided"), &json!("declined_by_card"))
    );
    assert_eq!(sale.service(1, &payment, "void", json!({})).await.expect(200), voided);
    assert_eq!(sale.users.balance(&guest.user).await, 5_000);
    sale.confirm(&payment, "late").await.problem(409, "payment_voided");
    assert_eq!(sale.reservation(&guest, &payment).await["status"], "held", "the hold goes on");
    sale.world.stores.audit().await;

    // The same request again is a further attempt, which the user voids.
    let again = sale.begin(&guest, &reservation, more.clone(), &key).await.expect(201);
    assert_eq!((&again["id"], &again["status"]), (&payment["id"], &json!("pending")));
    let path = format!("/v1/payments/{}/void", payment["id"].as_str().unwrap());
    let stranger = sale.users.active_user(CONCERT).await;
    sale.users.post(&path).user(&stranger.user).send().await.problem(404, "not_found");
    sale.users.post(&path).token(&guest.token).send().await.expect(200);
    // And a third one is confirmed, with the reference that came too late before.
    let third = sale.begin(&guest, &reservation, more, &key).await.expect(201);
    sale.confirm(&third, "late").await.expect(200);
    assert_eq!(sale.users.balance(&guest.user).await, 2_000);
    sale.world.stores.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payment_past_its_time_frees_its_seats() {
    let sale = ExternalSale::open().await;
    let (guest, reservation) = sale.holder(5_000, &[1]).await;
    let more = json!({"wallet_amount": 3_000});
    let payment = sale.begin(&guest, &reservation, more, &new_key()).await.expect(201);
    assert_eq!(sale.end_waits().await, 1);
    sale.confirm(&payment, "pay_1").await.problem(409, "payment_voided");
    eventually("the payment is voided", async || {
        (sale.read(&guest, &payment).await["status"] == "voided").then_some(())
    })
    .await;
    assert_eq!(sale.users.balance(&guest.user).await, 5_000);
    sale.confirm(&payment, "pay_1").await.problem(409, "payment_voided");
    sale.world.stores.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hold_is_not_longer_than_the_time_of_the_payment() {
    let sale = ExternalSale::open().await;
    let mut definition = crate::support::world::concert_definition(50, PRICE);
    definition["payment_seconds"] = json!(60);
    definition["hold_seconds"] = json!(3_600);
    sale.world.put_concert(CONCERT, definition).await;
    let (guest, payment) = sale.pending(1).await;
    let held = sale.reservation(&guest, &payment).await;
    assert_eq!(held["held_until"], payment["due_at"]);
    sale.service(0, &payment, "void", json!({})).await.expect(200);
    let held = sale.reservation(&guest, &payment).await;
    assert_eq!((&held["status"], &held["held_until"]), (&json!("held"), &payment["due_at"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_payments_of_a_user_may_wait() {
    let sale = ExternalSale::open().await;
    let guest = sale.users.active_user(CONCERT).await;
    let mut pending = Vec::new();
    for seat in 1..=4 {
        let reservation = sale.users.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
        pending.push((reservation, new_key()));
    }
    // Pending payments count towards the seats of the user.
    sale.users.hold(&guest.token, SCHEDULE, &[5]).await.problem(422, "seat_limit_exceeded");
    let begin = async |at: usize| {
        let (reservation, key): &(String, String) = &pending[at];
        sale.begin(&guest, reservation, json!({}), key).await
    };
    let mut first = json!(null);
    for at in 0..3 {
        let payment = begin(at).await.expect(201);
        first = if at == 0 { payment } else { first };
    }
    begin(3).await.problem(409, "too_many_pending");
    sale.service(0, &first, "void", json!({})).await.expect(200);
    let fourth = begin(3).await.expect(201);
    begin(0).await.problem(409, "too_many_pending");
    sale.confirm(&fourth, "pay_4").await.expect(200);
    begin(0).await.expect(201);
    sale.world.stores.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_beginnings_change_nothing() {
    let sale = ExternalSale::open().await;
    let (guest, reservation) = sale.holder(20_000, &[1]).await;
    for more in [json!({"wallet_amount": PRICE}), json!({"wallet_amount": PRICE + 1})] {
        let refused = sale.begin(&guest, &reservation, more, &new_key()).await;
        let problem = refused.problem(422, "invalid_request");
        assert_eq!(problem["errors"][0]["field"], "wallet_amount");
    }
    let issue = sale.coupon_issue(&guest).await;
    let more = json!({"wallet_amount": PRICE - OFF, "coupon_issue_id": issue});
    let refused = sale.begin(&guest, &reservation, more, &new_key()).await;
    refused.problem(422, "invalid_request");
    let more = json!({"expected_amount": PRICE - 1});
    let refused = sale.begin(&guest, &reservation, more, &new_key()).await;
    assert_eq!(refused.problem(409, "amount_changed")["amount"], PRICE);
    let (poor, poors) = sale.holder(10, &[2]).await;
    let more = json!({"wallet_amount": 11});
    sale.begin(&poor, &poors, more, &new_key()).await.problem(402, "insufficient_balance");
    assert_eq!(sale.users.balance(&guest.user).await, 20_000);
    assert_eq!(sale.world.stores.audit().await.payments_that_are("declined"), 2);
    sale.begin(&guest, &reservation, json!({"wallet_amount": PRICE - 1}), &new_key())
        .await
        .expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_service_confirms_external_payments() {
    let sale = ExternalSale::open().await;
    let (guest, payment) = sale.pending(1).await;
    let id = payment["id"].as_str().unwrap();
    let body = json!({"provider": "toss", "reference": "pay_1", "amount": PRICE});
    for verb in ["confirm", "refunded"] {
        let path = format!("/v1/payments/{id}/{verb}");
        let call = || sale.users.post(&path).json(&body);
        call().user(&guest.user).send().await.problem(403, "forbidden");
        call().token(&guest.token).send().await.problem(401, "unauthenticated");
    }
    let (buyer, reservation) = sale.holder(PRICE, &[2]).await;
    let paid = sale.users.pay(&buyer.token, &reservation, &new_key()).await.expect(201);
    sale.service(0, &paid, "confirm", body.clone()).await.problem(409, "already_confirmed");
    sale.service(0, &paid, "void", json!({})).await.problem(409, "not_voidable");
    let report = json!({"reference": "refund_1", "amount": 1});
    sale.service(0, &paid, "refunded", report).await.problem(422, "amount_mismatch");
    sale.service(0, &payment, "confirm", body).await.expect(200);
    sale.world.stores.audit().await;
}
