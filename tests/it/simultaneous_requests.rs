//! Many requests for the same thing at the same time: tokens, seats, charges and payments.

use futures::future::join_all;
use serde_json::json;

use crate::support::{CONCERT, SCHEDULE, TestWorld, eventually, new_key, new_user, on_one_and_two};

on_one_and_two!(
    a_hundred_token_requests_of_one_user_give_one_token,
    two_requests_of_each_of_a_hundred_users_give_one_token_each,
    two_hundred_users_on_one_seat_give_one_hold,
    parallel_charges_add_up,
    a_payment_sent_twenty_times_debits_once,
);

async fn a_hundred_token_requests_of_one_user_give_one_token(world: TestWorld) {
    world
        .put_queue(
            CONCERT,
            json!({"promote_per_interval": 1, "interval_ms": 3_600_000, "max_active": 1}),
        )
        .await;
    world.api.join_new_user(CONCERT).await;
    let user = new_user();
    let answers = join_all((0..100).map(|_| world.api.join(CONCERT, &user))).await;
    let fresh = answers.iter().filter(|answer| answer.status == 201).count();
    let known = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((fresh, known), (1, 99));
    for answer in &answers {
        assert_eq!(answer.body["token"], answers[0].body["token"]);
        assert_eq!(
            (&answer.body["status"], &answer.body["position"]),
            (&json!("waiting"), &json!(1))
        );
    }
    eventually("the queue's counts are reported", || async {
        let queue = world.api.get("/v1/queues/show").send().await.expect(200);
        (queue["waiting"] == 1 && queue["active"] == 1).then_some(())
    })
    .await;
}

async fn two_requests_of_each_of_a_hundred_users_give_one_token_each(world: TestWorld) {
    world
        .put_queue(
            CONCERT,
            json!({"promote_per_interval": 1, "interval_ms": 3_600_000, "max_active": 1}),
        )
        .await;
    world.api.join_new_user(CONCERT).await;
    // Adjacent, so that both requests of an unknown user come in one call of the script.
    let users: Vec<_> = (0..100).flat_map(|_| vec![new_user(); 2]).collect();
    let answers = join_all(users.iter().map(|user| world.api.join(CONCERT, user))).await;
    for twins in answers.chunks(2) {
        let statuses = [twins[0].status, twins[1].status];
        assert!(statuses == [201, 200] || statuses == [200, 201], "{statuses:?}");
        assert_eq!(twins[0].body["token"], twins[1].body["token"]);
    }
}

async fn two_hundred_users_on_one_seat_give_one_hold(world: TestWorld) {
    world.put_show(50, 1_000).await;
    let guests = join_all((0..200).map(|_| world.api.active_user(CONCERT))).await;
    let answers =
        join_all(guests.iter().map(|guest| world.api.hold(&guest.token, SCHEDULE, &[7]))).await;
    let mut held = 0;
    for answer in &answers {
        if answer.status == 201 {
            held += 1;
        } else {
            assert_eq!(answer.problem(409, "seat_taken")["seats"], json!([7]));
        }
    }
    assert_eq!(held, 1);
    let seats = world.api.seats(&guests[0].token, SCHEDULE).await;
    assert_eq!(seats.iter().filter(|status| *status == "held").count(), 1);
}

async fn parallel_charges_add_up(world: TestWorld) {
    let user = new_user();
    let charges = [1_000, 2_000, 3_000, 4_000, 5_000].map(|amount| world.api.charge(&user, amount));
    join_all(charges).await;
    assert_eq!(world.api.balance(&user).await, 15_000);

    // Twenty requests with one key are one charge.
    let key = new_key();
    let twins = join_all((0..20).map(|_| world.api.charge_with_key(&user, 700, &key))).await;
    let first = twins[0].expect(201);
    for twin in &twins {
        assert_eq!(twin.expect(201), first);
    }
    let replayed =
        twins.iter().filter(|twin| twin.header("idempotency-replayed") == Some("true")).count();
    assert_eq!(replayed, 19);
    assert_eq!(world.api.balance(&user).await, 15_700);

    world.stores.audit().await;
    assert_eq!(world.stores.count("SELECT COUNT(*) FROM wallet_entries").await, 6);
}

async fn a_payment_sent_twenty_times_debits_once(world: TestWorld) {
    world.put_show(10, 3_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 10_000).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;

    // Twenty requests with one key, and twenty more with a key each.
    let key = new_key();
    let twins = join_all((0..20).map(|_| api.pay(&guest.token, &reservation, &key)));
    let others =
        join_all((0..20).map(async |_| api.pay(&guest.token, &reservation, &new_key()).await));
    let (twins, others) = tokio::join!(twins, others);
    let paid: Vec<_> = twins.iter().chain(&others).filter(|answer| answer.status == 201).collect();
    assert!(!paid.is_empty(), "{twins:?} {others:?}");
    for answer in twins.iter().chain(&others).filter(|answer| answer.status != 201) {
        answer.problem(409, "not_payable");
    }
    for answer in &paid {
        assert_eq!(answer.body["id"], paid[0].body["id"], "every response is of the same payment");
    }
    assert_eq!(api.balance(&guest.user).await, 7_000);

    let facts = world.stores.audit().await;
    assert_eq!(facts.payments_that_are("confirmed"), 1);
    let debits = "SELECT COUNT(*) FROM wallet_entries WHERE kind = 'payment'";
    assert_eq!(world.stores.count(debits).await, 1);
}
