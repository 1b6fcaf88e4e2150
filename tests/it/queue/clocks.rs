//! Redis with a wrong clock: the difference is reported, and admissions go on after a step.

use std::process::Command;

use chrono::{TimeDelta, Utc};
use serde_json::json;

use crate::support::servers::{ADMIN_KEY, PARTITIONS, TOKEN_KEYS};
use crate::support::skew::ClockSkew;
use crate::support::{CONCERT, TestStores, TestWorld, eventually};

/// What `usher config check` says about the clocks of the stores.
fn reported_difference(stores: &TestStores) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_usher"))
        .args(["config", "check", "--connect", "--admin-key", ADMIN_KEY])
        .args(["--redis-url", &stores.redis_url(), "--mysql-url", &stores.mysql_url])
        .args(["--partitions", &PARTITIONS.to_string(), "--key-prefix", &stores.prefix])
        .args(["--token-keys", TOKEN_KEYS, "--auth", "header"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let found = text.lines().find(|line| line.contains("clock"));
    found.unwrap_or_else(|| panic!("{text}{errors}")).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn difference_between_the_clocks_of_the_stores_is_reported() {
    let Some(skew) = ClockSkew::new() else { return };
    let (stores, clock) = TestStores::with_movable_clock(&skew).await;
    let world = TestWorld::on(stores, 1).await;
    assert_eq!(reported_difference(&world.stores), "the clocks of Redis and MySQL agree");
    clock.set(120);
    let behind = reported_difference(&world.stores);
    assert!(behind.starts_with("MySQL's clock is 1"), "{behind}");
    assert!(behind.ends_with("s behind Redis' clock"), "{behind}");
    clock.set(-120);
    let ahead = reported_difference(&world.stores);
    assert!(ahead.ends_with("s ahead of Redis' clock"), "{ahead}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_admitted_after_redis_clock_went_back() {
    let Some(skew) = ClockSkew::new() else { return };
    let (stores, clock) = TestStores::with_movable_clock(&skew).await;
    clock.set(3_600);
    let world = TestWorld::on(stores, 2).await;
    let settings = json!({"promote_per_interval": 2, "interval_ms": 200, "max_active": 1_000,
        "claim_seconds": 600});
    world.put_queue(CONCERT, settings).await;
    let api = &world.api;
    let mut users = Vec::new();
    for _ in 0..12 {
        users.push(api.join_new_user(CONCERT).await);
    }
    api.wait_until_active(CONCERT, &users[5]).await;
    for seconds in [0, 3_600, -3_600] {
        clock.set(seconds);
        for _ in 0..4 {
            users.push(api.join_new_user(CONCERT).await);
        }
        // One hour would pass if admissions of the future counted.
        api.wait_until_active(CONCERT, users.last().unwrap()).await;
    }
    eventually("no user waits", || async {
        let state = api.get(&format!("/v1/queues/{CONCERT}")).send().await.expect(200);
        (state["waiting"] == 0).then_some(())
    })
    .await;
    world.stores.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draw_takes_place_once_although_redis_clock_goes_back() {
    let Some(skew) = ClockSkew::new() else { return };
    let (stores, clock) = TestStores::with_movable_clock(&skew).await;
    let world = TestWorld::on(stores, 1).await;
    let settings = json!({"promote_per_interval": 2, "interval_ms": 200, "max_active": 1,
        "active_seconds": 86_400, "claim_seconds": 86_400, "order": "lottery",
        "opens_at": Utc::now() + TimeDelta::minutes(30)});
    world.put_queue(CONCERT, settings).await;
    let api = &world.api;
    let mut users = vec![api.join_new_user(CONCERT).await, api.join_new_user(CONCERT).await];
    clock.set(3_600);
    eventually("the draw takes place", || async {
        let state = api.get(&format!("/v1/queues/{CONCERT}")).send().await.expect(200);
        (state["active"] == 1).then_some(())
    })
    .await;
    users.push(api.join_new_user(CONCERT).await);
    clock.set(0);
    users.push(api.join_new_user(CONCERT).await);
    let mut scores = Vec::new();
    for user in &users {
        let ticket = api.poll(CONCERT, &user.token).await.expect(200);
        scores.push(ticket["score"].as_u64().unwrap());
    }
    let entrants = scores[0].max(scores[1]);
    assert!(entrants < scores[2] && scores[2] < scores[3], "{scores:?}");
}
