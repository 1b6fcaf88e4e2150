//! Payments: repeated requests, refusals, and reused idempotency keys.

use futures::future::join_all;
use serde_json::json;

use crate::support::{CONCERT, SCHEDULE, TestWorld, new_key, on_one_and_two};

on_one_and_two!(
    repeated_payment_gets_its_first_response,
    idempotency_key_is_bound_to_one_request,
    declined_payment_can_be_retried_with_the_same_key,
    wallet_never_pays_more_than_its_balance,
    used_token_pays_for_its_other_holds,
    replay_of_a_refunded_payment_reads_as_it_is_now,
);

async fn repeated_payment_gets_its_first_response(world: TestWorld) {
    world.put_show(10, 3_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 10_000).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    let key = new_key();
    let twins = join_all((0..20).map(|_| api.pay(&guest.token, &reservation, &key))).await;
    let first = twins[0].expect(201);
    for twin in &twins {
        assert_eq!(twin.expect(201), first, "all repeats get the same response");
    }
    for _ in 0..3 {
        let again = api.pay(&guest.token, &reservation, &key).await;
        assert_eq!(
            (again.expect(201), again.header("idempotency-replayed")),
            (first.clone(), Some("true"))
        );
    }
    // Another key is another request, for seats that are already sold.
    api.pay(&guest.token, &reservation, &new_key()).await.problem(409, "not_payable");
    assert_eq!(api.balance(&guest.user).await, 7_000);
    world.stores.audit().await;
}

async fn idempotency_key_is_bound_to_one_request(world: TestWorld) {
    world.put_show(10, 3_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    let key = new_key();
    api.charge_with_key(&guest.user, 10_000, &key).await.expect(201);
    api.charge_with_key(&guest.user, 10_001, &key).await.problem(422, "idempotency_key_reused");

    // On another path.
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    api.pay(&guest.token, &reservation, &key).await.problem(422, "idempotency_key_reused");
    let uses =
        api.post("/v1/wallet/uses").user(&guest.user).key(&key).json(&json!({"amount": 10_000}));
    uses.send().await.problem(422, "idempotency_key_reused");

    // In the other direction, with another body as well.
    let key = new_key();
    api.pay(&guest.token, &reservation, &key).await.expect(201);
    api.charge_with_key(&guest.user, 10_000, &key).await.problem(422, "idempotency_key_reused");
    let guest_again = api.active_user(CONCERT).await;
    let other = api.hold_seats(&guest_again.token, SCHEDULE, &[2]).await;
    api.pay(&guest.token, &other, &key).await.problem(422, "idempotency_key_reused");

    // Keys are per user.
    api.charge_with_key(&guest_again.user, 3_000, &key).await.expect(201);
    assert_eq!(
        (api.balance(&guest.user).await, api.balance(&guest_again.user).await),
        (7_000, 3_000)
    );
    world.stores.audit().await;
}

async fn declined_payment_can_be_retried_with_the_same_key(world: TestWorld) {
    world.put_show(10, 3_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 2_999).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    let key = new_key();
    for _ in 0..2 {
        api.pay(&guest.token, &reservation, &key).await.problem(402, "insufficient_balance");
    }
    let held = api
        .get(&format!("/v1/reservations/{reservation}"))
        .user(&guest.user)
        .send()
        .await
        .expect(200);
    assert_eq!(held["status"], "held", "the hold remains");
    assert_eq!(api.balance(&guest.user).await, 2_999);
    assert_eq!(world.stores.audit().await.payments_that_are("declined"), 1);

    api.charge(&guest.user, 1).await;
    let paid = api.pay(&guest.token, &reservation, &key).await;
    assert_eq!(paid.header("idempotency-replayed"), None, "a refusal is not replayed");
    assert_eq!(paid.expect(201)["status"], "confirmed");
    let facts = world.stores.audit().await;
    assert_eq!(facts.payments.len(), 1, "it is the same payment");
    assert_eq!(facts.payments.values().next().unwrap().attempt, 3);
    assert_eq!(api.balance(&guest.user).await, 0);
}

async fn wallet_never_pays_more_than_its_balance(world: TestWorld) {
    world.put_show(10, 3_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 7_000).await;
    let mut reservations = Vec::new();
    for seat in 1..=4 {
        reservations.push(api.hold_seats(&guest.token, SCHEDULE, &[seat]).await);
    }
    let payments = reservations.iter().map(async |id| api.pay(&guest.token, id, &new_key()).await);
    let answers = join_all(payments).await;
    let paid = answers.iter().filter(|answer| answer.status == 201).count();
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        answer.problem(402, "insufficient_balance");
    }
    assert_eq!((paid, api.balance(&guest.user).await), (2, 1_000));
    let facts = world.stores.audit().await;
    assert_eq!((facts.payments_that_are("confirmed"), facts.payments_that_are("declined")), (2, 2));
}

async fn used_token_pays_for_its_other_holds(world: TestWorld) {
    world.put_show(10, 3_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 6_000).await;
    let first = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    let second = api.hold_seats(&guest.token, SCHEDULE, &[2]).await;
    api.pay(&guest.token, &first, &new_key()).await.expect(201);
    api.hold(&guest.token, SCHEDULE, &[3]).await.problem(410, "queue_token_expired");
    api.pay(&guest.token, &second, &new_key()).await.expect(201);
    assert_eq!(world.stores.audit().await.sold.len(), 2);
}

async fn replay_of_a_refunded_payment_reads_as_it_is_now(world: TestWorld) {
    world.put_show(10, 3_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 10_000).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1, 2]).await;
    let key = new_key();
    let paid = api.pay(&guest.token, &reservation, &key).await.expect(201);
    for (body, status, refunded) in
        [(json!({"seats": [2]}), "confirmed", 3_000), (json!({}), "refunded", 6_000)]
    {
        let cancel = api.post(&format!("/v1/reservations/{reservation}/cancel"));
        cancel.user(&guest.user).key(&new_key()).json(&body).send().await.expect(200);
        let again = api.pay(&guest.token, &reservation, &key).await;
        let read = again.expect(201);
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        assert_eq!(
            (&read["id"], &read["status"], &read["refunded"]),
            (&paid["id"], &json!(status), &json!(refunded))
        );
    }
    world.stores.audit().await;
}
