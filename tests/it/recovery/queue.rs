//! The queue after a loss: it is rebuilt from presented tokens, in the old order.

use serde_json::{Value, json};

use crate::recovery::restore::lose_redis;
use crate::support::api::TestUser;
use crate::support::world::concert_definition;
use crate::support::{ApiClient, CONCERT, SCHEDULE, TestStores, TestWorld, eventually, new_key};

fn slow(promote: u32, active: u32, restore: u32) -> Value {
    json!({"promote_per_interval": promote, "interval_ms": 100, "max_active": active,
        "restore_seconds": restore})
}

async fn status(api: &ApiClient, guest: &TestUser) -> String {
    let answer = api.poll(CONCERT, &guest.token).await;
    if answer.status == 410 {
        "expired".to_owned()
    } else {
        answer.expect(200)["status"].as_str().unwrap().to_owned()
    }
}

/// The waiting users, first to last.
async fn waiting_users(stores: &TestStores) -> Vec<String> {
    let key = stores.key(stores.partition_of(CONCERT), &format!("q:{CONCERT}:waiting"));
    let members = stores.redis().await.ask(&["ZRANGE", &key, "0", "-1"]).await.list();
    members
        .into_iter()
        .map(|user| uuid::Uuid::from_slice(&user.bytes()).unwrap().to_string())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_is_rebuilt_in_the_old_order() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 2).await;
    world.put_queue(CONCERT, slow(100, 3, 600)).await;
    world.put_concert(CONCERT, concert_definition(10, 1_000)).await;
    let (api, stores) = (&world.api, &world.stores);
    let mut guests = Vec::new();
    for _ in 0..3 {
        guests.push(api.active_user(CONCERT).await);
    }
    // One user has finished before the loss: the token is used up.
    let buyer = guests.remove(0);
    api.charge(&buyer.user, 1_000).await;
    let hold = api.hold_seats(&buyer.token, SCHEDULE, &[1]).await;
    api.pay(&buyer.token, &hold, &new_key()).await.expect(201);
    assert_eq!(status(api, &buyer).await, "expired");
    for _ in 0..6 {
        guests.push(api.join_new_user(CONCERT).await);
    }
    eventually("one more user is admitted", || async {
        (status(api, &guests[2]).await == "active").then_some(())
    })
    .await;
    stores.audit().await;

    lose_redis(&world).await;
    // New users wait behind all former ones, in whatever order those return.
    let late = api.join_new_user(CONCERT).await;
    for at in [5, 2, 7, 0, 6, 1, 3] {
        assert_eq!(
            status(api, &guests[at]).await,
            "waiting",
            "no user is admitted meanwhile: {at}"
        );
        assert_eq!(status(api, &guests[at]).await, "waiting");
    }
    assert_eq!(status(api, &buyer).await, "expired", "a used token is not admitted twice");
    // A user who joined again keeps one place, the better one.
    let ticket = api.join(CONCERT, &guests[4].user).await.expect(201);
    assert_ne!(ticket["token"], guests[4].token.as_str());
    assert_eq!(status(api, &guests[4]).await, "waiting");
    let again = api.join(CONCERT, &guests[4].user).await.expect(200);
    assert_eq!(again["token"], guests[4].token.as_str());
    // A user who leaves has left.
    let path = format!("/v1/queues/{CONCERT}/tokens/me");
    api.delete(&path).token(&guests[6].token).send().await.expect(204);
    assert_eq!(status(api, &guests[6]).await, "expired");
    let mut expected: Vec<String> = guests.iter().map(|guest| guest.user.clone()).collect();
    expected.remove(6);
    expected.push(late.user.clone());
    assert_eq!(waiting_users(stores).await, expected);

    // The window ends, and users are admitted from the front.
    let bucket = stores.key(stores.partition_of(CONCERT), &format!("q:{CONCERT}:bucket"));
    stores.redis().await.ask(&["HSET", &bucket, "restore_until", "0"]).await;
    for guest in &guests[..3] {
        eventually("the first users are admitted", || async {
            (status(api, guest).await == "active").then_some(())
        })
        .await;
    }
    assert_eq!(status(api, &guests[3]).await, "waiting");
    assert_eq!(waiting_users(stores).await, expected[3..]);
    assert_eq!(status(api, &buyer).await, "expired");
    let audited = std::process::Command::new(env!("CARGO_BIN_EXE_usher"))
        .args([
            "audit",
            "queue",
            CONCERT,
            "--redis-url",
            &stores.redis_url(),
            "--mysql-url",
            &stores.mysql_url,
        ])
        .args([
            "--partitions",
            &crate::support::servers::PARTITIONS.to_string(),
            "--key-prefix",
            &stores.prefix,
        ])
        .output()
        .unwrap();
    assert!(audited.status.success(), "{audited:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_presented_after_the_window_loses_its_place() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    world.put_queue(CONCERT, slow(100, 1, 0)).await;
    let api = &world.api;
    let first = api.active_user(CONCERT).await;
    let second = api.join_new_user(CONCERT).await;
    world.stores.audit().await;
    lose_redis(&world).await;
    let third = api.join_new_user(CONCERT).await;
    eventually("the queue continues without them", || async {
        (status(api, &third).await == "active").then_some(())
    })
    .await;
    let fourth = api.join_new_user(CONCERT).await;
    assert_eq!(status(api, &fourth).await, "waiting");
    assert_eq!(
        (status(api, &first).await, status(api, &second).await),
        ("expired".into(), "expired".into())
    );
}
