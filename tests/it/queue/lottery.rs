//! Lotteries: chances, places after a change of the opening, and the published draws.

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use usher::config::UsherConfig;

use crate::recovery::restore::wait_until_serving;
use crate::support::api::TestUser;
use crate::support::{ApiClient, CONCERT, TestStores, TestWorld, eventually, on_one_and_two};

on_one_and_two!(
    user_who_joins_a_draw_again_is_admitted,
    seed_never_changes_after_its_publication,
    waiting_users_stay_ahead_of_a_later_draw,
    users_of_a_paused_prequeue_are_entrants,
);

/// A lottery that opens at a number of seconds from now, with one active user.
fn lottery(opens_in_seconds: i64, more: Value) -> Value {
    let opens_at = Utc::now() + TimeDelta::seconds(opens_in_seconds);
    let mut settings = json!({
        "promote_per_interval": 1_000, "interval_ms": 100, "max_active": 1, "order": "lottery",
        "opens_at": opens_at,
    });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

/// Changes the settings, and waits until every instance has them.
async fn change(world: &TestWorld, settings: Value) {
    let reported =
        world.api.put("/admin/queues/show", &settings).await.expect(200)["definition"].clone();
    for at in 0..world.api.instances() {
        let api = world.api.for_instance(at);
        eventually("the instance has the settings", || async {
            let there = api.admin_call(reqwest::Method::GET, "/admin/queues/show").send().await;
            (there.status == 200 && there.body["definition"] == reported).then_some(())
        })
        .await;
    }
}

async fn assert_scores_follow_from_the_seeds(world: &TestWorld) {
    let config = UsherConfig::new(&world.stores.args()).unwrap();
    assert!(usher::app::audit_queue(&config.stores, &CONCERT.parse().unwrap()).await.unwrap());
}

async fn leave(api: &ApiClient, guest: &TestUser) {
    api.delete("/v1/queues/show/tokens/me").token(&guest.token).send().await.expect(204);
}

async fn score(api: &ApiClient, guest: &TestUser) -> u64 {
    api.poll(CONCERT, &guest.token).await.expect(200)["score"].as_u64().unwrap()
}

/// The draws, once they satisfy a condition. The response is up to a second old.
async fn draws(api: &ApiClient, what: &str, satisfies: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    eventually(what, || async {
        let body = api.get("/v1/queues/show/draws").send().await.expect(200);
        let items = body["items"].as_array().unwrap().clone();
        satisfies(&items).then_some(items)
    })
    .await
}

async fn user_who_joins_a_draw_again_is_admitted(world: TestWorld) {
    change(&world, lottery(600, json!({}))).await;
    let api = &world.api;
    let guest = api.join_new_user(CONCERT).await;
    let before = score(api, &guest).await;
    leave(api, &guest).await;
    for at in 0..api.instances() {
        api.for_instance(at).wait_until_expired(CONCERT, &guest.token).await;
    }
    // A user has one draw, so that the place is the same.
    let ticket = api.join(CONCERT, &guest.user).await.expect(201);
    assert_eq!(ticket["score"], before);
    assert_eq!(
        (&ticket["status"], &ticket["position"], &ticket["estimated_wait_seconds"]),
        (&json!("waiting"), &json!(null), &json!(null))
    );
    for at in 0..api.instances() {
        let ticket = api.for_instance(at).poll(CONCERT, &guest.token).await.expect(200);
        assert_eq!((&ticket["status"], &ticket["position"]), (&json!("waiting"), &json!(null)));
    }
    change(&world, lottery(-1, json!({}))).await;
    api.wait_until_active(CONCERT, &guest).await;
}

async fn seed_never_changes_after_its_publication(world: TestWorld) {
    change(&world, lottery(600, json!({}))).await;
    let api = &world.api;
    for _ in 0..3 {
        api.join_new_user(CONCERT).await;
    }
    let first = draws(api, "the draw is listed", |draws| draws.len() == 1).await.remove(0);
    assert_eq!((&first["draw"], &first["seed"]), (&json!(1), &json!(null)));
    assert_eq!((&first["drawn_at"], &first["entrants"]), (&json!(null), &json!(null)));
    let state = api.get("/v1/queues/show").send().await.expect(200);
    assert_eq!(state["lottery"], json!({"seed_sha256": first["seed_sha256"], "seed": null}));

    // Opened by the operator.
    change(&world, lottery(-1, json!({"claim_seconds": 600}))).await;
    let drawn = draws(api, "the draw took place", |draws| draws[0]["entrants"].is_u64()).await;
    assert_eq!(drawn.len(), 1);
    assert_eq!(drawn[0]["seed_sha256"], first["seed_sha256"]);
    assert_eq!(drawn[0]["entrants"], 3);
    assert!(drawn[0]["drawn_at"].is_string(), "{drawn:?}");
    let seed = drawn[0]["seed"].as_str().expect("the seed is public after the opening");
    let hash: String = Sha256::digest(seed).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(first["seed_sha256"], hash);

    // A change after the opening keeps the draw, a later opening is another draw.
    change(&world, lottery(-1, json!({"max_active": 2, "claim_seconds": 600}))).await;
    assert_eq!(draws(api, "the draw is listed", |_| true).await, drawn);
    change(&world, lottery(600, json!({}))).await;
    let both = draws(api, "another draw is listed", |draws| draws.len() == 2).await;
    assert_eq!(both[0], drawn[0]);
    assert_eq!((&both[1]["draw"], &both[1]["seed"]), (&json!(2), &json!(null)));
    assert_ne!(both[1]["seed_sha256"], first["seed_sha256"]);

    // Entrants of both draws wait, and the audit derives their scores again.
    for _ in 0..3 {
        api.join_new_user(CONCERT).await;
    }
    world.stores.wait_until_idle().await;
    assert_scores_follow_from_the_seeds(&world).await;
}

async fn waiting_users_stay_ahead_of_a_later_draw(world: TestWorld) {
    let fifo = json!({"promote_per_interval": 1_000, "interval_ms": 100, "max_active": 1});
    change(&world, fifo).await;
    let api = &world.api;
    let active_user = api.join_new_user(CONCERT).await;
    let mut groups = vec![vec![api.join_new_user(CONCERT).await, api.join_new_user(CONCERT).await]];
    // Each change of the opening begins a group behind all earlier ones.
    for opens_in_seconds in [600, 700, 800] {
        change(&world, lottery(opens_in_seconds, json!({}))).await;
        let mut group = Vec::new();
        for _ in 0..5 {
            group.push(api.join_new_user(CONCERT).await);
        }
        groups.push(group);
    }
    let mut highest = 0;
    for group in &groups {
        let mut scores = Vec::new();
        for guest in group {
            scores.push(score(api, guest).await);
        }
        assert!(scores.iter().all(|score| *score > highest), "{scores:?} after {highest}");
        highest = *scores.iter().max().unwrap();
    }
    change(&world, lottery(-1, json!({}))).await;
    leave(api, &active_user).await;
    let first = api.wait_until_active(CONCERT, &groups[0][0]).await;
    assert_eq!(first["mode"], "open");
    // Users who join after the opening are behind every entrant.
    let late = api.join_new_user(CONCERT).await;
    assert!(score(api, &late).await > highest);
    eventually("positions are known after the draw", || async {
        let ticket = api.poll(CONCERT, &groups[0][1].token).await.expect(200);
        (ticket["position"] == 1).then_some(())
    })
    .await;
}

async fn users_of_a_paused_prequeue_are_entrants(world: TestWorld) {
    let opening = lottery(600, json!({}));
    change(&world, opening.clone()).await;
    let api = &world.api;
    api.join_new_user(CONCERT).await;
    let mut paused = opening.clone();
    paused["mode"] = json!("paused");
    change(&world, paused).await;
    let ticket = api.join(CONCERT, &crate::support::new_user()).await.expect(201);
    assert_eq!((&ticket["status"], &ticket["position"]), (&json!("waiting"), &json!(null)));
    change(&world, opening).await;
    change(&world, lottery(-1, json!({}))).await;
    let drawn = draws(api, "the draw took place", |draws| draws[0]["entrants"].is_u64()).await;
    assert_eq!((drawn.len(), &drawn[0]["entrants"]), (1, &json!(2)));
}

async fn published_opening(stores: &TestStores) -> String {
    let key = stores.key(stores.partition_of(CONCERT), &format!("q:{CONCERT}:settings"));
    stores.redis().await.ask(&["HGET", &key, "opens_at"]).await.text()
}

/// MySQL loses the change that started a further draw, in which a user has a place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draw_that_mysql_has_lost_keeps_its_places() {
    for opens_in_seconds in [600, -600] {
        let world = TestWorld::on(TestStores::with_own_redis().await, 2).await;
        let (api, stores) = (&world.api, &world.stores);
        let settings = lottery(opens_in_seconds, json!({"mode": "paused"}));
        change(&world, settings).await;
        let mut guests = vec![api.join_new_user(CONCERT).await];
        stores.wait_until_idle().await;
        let (copy, opening) = (stores.copy_mysql().await, published_opening(stores).await);
        change(&world, lottery(900, json!({"mode": "paused"}))).await;
        guests.push(api.join_new_user(CONCERT).await);
        stores.wait_until_idle().await;
        assert!(stores.take_mysql_back(&copy).await);
        wait_until_serving(api).await;
        eventually("the old settings are published again", || async {
            (published_opening(stores).await == opening).then_some(())
        })
        .await;
        guests.push(api.join_new_user(CONCERT).await);
        change(&world, lottery(950, json!({"mode": "paused"}))).await;
        guests.push(api.join_new_user(CONCERT).await);
        let mut scores = Vec::new();
        for guest in &guests {
            scores.push(score(api, guest).await);
        }
        assert!(scores.is_sorted_by(|one, next| one < next), "{scores:?}");
        stores.wait_until_idle().await;
        assert_scores_follow_from_the_seeds(&world).await;
    }
}
