//! The line after a loss: it stands up again from the tokens, in the old order.

use serde_json::{Value, json};

use crate::recovery::restore::{generations, laid_back};
use crate::support::api::Guest;
use crate::support::world::show;
use crate::support::{Api, NIGHT, SHOW, Stores, World, eventually, new_key};

fn slow(promote: u32, active: u32, restore: u32) -> Value {
    json!({"promote_per_interval": promote, "interval_ms": 100, "max_active": active, "restore_seconds": restore})
}

async fn status(api: &Api, guest: &Guest) -> String {
    let answer = api.poll(SHOW, &guest.token).await;
    if answer.status == 410 {
        "expired".to_owned()
    } else {
        answer.expect(200)["status"].as_str().unwrap().to_owned()
    }
}

/// The users in line, first to last.
async fn line(stores: &Stores) -> Vec<String> {
    let key = stores.key(stores.partition_of(SHOW), &format!("q:{SHOW}:waiting"));
    let members = stores.redis().await.ask(&["ZRANGE", &key, "0", "-1"]).await.list();
    members
        .into_iter()
        .map(|user| uuid::Uuid::from_slice(&user.bytes()).unwrap().to_string())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_stands_up_again_in_the_old_order() {
    let world = World::on(Stores::with_own_redis().await, 2).await;
    world.queue(SHOW, slow(100, 3, 600)).await;
    world.concert(SHOW, show(10, 1_000)).await;
    let (api, stores) = (&world.api, &world.stores);
    let mut guests = Vec::new();
    for _ in 0..3 {
        guests.push(api.active_guest(SHOW).await);
    }
    // One is through before the loss: the token is used up.
    let buyer = guests.remove(0);
    api.charge(&buyer.user, 1_000).await;
    let hold = api.held(&buyer.token, NIGHT, &[1]).await;
    api.pay(&buyer.token, &hold, &new_key()).await.expect(201);
    assert_eq!(status(api, &buyer).await, "expired");
    for _ in 0..6 {
        guests.push(api.guest(SHOW).await);
    }
    eventually("one more is let in", || async {
        (status(api, &guests[2]).await == "active").then_some(())
    })
    .await;
    stores.audit().await;

    let had = generations(stores).await;
    stores.redis().await.ask(&["FLUSHALL"]).await;
    laid_back(&world, &had).await;
    // Who comes now stands behind everybody who was there, whoever shows up first.
    let late = api.guest(SHOW).await;
    for at in [5, 2, 7, 0, 6, 1, 3] {
        assert_eq!(status(api, &guests[at]).await, "waiting", "nobody is let in meanwhile: {at}");
        assert_eq!(status(api, &guests[at]).await, "waiting");
    }
    assert_eq!(
        status(api, &buyer).await,
        "expired",
        "a token that was used up does not get in twice"
    );
    // Who has joined anew keeps one place, the better one.
    let ticket = api.join(SHOW, &guests[4].user).await.expect(201);
    assert_ne!(ticket["token"], guests[4].token.as_str());
    assert_eq!(status(api, &guests[4]).await, "waiting");
    let again = api.join(SHOW, &guests[4].user).await.expect(200);
    assert_eq!(again["token"], guests[4].token.as_str());
    // Who leaves has left.
    let path = format!("/v1/queues/{SHOW}/tokens/me");
    api.delete(&path).token(&guests[6].token).send().await.expect(204);
    assert_eq!(status(api, &guests[6]).await, "expired");
    let mut expected: Vec<String> = guests.iter().map(|guest| guest.user.clone()).collect();
    expected.remove(6);
    expected.push(late.user.clone());
    assert_eq!(line(stores).await, expected);

    // The window ends, and they are let in from the front.
    let bucket = stores.key(stores.partition_of(SHOW), &format!("q:{SHOW}:bucket"));
    stores.redis().await.ask(&["HSET", &bucket, "restore_until", "0"]).await;
    for guest in &guests[..3] {
        eventually("the front is let in", || async {
            (status(api, guest).await == "active").then_some(())
        })
        .await;
    }
    assert_eq!(status(api, &guests[3]).await, "waiting");
    assert_eq!(line(stores).await, expected[3..]);
    assert_eq!(status(api, &buyer).await, "expired");
    let audited = std::process::Command::new(env!("CARGO_BIN_EXE_usher"))
        .args([
            "audit",
            "queue",
            SHOW,
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
async fn a_token_that_is_shown_too_late_has_lost_its_place() {
    let world = World::on(Stores::with_own_redis().await, 1).await;
    world.queue(SHOW, slow(100, 1, 0)).await;
    let api = &world.api;
    let first = api.active_guest(SHOW).await;
    let second = api.guest(SHOW).await;
    world.stores.audit().await;
    let had = generations(&world.stores).await;
    world.stores.redis().await.ask(&["FLUSHALL"]).await;
    laid_back(&world, &had).await;
    let third = api.guest(SHOW).await;
    eventually("the line goes on without them", || async {
        (status(api, &third).await == "active").then_some(())
    })
    .await;
    let fourth = api.guest(SHOW).await;
    assert_eq!(status(api, &fourth).await, "waiting");
    assert_eq!(
        (status(api, &first).await, status(api, &second).await),
        ("expired".into(), "expired".into())
    );
}
