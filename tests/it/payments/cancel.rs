//! Cancelling what was bought: the flow backwards, at each state and at each edge.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::api::Guest;
use crate::support::world::{fast_queue, night};
use crate::support::{
    Answer, Api, NIGHT, SHOW, World, eventually, new_key, new_user, on_one_and_two,
};

on_one_and_two!(
    a_cancelled_reservation_gives_everything_back,
    a_cancelling_sent_again_gets_its_first_answer,
    only_what_was_bought_can_be_cancelled,
    it_can_be_too_late_to_cancel,
    a_cancelled_seat_counts_no_more_and_is_sold_again,
    twins_and_rivals_cancel_once,
    what_a_crash_left_behind_is_swept,
    what_redis_keeps_no_more_can_be_cancelled,
);

async fn cancel(api: &Api, user: &str, reservation: &str, key: &str) -> Answer {
    api.post(&format!("/v1/reservations/{reservation}/cancel")).user(user).key(key).send().await
}

/// A guest who has bought these seats.
async fn buyer(api: &Api, seats: &[u32]) -> (Guest, String, Value) {
    let guest = api.active_guest(SHOW).await;
    api.charge(&guest.user, 10_000).await;
    let reservation = api.held(&guest.token, NIGHT, seats).await;
    let payment = api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    (guest, reservation, payment)
}

async fn a_cancelled_reservation_gives_everything_back(world: World) {
    world.show(3, 3_000).await;
    let api = &world.api;
    let (guest, reservation, payment) = buyer(api, &[1, 2]).await;
    assert_eq!(api.balance(&guest.user).await, 4_000);
    let answer = cancel(api, &guest.user, &reservation, &new_key()).await.expect(200);
    assert_eq!((&answer["id"], &answer["status"]), (&json!(reservation), &json!("cancelled")));
    assert_eq!(answer["amount"], 6_000);
    assert_eq!(api.balance(&guest.user).await, 10_000);
    let other = api.active_guest(SHOW).await;
    assert_eq!(api.seats(&other.token, NIGHT).await, ["available"; 3]);
    let path = format!("/v1/payments/{}", payment["id"].as_str().unwrap());
    let refunded = api.get(&path).user(&guest.user).send().await.expect(200);
    assert_eq!((&refunded["status"], &refunded["paid"]), (&json!("refunded"), &json!(6_000)));
    let path = format!("/v1/reservations/{reservation}");
    assert_eq!(api.get(&path).user(&guest.user).send().await.expect(200), answer);
    api.delete(&path).user(&guest.user).send().await.problem(409, "not_releasable");
    let facts = world.stores.audit().await;
    assert_eq!((facts.payments_that_are("refunded"), facts.sold.len()), (1, 0));
}

async fn a_cancelling_sent_again_gets_its_first_answer(world: World) {
    world.show(3, 3_000).await;
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
    // The key is this request's, and no other's.
    api.charge_as(&guest.user, 1, &key).await.problem(422, "idempotency_key_reused");
    let (_, another, _) = buyer(api, &[2]).await;
    cancel(api, &guest.user, &another, &key).await.problem(422, "idempotency_key_reused");
    assert_eq!(api.balance(&guest.user).await, 10_000);
    world.stores.audit().await;
}

async fn only_what_was_bought_can_be_cancelled(world: World) {
    world.show(9, 3_000).await;
    let api = &world.api;
    let guest = api.active_guest(SHOW).await;
    let held = api.held(&guest.token, NIGHT, &[1]).await;
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
    // A refusal is not stored: the key is free for what can be done.
    cancel(api, &guest.user, &held, &key).await.problem(409, "not_cancellable");
    api.charge_as(&guest.user, 5, &key).await.expect(201);
    assert_eq!(api.balance(&owner.user).await, 7_000);
    world.stores.audit().await;
}

async fn it_can_be_too_late_to_cancel(world: World) {
    world.show(9, 3_000).await;
    let api = &world.api;
    let (guest, reservation, _) = buyer(api, &[1]).await;
    let key = new_key();
    for (title, until, starts_at) in [
        ("until the past", json!("2020-01-01T00:00:00.000Z"), "2100-01-01T19:00:00.000Z"),
        ("until the start", Value::Null, "2020-01-01T00:00:00.000Z"),
    ] {
        let mut date = night(9, 3_000);
        date["starts_at"] = json!(starts_at);
        world
            .concert(SHOW, json!({"title": title, "cancel_until": until, "schedules": [date]}))
            .await;
        cancel(api, &guest.user, &reservation, &key).await.problem(403, "cancellation_closed");
    }
    assert_eq!(api.balance(&guest.user).await, 7_000);
    let until = json!("2100-01-01T00:00:00.000Z");
    let concert = json!({"title": "late", "cancel_until": until, "schedules": [night(9, 3_000)]});
    world.concert(SHOW, concert).await;
    cancel(api, &guest.user, &reservation, &key).await.expect(200);
    world.stores.audit().await;
}

async fn a_cancelled_seat_counts_no_more_and_is_sold_again(world: World) {
    world.queue(SHOW, fast_queue()).await;
    let concert =
        json!({"title": "The show", "max_seats_per_user": 2, "schedules": [night(2, 3_000)]});
    world.concert(SHOW, concert).await;
    let api = &world.api;
    let (guest, reservation, _) = buyer(api, &[1, 2]).await;
    eventually("the queue is sold out", || async {
        let state = api.get(&format!("/v1/queues/{SHOW}")).send().await.expect(200);
        (state["sold_out"] == true).then_some(())
    })
    .await;
    let key = new_key();
    cancel(api, &guest.user, &reservation, &key).await.expect(200);
    let state = eventually("the queue is not sold out", || async {
        let state = api.get(&format!("/v1/queues/{SHOW}")).send().await.expect(200);
        (state["sold_out"] == false).then_some(state)
    });
    state.await;
    // The same user may have two seats again.
    let ticket = api.join(SHOW, &guest.user).await.expect(201);
    let again =
        Guest { user: guest.user.clone(), token: ticket["token"].as_str().unwrap().to_owned() };
    api.until_active(SHOW, &again).await;
    let second = api.held(&again.token, NIGHT, &[1, 2]).await;
    api.pay(&again.token, &second, &new_key()).await.expect(201);
    // A repeat of the first cancelling takes nothing from the second.
    cancel(api, &guest.user, &reservation, &key).await.expect(200);
    assert_eq!(api.balance(&guest.user).await, 4_000);
    assert_eq!(world.stores.audit().await.sold.len(), 2);
}

async fn twins_and_rivals_cancel_once(world: World) {
    world.show(9, 3_000).await;
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

async fn what_a_crash_left_behind_is_swept(world: World) {
    world.show(9, 3_000).await;
    let api = &world.api;
    let (guest, reservation, payment) = buyer(api, &[1, 2]).await;
    world.stores.at_rest().await;
    // As if the instance had died after the commit point: the script is made to stand where begin_cancel leaves it.
    let mut redis = world.stores.redis().await;
    let partition = world.stores.partition_of(SHOW);
    let id = payment["id"].as_str().unwrap();
    let script = "local id = redis.call('HKEYS', KEYS[1])[1]
        local p = cmsgpack.unpack(redis.call('HGET', KEYS[1], id)) p.state = 'refunding'
        redis.call('HSET', KEYS[1], id, cmsgpack.pack(p))
        local r = cmsgpack.unpack(redis.call('HGET', KEYS[2], p.reservation)) r.status = 'cancelling'
        redis.call('HSET', KEYS[2], p.reservation, cmsgpack.pack(r))
        redis.call('ZADD', KEYS[3], 0, id) return 1";
    let keys = ["payments", "reservations", &format!("q:{SHOW}:due")]
        .map(|name| world.stores.key(partition, name));
    redis.ask(&["EVAL", script, "3", &keys[0], &keys[1], &keys[2]]).await;
    eventually("the cancelling is driven to its end", || async {
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

async fn what_redis_keeps_no_more_can_be_cancelled(world: World) {
    world.show(9, 3_000).await;
    let api = &world.api;
    let (guest, reservation, payment) = buyer(api, &[1, 2]).await;
    world.stores.at_rest().await;
    let mut redis = world.stores.redis().await;
    let partition = world.stores.partition_of(SHOW);
    for name in ["payments", "reservations"] {
        redis.ask(&["DEL", &world.stores.key(partition, name)]).await;
    }
    let key = new_key();
    let answer = cancel(api, &guest.user, &reservation, &key).await.expect(200);
    assert_eq!((&answer["status"], &answer["amount"]), (&json!("cancelled"), &json!(6_000)));
    assert_eq!(api.balance(&guest.user).await, 10_000);
    let facts = world.stores.audit().await;
    assert_eq!((facts.payments_that_are("refunded"), facts.sold.len()), (1, 0));
    // And once more forgotten, it stays cancelled.
    for name in ["payments", "reservations"] {
        redis.ask(&["DEL", &world.stores.key(partition, name)]).await;
    }
    cancel(api, &guest.user, &reservation, &new_key()).await.problem(409, "not_cancellable");
    assert_eq!(cancel(api, &guest.user, &reservation, &key).await.expect(200), answer);
    let path = format!("/v1/payments/{}", payment["id"].as_str().unwrap());
    assert_eq!(api.get(&path).user(&guest.user).send().await.expect(200)["status"], "refunded");
    assert_eq!(api.balance(&guest.user).await, 10_000);
}
