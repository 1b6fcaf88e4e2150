//! Revocable rewards: a cancellation that makes the conditions false takes the points back.

use reqwest::Method;
use serde_json::{Value, json};

use crate::recovery::restore::lose_redis;
use crate::support::{
    ApiClient, ApiResponse, CONCERT, SCHEDULE, TestStores, TestWorld, new_key, on_one_and_two,
};

const PRICE: i64 = 1_000;

on_one_and_two!(cancellation_revokes_the_claim, other_claims_stay);

async fn put(world: &TestWorld, code: &str, revocable: bool, conditions: Value) {
    let reward = json!({"title": "R", "starts_at": "2020-01-01T00:00:00Z",
        "ends_at": "2100-01-01T00:00:00Z", "revocable": revocable, "conditions": conditions,
        "reward": {"kind": "points", "amount": 500}});
    let shown = world.api.put(&format!("/admin/rewards/{code}"), &reward).await.expect(200);
    assert_eq!(shown["definition"]["revocable"], revocable);
}

fn at_least(count: u32) -> Value {
    json!([{"fact": "reservations_confirmed", "op": ">=", "value": count}])
}

async fn claim(api: &ApiClient, user: &str, code: &str) -> ApiResponse {
    api.post(&format!("/v1/rewards/{code}/claims")).user(user).send().await
}

/// A user who bought a seat, and the reservation.
async fn buyer(world: &TestWorld, seat: u32) -> (String, String) {
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, PRICE).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    (guest.user, reservation)
}

async fn cancel(api: &ApiClient, user: &str, reservation: &str) {
    let call = api.post(&format!("/v1/reservations/{reservation}/cancel"));
    call.user(user).key(&new_key()).send().await.expect(200);
}

async fn statuses(api: &ApiClient, user: &str, code: &str) -> Vec<Value> {
    let path = format!("/v1/rewards/{code}/claims/mine");
    let list = api.get(&path).user(user).send().await.expect(200);
    list["items"].as_array().unwrap().iter().map(|item| item["status"].clone()).collect()
}

async fn spend(api: &ApiClient, user: &str, amount: i64) {
    let call = api.post("/v1/wallet/uses").user(user).key(&new_key());
    call.json(&json!({"amount": amount})).send().await.expect(201);
}

async fn cancellation_revokes_the_claim(world: TestWorld) {
    world.put_show(9, PRICE).await;
    put(&world, "first", true, at_least(1)).await;
    let api = &world.api;
    let (user, reservation) = buyer(&world, 1).await;
    let granted = claim(api, &user, "first").await.expect(201);
    assert_eq!(api.balance(&user).await, 500);
    cancel(api, &user, &reservation).await;
    assert_eq!(api.balance(&user).await, PRICE);
    assert_eq!(statuses(api, &user, "first").await, ["revoked"]);
    claim(api, &user, "first").await.problem(409, "already_claimed");
    let list = api.get("/v1/wallet/entries?limit=2").user(&user).send().await.expect(200);
    let entry = &list["items"][0];
    assert_eq!((&entry["kind"], &entry["amount"]), (&json!("reward_reversal"), &json!(500)));
    assert_eq!((&entry["claim_id"], &list["items"][1]["kind"]), (&granted["id"], &json!("refund")));
    world.stores.audit().await;
    let path = "/admin/rewards/first/claims?status=revoked";
    let list = api.admin_call(Method::GET, path).send().await.expect(200);
    assert_eq!(list["items"][0]["id"], granted["id"]);

    // The points are spent: at most the balance and the refund are taken.
    let (user, reservation) = buyer(&world, 2).await;
    put(&world, "second", true, at_least(1)).await;
    put(&world, "third", true, at_least(1)).await;
    for code in ["first", "second", "third"] {
        claim(api, &user, code).await.expect(201);
    }
    spend(api, &user, 1_500).await;
    cancel(api, &user, &reservation).await;
    assert_eq!(api.balance(&user).await, 0);
    assert_eq!(statuses(api, &user, "third").await, ["revoked"]);
    world.stores.audit().await;
}

async fn other_claims_stay(world: TestWorld) {
    world.put_show(9, PRICE).await;
    put(&world, "plain", false, at_least(1)).await;
    put(&world, "still-true", true, json!([{"fact": "paid_total", "op": ">=", "value": 0}])).await;
    let mut both = at_least(1);
    both.as_array_mut().unwrap().push(json!({"fact": "level", "op": "==", "value": 1}));
    put(&world, "false-before", true, both).await;
    let api = &world.api;
    let (user, reservation) = buyer(&world, 1).await;
    let facts = format!("/admin/users/{user}/facts");
    api.put(&facts, &json!({"level": 1})).await.expect(200);
    for code in ["plain", "still-true", "false-before"] {
        claim(api, &user, code).await.expect(201);
    }
    api.put(&facts, &json!({})).await.expect(200);
    cancel(api, &user, &reservation).await;
    assert_eq!(api.balance(&user).await, PRICE + 1_500);
    for code in ["plain", "still-true", "false-before"] {
        assert_eq!(statuses(api, &user, code).await, ["success"]);
    }
    world.stores.audit().await;
}

/// After a loss of Redis a claim can be revoked, and a revoked claim cannot be made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_of_redis_keeps_revocable_claims() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    world.put_show(9, PRICE).await;
    put(&world, "first", true, at_least(1)).await;
    let api = &world.api;
    let (user, reservation) = buyer(&world, 1).await;
    let (other, others) = buyer(&world, 2).await;
    for user in [&user, &other] {
        claim(api, user, "first").await.expect(201);
    }
    cancel(api, &other, &others).await;
    world.stores.audit().await;
    lose_redis(&world).await;
    world.stores.audit().await;
    claim(api, &other, "first").await.problem(409, "already_claimed");
    cancel(api, &user, &reservation).await;
    assert_eq!(api.balance(&user).await, PRICE);
    assert_eq!(statuses(api, &user, "first").await, ["revoked"]);
    world.stores.audit().await;
}
