//! Cancellation of a user's reservation by an operator.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::api::{ApiRequest, TestUser};
use crate::support::world::{concert_definition, fast_queue_settings};
use crate::support::{ApiClient, CONCERT, SCHEDULE, TestWorld, new_key, new_user, on_one_and_two};

on_one_and_two!(
    organiser_cancels_after_the_deadline,
    organiser_cancels_some_seats,
    repeated_cancellation_has_one_effect,
    only_confirmed_reservations_can_be_cancelled,
);

const REASON: &str = "The seats are behind a camera.";

fn cancel(api: &ApiClient, reservation: &str, seats: Value) -> ApiRequest {
    api.admin_call(Method::POST, &format!("/admin/reservations/{reservation}/cancel"))
        .json(&json!({"reason": REASON, "seats": seats}))
}

/// A concert of which users can't cancel any more.
async fn open(world: &TestWorld) {
    world.put_queue(CONCERT, fast_queue_settings()).await;
    let mut concert = concert_definition(9, 3_000);
    concert["cancel_until"] = json!("2020-01-01T00:00:00Z");
    world.put_concert(CONCERT, concert).await;
}

/// A user who has bought these seats.
async fn buyer(api: &ApiClient, seats: &[u32]) -> (TestUser, String) {
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 10_000).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, seats).await;
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    (guest, reservation)
}

fn numbers(seats: &Value) -> Vec<u64> {
    seats.as_array().unwrap().iter().map(|seat| seat["number"].as_u64().unwrap()).collect()
}

async fn organiser_cancels_after_the_deadline(world: TestWorld) {
    open(&world).await;
    let api = &world.api;
    let (guest, reservation) = buyer(api, &[1, 2]).await;
    let path = format!("/v1/reservations/{reservation}");
    let by_user = api.post(&format!("{path}/cancel")).user(&guest.user).key(&new_key());
    by_user.send().await.problem(403, "cancellation_closed");
    let before = api.get(&path).user(&guest.user).send().await.expect(200);
    let answer = cancel(api, &reservation, Value::Null).send().await.expect(200);
    assert_eq!((&answer["id"], &answer["status"]), (&json!(reservation), &json!("cancelled")));
    assert_eq!(api.get(&path).user(&guest.user).send().await.expect(200), answer);
    assert_eq!(api.balance(&guest.user).await, 10_000);
    let log = api.admin_call(Method::GET, "/admin/actions").send().await.expect(200);
    let action = &log["items"][0];
    assert_eq!((&action["object"], &action["before"]), (&json!(reservation), &before));
    assert_eq!(
        (&action["after"]["status"], &action["after"]["reason"]),
        (&json!("cancelled"), &json!(REASON))
    );
    let facts = world.stores.audit().await;
    assert_eq!((facts.payments_that_are("refunded"), facts.sold.len()), (1, 0));
}

async fn organiser_cancels_some_seats(world: TestWorld) {
    open(&world).await;
    let api = &world.api;
    let (guest, reservation) = buyer(api, &[1, 2, 3]).await;
    for seats in [json!([]), json!([4]), json!([2, 2]), json!([2, 4])] {
        let refused = cancel(api, &reservation, seats.clone()).send().await;
        let refused = refused.problem(422, "invalid_request");
        assert_eq!(refused["errors"][0]["field"], "seats", "{seats}");
    }
    assert_eq!(api.balance(&guest.user).await, 1_000);
    let answer = cancel(api, &reservation, json!([2])).send().await.expect(200);
    assert_eq!(answer["status"], "confirmed");
    assert_eq!(
        (numbers(&answer["seats"]), numbers(&answer["cancelled_seats"])),
        (vec![1, 3], vec![2])
    );
    assert_eq!(api.balance(&guest.user).await, 4_000);
    assert_eq!(world.stores.audit().await.sold.len(), 2);
    cancel(api, &reservation, json!([2])).send().await.problem(409, "not_cancellable");
    let rest = cancel(api, &reservation, Value::Null).send().await.expect(200);
    assert_eq!(rest["status"], "cancelled");
    assert_eq!(api.balance(&guest.user).await, 10_000);
    world.stores.audit().await;
}

async fn repeated_cancellation_has_one_effect(world: TestWorld) {
    open(&world).await;
    let api = &world.api;
    let (guest, reservation) = buyer(api, &[1, 2, 3]).await;
    let key = "k".repeat(128);
    // The user's requests have other keys, even if they look the same.
    api.charge_with_key(&guest.user, 500, &key).await.expect(201);
    let first = cancel(api, &reservation, json!([1])).key(&key).send().await;
    assert_eq!(first.header("idempotency-replayed"), None);
    let first = first.expect(200);
    cancel(api, &reservation, json!([3])).key(&new_key()).send().await.expect(200);
    for _ in 0..2 {
        let again = cancel(api, &reservation, json!([1])).key(&key).send().await;
        assert_eq!(
            (again.expect(200), again.header("idempotency-replayed")),
            (first.clone(), Some("true"))
        );
    }
    let other = cancel(api, &reservation, json!([2])).key(&key).send().await;
    other.problem(422, "idempotency_key_reused");
    assert_eq!(api.balance(&guest.user).await, 7_500);
    world.stores.wait_until_idle().await;
    world.stores.audit().await;
}

async fn only_confirmed_reservations_can_be_cancelled(world: TestWorld) {
    open(&world).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    let held = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    let key = new_key();
    cancel(api, &held, Value::Null).key(&key).send().await.problem(409, "not_cancellable");
    cancel(api, &new_user(), Value::Null).send().await.problem(404, "not_found");
    api.charge(&guest.user, 3_000).await;
    api.pay(&guest.token, &held, &new_key()).await.expect(201);
    // A refusal is not stored, so the key can be used again.
    cancel(api, &held, Value::Null).key(&key).send().await.expect(200);
    cancel(api, &held, Value::Null).send().await.problem(409, "not_cancellable");
    assert_eq!(api.balance(&guest.user).await, 3_000);
    world.stores.audit().await;
}
