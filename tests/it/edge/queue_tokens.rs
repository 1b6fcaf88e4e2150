//! Queue tokens at the listener: rotated keys and tokens that are no longer valid.

use super::api_with;
use crate::support::{CONCERT, SCHEDULE, TestWorld, eventually, new_key, servers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotated_key_still_verifies_its_tokens() {
    let world = TestWorld::start(1).await;
    world.put_show(10, 1_000).await;
    let guest = world.api.active_user(CONCERT).await;
    let new = "k2:7215ee9c7d9dc229d2921a40e899ec5f";
    let (_rotated, api) = api_with(&world.stores, |args| {
        args.secrets.token_keys = Some(format!("{new},{}", servers::TOKEN_KEYS));
    })
    .await;
    let ticket = api.poll(CONCERT, &guest.token).await.expect(200);
    assert!(
        ticket["token"].as_str().unwrap().starts_with("k2."),
        "the token is signed with the new key"
    );
    let (_retired, api) =
        api_with(&world.stores, |args| args.secrets.token_keys = Some(new.into())).await;
    api.poll(CONCERT, &guest.token).await.problem(401, "invalid_queue_token");
    api.poll(CONCERT, ticket["token"].as_str().unwrap()).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_of_a_left_place_is_refused() {
    let world = TestWorld::start(1).await;
    world.put_show(10, 1_000).await;
    let api = &world.api;
    let before = api.active_user(CONCERT).await;
    let leave =
        |token: &str| api.delete(&format!("/v1/queues/{CONCERT}/tokens/me")).token(token).send();
    leave(&before.token).await.expect(204);
    api.poll(CONCERT, &before.token).await.problem(410, "queue_token_expired");

    // The user joins again and gets another place.
    let joined = api.join(CONCERT, &before.user).await.expect(201);
    let now = joined["token"].as_str().unwrap();
    assert_ne!(now, before.token);
    eventually("the new place is active", || async {
        (api.poll(CONCERT, now).await.expect(200)["status"] == "active").then_some(())
    })
    .await;
    api.poll(CONCERT, &before.token).await.problem(410, "queue_token_expired");
    for refused in [
        api.hold(&before.token, SCHEDULE, &[1]).await,
        api.get(&format!("/v1/schedules/{SCHEDULE}/seats")).token(&before.token).send().await,
    ] {
        assert!([403, 410].contains(&refused.status), "{refused:?}");
    }
    leave(&before.token).await;
    let reservation = api.hold_seats(now, SCHEDULE, &[1]).await;

    // Tokens of another queue and damaged tokens are refused.
    api.poll("elsewhere", now).await.problem(403, "wrong_queue");
    for spoiled in [&now[..now.len() - 1], &now[1..], &format!("{now}A"), &now.replace('.', "")] {
        api.poll(CONCERT, spoiled).await.problem(401, "invalid_queue_token");
        api.pay(spoiled, &reservation, &new_key()).await.problem(401, "invalid_queue_token");
    }
}
