//! Cancellation of some seats of a reservation.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::coupons::payments::{coupon, issue};
use crate::recovery::restore::{lose_redis, queue_without_window};
use crate::support::api::TestUser;
use crate::support::world::fast_queue_settings;
use crate::support::{
    ApiClient, ApiResponse, CONCERT, SCHEDULE, TestStores, TestWorld, new_key, on_one_and_two,
};

on_one_and_two!(
    some_seats_are_cancelled,
    refunds_are_rounded_down_and_add_up,
    seats_outside_the_reservation_are_refused,
    calls_under_one_key_get_its_answer,
    concurrent_cancellations_of_seats_refund_each_once,
    coupon_returns_with_the_last_seats,
    pruned_reservation_loses_some_seats,
);

async fn cancel(
    api: &ApiClient,
    user: &str,
    reservation: &str,
    body: Value,
    key: &str,
) -> ApiResponse {
    let path = format!("/v1/reservations/{reservation}/cancel");
    api.post(&path).user(user).key(key).json(&body).send().await
}

/// A concert whose seats 1 and 2 cost 3,000, 3 costs 1,000 and 4 is free.
fn priced() -> Value {
    let section = |name: &str, from: u32, to: u32, price: i64| {
        json!({"name": name, "from": from,
        "to": to, "price": price})
    };
    json!({"title": "The show", "max_seats_per_user": 10, "schedules": [{"id": SCHEDULE,
        "starts_at": "2100-01-01T19:00:00.000Z",
        "sections": [section("A", 1, 2, 3_000), section("B", 3, 3, 1_000),
            section("C", 4, 4, 0)]}]})
}

/// A user who has bought these seats, perhaps with a coupon of 500.
async fn buyer(world: &TestWorld, seats: &[u32], with_coupon: bool) -> (TestUser, String, Value) {
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 10_000).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, seats).await;
    let mut body = json!({"reservation_id": reservation});
    if with_coupon {
        api.put("/admin/coupons/off", &coupon(500, 0)).await.expect(200);
        world.wait_on_every_instance("/v1/coupons/off", |_| true).await;
        body["coupon_issue_id"] = json!(issue(api, &guest.user).await);
    }
    let pay = api.post("/v1/payments").token(&guest.token).key(&new_key()).json(&body);
    let payment = pay.send().await.expect(201);
    (guest, reservation, payment)
}

async fn open(world: &TestWorld) {
    world.put_queue(CONCERT, fast_queue_settings()).await;
    world.put_concert(CONCERT, priced()).await;
}

fn numbers(seats: &Value) -> Vec<u64> {
    seats.as_array().unwrap().iter().map(|seat| seat["number"].as_u64().unwrap()).collect()
}

async fn payment_of(api: &ApiClient, user: &str, payment: &Value) -> Value {
    let path = format!("/v1/payments/{}", payment["id"].as_str().unwrap());
    api.get(&path).user(user).send().await.expect(200)
}

async fn some_seats_are_cancelled(world: TestWorld) {
    open(&world).await;
    let api = &world.api;
    let (guest, reservation, payment) = buyer(&world, &[3, 1, 2], false).await;
    let answer =
        cancel(api, &guest.user, &reservation, json!({"seats": [1]}), &new_key()).await.expect(200);
    assert_eq!(answer["status"], "confirmed");
    assert_eq!(
        (numbers(&answer["seats"]), numbers(&answer["cancelled_seats"])),
        (vec![3, 2], vec![1])
    );
    assert_eq!((&answer["amount"], &answer["paid"]), (&json!(7_000), &json!(7_000)));
    assert_eq!(api.balance(&guest.user).await, 6_000);
    let paid = payment_of(api, &guest.user, &payment).await;
    assert_eq!((&paid["status"], &paid["refunded"]), (&json!("confirmed"), &json!(3_000)));
    for _ in 0..2 {
        let path = format!("/v1/reservations/{reservation}");
        assert_eq!(api.get(&path).user(&guest.user).send().await.expect(200), answer);
        let mine = api.get("/v1/reservations/mine").user(&guest.user).send().await.expect(200);
        assert_eq!(mine["items"][0], answer);
        let all = api.get("/v1/payments").user(&guest.user).send().await.expect(200);
        assert_eq!(all["items"][0]["refunded"], 3_000);
        world.stores.wait_until_idle().await;
    }
    let facts = world.stores.audit().await;
    assert_eq!(facts.sold.len(), 2);
    // The freed seat can be sold, and its buyer keeps it when the first one cancels the rest.
    let (other, resold, _) = buyer(&world, &[1], false).await;
    cancel(api, &guest.user, &reservation, json!({"seats": [1]}), &new_key())
        .await
        .problem(409, "not_cancellable");
    let rest = cancel(api, &guest.user, &reservation, json!({}), &new_key()).await.expect(200);
    assert_eq!(rest["status"], "cancelled");
    assert_eq!(
        (numbers(&rest["seats"]), numbers(&rest["cancelled_seats"])),
        (vec![], vec![3, 1, 2])
    );
    let paid = payment_of(api, &guest.user, &payment).await;
    assert_eq!((&paid["status"], &paid["refunded"]), (&json!("refunded"), &json!(7_000)));
    assert_eq!(api.balance(&guest.user).await, 10_000);
    assert_eq!(world.stores.audit().await.sold.len(), 1);
    cancel(api, &other.user, &resold, json!({"seats": null}), &new_key()).await.expect(200);
    world.stores.audit().await;
}

async fn refunds_are_rounded_down_and_add_up(world: TestWorld) {
    open(&world).await;
    let api = &world.api;
    let (guest, reservation, payment) = buyer(&world, &[1, 2, 3, 4], true).await;
    assert_eq!(payment["paid"], 6_500);
    let mut balance = 3_500;
    // 6,500 × 3,000 ÷ 7,000 = 2,785.7, of the free seat 0, and the rest.
    for (seats, refund) in
        [(json!([2]), 2_785), (json!([4]), 0), (json!([3]), 928), (json!([1]), 2_787)]
    {
        cancel(api, &guest.user, &reservation, json!({"seats": seats}), &new_key())
            .await
            .expect(200);
        balance += refund;
        assert_eq!(api.balance(&guest.user).await, balance, "{seats}");
        world.stores.audit().await;
    }
    assert_eq!(balance, 10_000);
    let paid = payment_of(api, &guest.user, &payment).await;
    assert_eq!((&paid["status"], &paid["refunded"]), (&json!("refunded"), &json!(6_500)));
}

async fn seats_outside_the_reservation_are_refused(world: TestWorld) {
    open(&world).await;
    let api = &world.api;
    let (guest, reservation, _) = buyer(&world, &[1, 2], false).await;
    let key = new_key();
    for seats in [json!([3]), json!([1, 3]), json!([1, 1]), json!([]), json!([0]), json!([99])] {
        let refused = cancel(api, &guest.user, &reservation, json!({"seats": seats}), &key).await;
        let refused = refused.problem(422, "invalid_request");
        assert_eq!(refused["errors"][0]["field"], "seats", "{seats}");
    }
    assert_eq!(api.balance(&guest.user).await, 4_000);
    // A refusal is not stored, so the key can be used again.
    cancel(api, &guest.user, &reservation, json!({"seats": [2]}), &key).await.expect(200);
    cancel(api, &guest.user, &reservation, json!({"seats": [2]}), &new_key())
        .await
        .problem(409, "not_cancellable");
    cancel(api, &guest.user, &reservation, json!({"seats": [1, 2]}), &new_key())
        .await
        .problem(409, "not_cancellable");
    world.stores.audit().await;
}

async fn calls_under_one_key_get_its_answer(world: TestWorld) {
    open(&world).await;
    let api = &world.api;
    let (guest, reservation, _) = buyer(&world, &[1, 2, 3], false).await;
    let (first, second) = (new_key(), new_key());
    let by = |seats: Value, key: &str| {
        let key = key.to_owned();
        let (user, reservation) = (guest.user.clone(), reservation.clone());
        async move { cancel(api, &user, &reservation, json!({"seats": seats}), &key).await }
    };
    let one = by(json!([1]), &first).await.expect(200);
    let two = by(json!([2]), &second).await.expect(200);
    assert_eq!(numbers(&two["cancelled_seats"]), [1, 2]);
    let last = cancel(api, &guest.user, &reservation, json!({}), &new_key()).await.expect(200);
    assert_eq!(last["status"], "cancelled");
    for _ in 0..2 {
        for (seats, key, answer) in [(json!([1]), &first, &one), (json!([2]), &second, &two)] {
            let again = by(seats, key).await;
            assert_eq!(
                (again.expect(200), again.header("idempotency-replayed")),
                (answer.clone(), Some("true"))
            );
        }
        by(json!([2]), &first).await.problem(422, "idempotency_key_reused");
        world.stores.wait_until_idle().await;
    }
    world.stores.audit().await;
}

async fn concurrent_cancellations_of_seats_refund_each_once(world: TestWorld) {
    open(&world).await;
    let api = &world.api;
    let (guest, reservation, _) = buyer(&world, &[1, 2, 3, 4], true).await;
    let keys: Vec<_> = [1, 2, 3, 4].map(|seat| (json!([seat]), new_key())).into();
    let calls = keys.iter().flat_map(|call| std::iter::repeat_n(call, 6));
    let answers =
        join_all(calls.map(|(seats, key)| {
            cancel(api, &guest.user, &reservation, json!({"seats": seats}), key)
        }))
        .await;
    for same in answers.chunks(6) {
        let first = same[0].expect(200);
        for answer in same {
            assert_eq!(answer.expect(200), first, "calls under one key get one answer");
        }
    }
    assert_eq!(api.balance(&guest.user).await, 10_000);
    assert_eq!(world.stores.audit().await.sold.len(), 0);
    // The whole reservation at once, by rivals and twins.
    let (guest, reservation, _) = buyer(&world, &[1, 2], false).await;
    let keys: Vec<_> = (0..6).map(|_| new_key()).collect();
    let calls = keys.iter().flat_map(|key| std::iter::repeat_n(key, 4));
    let answers =
        join_all(calls.map(|key| cancel(api, &guest.user, &reservation, json!({}), key))).await;
    let mut winners = 0;
    for same in answers.chunks(4) {
        winners += u32::from(same[0].status == 200);
        for answer in same {
            assert_eq!(answer.status, same[0].status, "calls under one key get one status");
            assert!([200, 409].contains(&answer.status), "{}", answer.text);
        }
    }
    assert_eq!(winners, 1);
    assert_eq!(api.balance(&guest.user).await, 10_000);
    world.stores.audit().await;
}

async fn coupon_returns_with_the_last_seats(world: TestWorld) {
    open(&world).await;
    let api = &world.api;
    let (guest, reservation, _) = buyer(&world, &[1, 2], true).await;
    let used_at = async || {
        let issues = api.get("/v1/coupons/issues/mine").user(&guest.user).send().await;
        issues.expect(200)["items"][0]["used_at"].clone()
    };
    cancel(api, &guest.user, &reservation, json!({"seats": [1]}), &new_key()).await.expect(200);
    assert_ne!(used_at().await, Value::Null);
    world.stores.audit().await;
    cancel(api, &guest.user, &reservation, json!({"seats": [2]}), &new_key()).await.expect(200);
    assert_eq!(used_at().await, Value::Null);
    assert_eq!(api.balance(&guest.user).await, 10_000);
    world.stores.audit().await;
}

async fn pruned_reservation_loses_some_seats(world: TestWorld) {
    open(&world).await;
    let api = &world.api;
    let (guest, reservation, _) = buyer(&world, &[1, 2, 3], false).await;
    let keys = [new_key(), new_key(), new_key()];
    let mut answers = Vec::new();
    for (seat, key) in (1..).zip(&keys) {
        world.stores.wait_until_idle().await;
        let mut redis = world.stores.redis().await;
        let partition = world.stores.partition_of(CONCERT);
        for name in ["payments", "reservations"] {
            redis.ask(&["DEL", &world.stores.key(partition, name)]).await;
        }
        let body = json!({"seats": [seat]});
        answers.push(cancel(api, &guest.user, &reservation, body, key).await.expect(200));
        world.stores.audit().await;
    }
    assert_eq!(answers[2]["status"], "cancelled");
    assert_eq!(api.balance(&guest.user).await, 10_000);
    for ((seat, key), answer) in (1..).zip(&keys).zip(&answers) {
        let again = cancel(api, &guest.user, &reservation, json!({"seats": [seat]}), key).await;
        assert_eq!(again.expect(200), *answer);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partial_cancellation_survives_a_loss_of_redis() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 2).await;
    world.put_queue(CONCERT, queue_without_window()).await;
    world.put_concert(CONCERT, priced()).await;
    let api = &world.api;
    let (guest, reservation, payment) = buyer(&world, &[1, 2, 4], true).await;
    let keys = [new_key(), new_key(), new_key()];
    let by = |seat: u32, key: &str| {
        let (key, user, reservation) = (key.to_owned(), guest.user.clone(), reservation.clone());
        async move { cancel(api, &user, &reservation, json!({"seats": [seat]}), &key).await }
    };
    let mut answers = Vec::new();
    for (seat, key) in [1, 4, 2].into_iter().zip(&keys) {
        answers.push((seat, key, by(seat, key).await.expect(200)));
        let facts = world.stores.audit().await;
        lose_redis(&world).await;
        assert_eq!(world.stores.audit().await, facts);
        for (seat, key, answer) in &answers {
            assert_eq!(by(*seat, key).await.expect(200), *answer);
        }
        world.stores.audit().await;
    }
    assert_eq!(api.balance(&guest.user).await, 10_000);
    assert_eq!(payment_of(api, &guest.user, &payment).await["status"], "refunded");
}
