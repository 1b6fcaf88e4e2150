//! Cancellation of a bought reservation, in each state and at each step.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::api::TestUser;
use crate::support::world::{fast_queue_settings, schedule_definition};
use crate::support::{
    ApiClient, ApiResponse, CONCERT, SCHEDULE, TestWorld, eventually, new_key, new_user,
    on_one_and_two,
};

on_one_and_two!(
    cancellation_refunds_and_frees_everything,
    repeated_cancellation_gets_its_first_response,
    only_bought_reservations_can_be_cancelled,
    cancellation_after_the_deadline_is_refused,
    cancelled_seat_is_not_counted_and_can_be_sold_again,
    concurrent_cancellations_refund_once,
    sweep_finishes_an_interrupted_cancellation,
    pruned_reservation_can_be_cancelled,
);

async fn cancel(api: &ApiClient, user: &str, reservation: &str, key: &str) -> ApiResponse {
    api.post(&format!("/v1/reservations/{reservation}/cancel")).user(user).key(key).send().await
}

/// A user who has bought these seats.
async fn buyer(api: &ApiClient, seats: &[u32]) -> (TestUser, String, Value) {
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 10_000).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, seats).await;
    let payment = api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    (guest, reservation, payment)
}

async fn cancellation_refunds_and_frees_everything(world: TestWorld) {
    world.put_show(3, 3_000).await;
    let api = &world.api;
    let (guest, reservation, payment) = buyer(api, &[1, 2]).await;
    assert_eq!(api.balance(&guest.user).await, 4_000);
    let answer = cancel(api, &guest.user, &reservation, &new_key()).await.expect(200);
    assert_eq!((&answer["id"], &answer["status"]), (&json!(reservation), &json!("cancelled")));
    assert_eq!(answer["amount"], 6_000);
    assert_eq!(api.balance(&guest.user).await, 10_000);
    let other = api.active_user(CONCERT).await;
    assert_eq!(api.seats(&other.token, SCHEDULE).await, ["available"; 3]);
    let path = format!("/v1/payments/{}", payment["id"].as_str().unwrap());
    let refunded = api.get(&path).user(&guest.user).send().await.expect(200);
    assert_eq!((&refunded["status"], &refunded["paid"]), (&json!("refunded"), &json!(6_000)));
    let path = format!("/v1/reservations/{reservation}");
    assert_eq!(api.get(&path).user(&guest.user).send().await.expect(200), answer);
    api.delete(&path).user(&guest.user).send().await.problem(409, "not_releasable");
    let facts = world.stores.audit().await;
    assert_eq!((facts.payments_that_are("refunded"), facts.sold.len()), (1, 0));
}

async fn repeated_cancellation_gets_its_first_response(world: TestWorld) {
    world.put_show(3, 3_000).await;
    let api = &world.api;
    let (guest, reservation, _) = buyer(api, &[1]).await;
    let key = new_key();
    let first = cancel(api, &guest.user, &reservation, &key).await.expect(200);
    for _ in 0..3 {
        let again = cancel(api, &guest.user, &reservation, &key).await;
        assert_eq!(
            (again.expect(200), again.header("idempotency-replayed")),
            (first.clone(), Some("true"))
        );
    }
    cancel(api, &guest.user, &reservation, &new_key()).await.problem(409, "not_cancellable");
    // The key belongs to this request only.
    api.charge_with_key(&guest.user, 1, &key).await.problem(422, "idempotency_key_reused");
    let (_, another, _) = buyer(api, &[2]).await;
    cancel(api, &guest.user, &another, &key).await.problem(422, "idempotency_key_reused");
    assert_eq!(api.balance(&guest.user).await, 10_000);
    world.stores.audit().await;
}

async fn only_bought_reservations_can_be_cancelled(world: TestWorld) {
    world.put_show(9, 3_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    let held = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    let key = new_key();
    cancel(api, &guest.user, &held, &key).await.problem(409, "not_cancellable");
    api.delete(&format!("/v1/reservations/{held}")).user(&guest.user).send().await.expect(204);
    cancel(api, &guest.user, &held, &key).await.problem(409, "not_cancellable");
    let (owner, bought, _) = buyer(api, &[2]).await;
    cancel(api, &guest.user, &bought, &new_key()).await.problem(404, "not_found");
    cancel(api, &guest.user, "nonsense", &new_key()).await.problem(404, "not_found");
    cancel(api, &guest.user, &new_user(), &new_key()).await.problem(404, "not_found");
    let path = format!("/v1/reservations/{bought}/cancel");
    api.post(&path).user(&owner.user).send().await.problem(400, "idempotency_key_required");
    api.post(&path).key(&new_key()).send().await.problem(401, "unauthenticated");
    // A refusal is not stored, so the key can be used again.
    cancel(api, &guest.user, &held, &key).await.problem(409, "not_cancellable");
    api.charge_with_key(&guest.user, 5, &key).await.expect(201);
    assert_eq!(api.balance(&owner.user).await, 7_000);
    world.stores.audit().await;
}

async fn cancellation_after_the_deadline_is_refused(world: TestWorld) {
    world.put_show(9, 3_000).await;
    let api = &world.api;
    let (guest, reservation, _) = buyer(api, &[1]).await;
    let key = new_key();
    for (title, until, starts_at) in [
        ("a deadline in the past", json!("2020-01-01T00:00:00.000Z"), "2100-01-01T19:00:00.000Z"),
        ("the default deadline", Value::Null, "2020-01-01T00:00:00.000Z"),
    ] {
        let mut date = schedule_definition(9, 3_000);
        date["starts_at"] = json!(starts_at);
        world
            .put_concert(
                CONCERT,
                json!({"title": title, "cancel_until": until, "schedules": [date]}),
            )
            .await;
        cancel(api, &guest.user, &reservation, &key).await.problem(403, "cancellation_closed");
    }
    assert_eq!(api.balance(&guest.user).await, 7_000);
    let until = json!("2100-01-01T00:00:00.000Z");
    let concert = json!({"title": "late", "cancel_until": until,
        "schedules": [schedule_definition(9, 3_000)]});
    world.put_concert(CONCERT, concert).await;
    cancel(api, &guest.user, &reservation, &key).await.expect(200);
    world.stores.audit().await;
}

async fn cancelled_seat_is_not_counted_and_can_be_sold_again(world: TestWorld) {
    world.put_queue(CONCERT, fast_queue_settings()).await;
    let concert = json!({"title": "The show", "max_seats_per_user": 2,
        "schedules": [schedule_definition(2, 3_000)]});
    world.put_concert(CONCERT, concert).await;
    let api = &world.api;
    let (guest, reservation, _) = buyer(api, &[1, 2]).await;
    eventually("the queue is sold out", || async {
        let state = api.get(&format!("/v1/queues/{CONCERT}")).send().await.expect(200);
        (state["sold_out"] == true).then_some(())
    })
    .await;
    let key = new_key();
    cancel(api, &guest.user, &reservation, &key).await.expect(200);
    let state = eventually("the queue is not sold out", || async {
        let state = api.get(&format!("/v1/queues/{CONCERT}")).send().await.expect(200);
        (state["sold_out"] == false).then_some(state)
    });
    state.await;
    // The same user may hold two seats again.
    let ticket = api.join(CONCERT, &guest.user).await.expect(201);
    let again =
        TestUser { user: guest.user.clone(), token: ticket["token"].as_str().unwrap().to_owned() };
    api.wait_until_active(CONCERT, &again).await;
    let second = api.hold_seats(&again.token, SCHEDULE, &[1, 2]).await;
    api.pay(&again.token, &second, &new_key()).await.expect(201);
    // A repeat of the first cancellation does not affect the second purchase.
    cancel(api, &guest.user, &reservation, &key).await.expect(200);
    assert_eq!(api.balance(&guest.user).await, 4_000);
    assert_eq!(world.stores.audit().await.sold.len(), 2);
}

async fn concurrent_cancellations_refund_once(world: TestWorld) {
    world.put_show(9, 3_000).await;
    let api = &world.api;
    let (guest, reservation, _) = buyer(api, &[1, 2]).await;
    let key = new_key();
    let twins = join_all((0..20).map(|_| cancel(api, &guest.user, &reservation, &key))).await;
    for twin in &twins {
        assert_eq!(twin.expect(200)["status"], "cancelled");
    }
    assert_eq!(api.balance(&guest.user).await, 10_000);
    let (guest, reservation, _) = buyer(api, &[1, 2]).await;
    let keys: Vec<_> = (0..20).map(|_| new_key()).collect();
    let rivals = join_all(keys.iter().map(|key| cancel(api, &guest.user, &reservation, key))).await;
    assert!(rivals.iter().any(|rival| rival.status == 200));
    for rival in rivals.iter().filter(|rival| rival.status != 200) {
        rival.problem(409, "not_cancellable");
    }
    assert_eq!(api.balance(&guest.user).await, 10_000);
    world.stores.audit().await;
}

async fn sweep_finishes_an_interrupted_cancellation(world: TestWorld) {
    world.put_show(9, 3_000).await;
    let api = &world.api;
    let (guest, reservation, payment) = buyer(api, &[1, 2]).await;
    world.stores.wait_until_idle().await;
    // As if the instance had died after the commit point: the script puts the payment into the
    // state that begin_cancel leaves.
    let mut redis = world.stores.redis().await;
    let partition = world.stores.partition_of(CONCERT);
    let id = payment["id"].as_str().unwrap();
    let script = "local id = redis.call('HKEYS', KEYS[1])[1]
        local p = cmsgpack.unpack(redis.call('HGET', KEYS[1], id)) p.state = 'refunding'
        p.cancelling = {number = 1, seats = {1, 2}, last = true, refund = 6000, total = 6000,
            key = 'k', fingerprint = string.rep('0', 32)}
        redis.call('HSET', KEYS[1], id, cmsgpack.pack(p))
        local r = cmsgpack.unpack(redis.call('HGET', KEYS[2], p.reservation))
        r.status = 'cancelling'
        redis.call('HSET', KEYS[2], p.reservation, cmsgpack.pack(r))
        redis.call('ZADD', KEYS[3], 0, id) return 1";
    let keys = ["payments", "reservations", &format!("q:{CONCERT}:due")]
        .map(|name| world.stores.key(partition, name));
    redis.ask(&["EVAL", script, "3", &keys[0], &keys[1], &keys[2]]).await;
    eventually("the sweep finishes the cancellation", || async {
        let payment =
            api.get(&format!("/v1/payments/{id}")).user(&guest.user).send().await.expect(200);
        (payment["status"] == "refunded").then_some(())
    })
    .await;
    let path = format!("/v1/reservations/{reservation}");
    assert_eq!(api.get(&path).user(&guest.user).send().await.expect(200)["status"], "cancelled");
    assert_eq!(api.balance(&guest.user).await, 10_000);
    world.stores.audit().await;
}

async fn pruned_reservation_can_be_cancelled(world: TestWorld) {
    world.put_show(9, 3_000).await;
    let api = &world.api;
    let (guest, reservation, payment) = buyer(api, &[1, 2]).await;
    world.stores.wait_until_idle().await;
    let mut redis = world.stores.redis().await;
    let partition = world.stores.partition_of(CONCERT);
    for name in ["payments", "reservations"] {
        redis.ask(&["DEL", &world.stores.key(partition, name)]).await;
    }
    let key = new_key();
    let answer = cancel(api, &guest.user, &reservation, &key).await.expect(200);
    assert_eq!((&answer["status"], &answer["amount"]), (&json!("cancelled"), &json!(6_000)));
    assert_eq!(api.balance(&guest.user).await, 10_000);
    let facts = world.stores.audit().await;
    assert_eq!((facts.payments_that_are("refunded"), facts.sold.len()), (1, 0));
    // It stays cancelled after another pruning.
    for name in ["payments", "reservations"] {
        redis.ask(&["DEL", &world.stores.key(partition, name)]).await;
    }
    cancel(api, &guest.user, &reservation, &new_key()).await.problem(409, "not_cancellable");
    assert_eq!(cancel(api, &guest.user, &reservation, &key).await.expect(200), answer);
    let path = format!("/v1/payments/{}", payment["id"].as_str().unwrap());
    assert_eq!(api.get(&path).user(&guest.user).send().await.expect(200)["status"], "refunded");
    assert_eq!(api.balance(&guest.user).await, 10_000);
}
