//! More users than seats, on two instances, until the last seat is sold.

use std::collections::BTreeSet;

use futures::future::join_all;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::support::{ApiClient, CONCERT, SCHEDULE, TestWorld, new_key};

/// One user: tries random seats, then the best ones, and pays for the hold. Returns whether the
/// user has a seat.
async fn try_for_a_seat(api: ApiClient, seed: u64) -> bool {
    let mut random = SmallRng::seed_from_u64(seed);
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 1_000).await;
    for round in 0.. {
        let held = if round < 3 {
            api.hold(&guest.token, SCHEDULE, &[random.random_range(1..=100)]).await
        } else {
            let wish = json!({"schedule_id": SCHEDULE, "quantity": 1});
            api.post("/v1/reservations/best").token(&guest.token).json(&wish).send().await
        };
        if held.status == 409 {
            if held.body["code"] == "not_enough_seats" {
                return false;
            }
            held.problem(409, "seat_taken");
            continue;
        }
        let id = held.expect(201)["id"].as_str().unwrap().to_owned();
        // Some release the first hold, some send the request twice.
        if round == 0 && random.random_bool(0.2) {
            api.delete(&format!("/v1/reservations/{id}"))
                .user(&guest.user)
                .send()
                .await
                .expect(204);
            continue;
        }
        let key = new_key();
        let times = if random.random_bool(0.2) { 3 } else { 1 };
        for answer in join_all((0..times).map(|_| api.pay(&guest.token, &id, &key))).await {
            assert_eq!(answer.expect(201)["status"], "confirmed");
        }
        return true;
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_users_race_for_a_hundred_seats() {
    let world = TestWorld::start(2).await;
    world.put_show(100, 1_000).await;
    let seed = crate::support::test_seed();
    let users: Vec<_> = (0..300)
        .map(|n| tokio::spawn(try_for_a_seat(world.api.clone(), seed.wrapping_add(n))))
        .collect();
    let mut seated = 0;
    for user in users {
        seated += usize::from(user.await.unwrap());
    }
    let facts = world.stores.audit().await;
    assert_eq!((seated, facts.payments_that_are("confirmed"), facts.sold.len()), (100, 100, 100));
    let numbers: BTreeSet<_> = facts.sold.keys().map(|(_, number)| *number).collect();
    assert_eq!(numbers, (1..=100).collect());
    assert_eq!(
        facts.wallets.values().sum::<i64>(),
        200 * 1_000,
        "users without a seat keep their money"
    );
}
