//! Queue tokens at the listener: rotated keys and tokens that are no longer valid.

use super::api_with;
use crate::support::{NIGHT, SHOW, World, eventually, new_key, servers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_key_still_checks_the_tokens_that_it_signed() {
    let world = World::start(1).await;
    world.show(10, 1_000).await;
    let guest = world.api.active_guest(SHOW).await;
    let new = "k2:7215ee9c7d9dc229d2921a40e899ec5f";
    let (_rotated, api) = api_with(&world.stores, |args| {
        args.secrets.token_keys = Some(format!("{new},{}", servers::TOKEN_KEYS));
    })
    .await;
    let ticket = api.poll(SHOW, &guest.token).await.expect(200);
    assert!(ticket["token"].as_str().unwrap().starts_with("k2."), "it is signed anew");
    let (_retired, api) =
        api_with(&world.stores, |args| args.secrets.token_keys = Some(new.into())).await;
    api.poll(SHOW, &guest.token).await.problem(401, "invalid_queue_token");
    api.poll(SHOW, ticket["token"].as_str().unwrap()).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_a_place_that_was_given_up_opens_nothing() {
    let world = World::start(1).await;
    world.show(10, 1_000).await;
    let api = &world.api;
    let before = api.active_guest(SHOW).await;
    let leave =
        |token: &str| api.delete(&format!("/v1/queues/{SHOW}/tokens/me")).token(token).send();
    leave(&before.token).await.expect(204);
    api.poll(SHOW, &before.token).await.problem(410, "queue_token_expired");

    // Its user is back, in another place.
    let joined = api.join(SHOW, &before.user).await.expect(201);
    let now = joined["token"].as_str().unwrap();
    assert_ne!(now, before.token);
    eventually("the new place is inside", || async {
        (api.poll(SHOW, now).await.expect(200)["status"] == "active").then_some(())
    })
    .await;
    api.poll(SHOW, &before.token).await.problem(410, "queue_token_expired");
    for refused in [
        api.hold(&before.token, NIGHT, &[1]).await,
        api.get(&format!("/v1/schedules/{NIGHT}/seats")).token(&before.token).send().await,
    ] {
        assert!([403, 410].contains(&refused.status), "{refused:?}");
    }
    leave(&before.token).await;
    let reservation = api.held(now, NIGHT, &[1]).await;

    // Nor does one of another line, or what is left of a good one.
    api.poll("elsewhere", now).await.problem(403, "wrong_queue");
    for spoiled in [&now[..now.len() - 1], &now[1..], &format!("{now}A"), &now.replace('.', "")] {
        api.poll(SHOW, spoiled).await.problem(401, "invalid_queue_token");
        api.pay(spoiled, &reservation, &new_key()).await.problem(401, "invalid_queue_token");
    }
}
