//! Operators remove users and delete queues.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::world::concert_definition;
use crate::support::{
    ApiClient, ApiResponse, CONCERT, EventStream, SCHEDULE, StreamItem, TestWorld, eventually,
    new_user, on_one_and_two,
};

on_one_and_two!(
    removed_user_loses_the_place,
    removed_user_loses_the_slot_and_its_holds,
    queue_in_use_is_not_deleted,
    deleted_queue_is_gone_everywhere,
    old_tokens_have_no_place_in_a_new_queue_of_the_name,
    payment_in_progress_is_in_the_way_of_a_deletion,
);

/// A queue without a concert.
const SPARE: &str = "spare";

/// One active user at a time.
fn narrow() -> Value {
    json!({"promote_per_interval": 1_000, "interval_ms": 100, "max_active": 1})
}

async fn admin_delete(api: &ApiClient, path: &str) -> ApiResponse {
    api.admin_call(Method::DELETE, path).send().await
}

async fn remove(api: &ApiClient, queue: &str, user: &str) -> ApiResponse {
    admin_delete(api, &format!("/admin/queues/{queue}/users/{user}")).await
}

async fn wait_until_unknown(world: &TestWorld, queue: &str, token: &str) {
    for at in 0..world.api.instances() {
        let api = world.api.for_instance(at);
        eventually("the queue is unknown", || async {
            let polled = api.poll(queue, token).await;
            let joined = api.join(queue, &new_user()).await;
            (polled.status == 404 && joined.status == 404).then_some(())
        })
        .await;
    }
}

async fn removed_user_loses_the_place(world: TestWorld) {
    world.put_queue(CONCERT, narrow()).await;
    let api = &world.api;
    let _active = api.join_new_user(CONCERT).await;
    let (second, third) = (api.join_new_user(CONCERT).await, api.join_new_user(CONCERT).await);
    remove(api, CONCERT, &second.user).await.expect_text(204);
    for at in 0..api.instances() {
        api.for_instance(at).wait_until_expired(CONCERT, &second.token).await;
    }
    remove(api, CONCERT, &second.user).await.problem(404, "not_found");
    remove(api, CONCERT, &new_user()).await.problem(404, "not_found");
    remove(api, "nowhere", &second.user).await.problem(404, "not_found");
    eventually("the user behind moves up", || async {
        let ticket = api.poll(CONCERT, &third.token).await.expect(200);
        (ticket["position"] == 1).then_some(())
    })
    .await;
    let again = api.join(CONCERT, &second.user).await.expect(201);
    assert_eq!(again["status"], "waiting");

    let actions = api.admin_call(Method::GET, "/admin/actions").send().await.expect(200);
    let object = format!("{CONCERT}/{}", second.user);
    let logged = actions["items"].as_array().unwrap().iter().filter(|it| it["object"] == object);
    let statuses: Vec<_> = logged.map(|it| it["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [404, 204], "{actions}");
}

async fn removed_user_loses_the_slot_and_its_holds(world: TestWorld) {
    world.put_queue(CONCERT, narrow()).await;
    world.put_concert(CONCERT, concert_definition(10, 1_000)).await;
    let api = &world.api;
    let first = api.join_new_user(CONCERT).await;
    let second = api.join_new_user(CONCERT).await;
    api.hold_seats(&first.token, SCHEDULE, &[1, 2]).await;
    api.hold_seats(&first.token, SCHEDULE, &[3]).await;
    remove(api, CONCERT, &first.user).await.expect_text(204);
    api.hold(&first.token, SCHEDULE, &[4]).await.problem(410, "queue_token_expired");
    for at in 0..api.instances() {
        api.for_instance(at).wait_until_expired(CONCERT, &first.token).await;
    }
    api.wait_until_active(CONCERT, &second).await;
    api.hold_seats(&second.token, SCHEDULE, &[1, 2, 3]).await;
    remove(api, CONCERT, &first.user).await.problem(404, "not_found");
    world.stores.audit().await;
}

async fn queue_in_use_is_not_deleted(world: TestWorld) {
    world.put_show(10, 1_000).await;
    world.put_queue(SPARE, narrow()).await;
    let api = &world.api;
    for force in ["", "?force=true"] {
        let answer = admin_delete(api, &format!("/admin/queues/{CONCERT}{force}")).await;
        let in_use = answer.problem(409, "in_use")["in_use"].clone();
        assert_eq!(in_use, json!([{"kind": "concert", "id": CONCERT}]));
    }
    let mut users = Vec::new();
    for _ in 0..25 {
        users.push(api.join_new_user(SPARE).await);
    }
    let answer = admin_delete(api, &format!("/admin/queues/{SPARE}")).await;
    let in_use = answer.problem(409, "in_use")["in_use"].clone();
    let named: Vec<Value> =
        users.iter().take(20).map(|it| json!({"kind": "user", "id": it.user})).collect();
    assert_eq!(in_use, json!(named), "the active user, then those who wait");
    // Nothing has changed.
    assert_eq!(api.poll(SPARE, &users[0].token).await.expect(200)["status"], "active");
    api.join_new_user(SPARE).await;
}

async fn deleted_queue_is_gone_everywhere(world: TestWorld) {
    world.put_queue(SPARE, narrow()).await;
    let api = &world.api;
    let active = api.join_new_user(SPARE).await;
    let waiting = api.join_new_user(SPARE).await;
    let url = format!("{}/v1/queues/{SPARE}/tokens/me/events", api.public());
    let mut stream = EventStream::open(&url, &[("queue-token", &waiting.token)]).await;
    stream.ticket().await;
    admin_delete(api, &format!("/admin/queues/{SPARE}?force=true")).await.expect_text(204);
    wait_until_unknown(&world, SPARE, &active.token).await;
    wait_until_unknown(&world, SPARE, &waiting.token).await;
    while !matches!(stream.next().await, StreamItem::End) {}
    admin_delete(api, &format!("/admin/queues/{SPARE}")).await.problem(404, "not_found");
    remove(api, SPARE, &waiting.user).await.problem(404, "not_found");
    let prefix = world.stores.key(world.stores.partition_of(SPARE), &format!("q:{SPARE}:"));
    let left = world.stores.redis().await.dump_keys(&prefix).await;
    assert!(left.is_empty(), "{left:?}");
    let listed = api.admin_call(Method::GET, "/admin/queues").send().await.expect(200);
    assert_eq!(listed["items"], json!([]));
    world.stores.audit().await;
}

async fn old_tokens_have_no_place_in_a_new_queue_of_the_name(world: TestWorld) {
    world.put_queue(SPARE, narrow()).await;
    let api = &world.api;
    let mut old = Vec::new();
    for _ in 0..5 {
        old.push(api.join_new_user(SPARE).await);
    }
    admin_delete(api, &format!("/admin/queues/{SPARE}?force=true")).await.expect_text(204);
    world.put_queue(SPARE, narrow()).await;
    for _ in 0..3 {
        api.join_new_user(SPARE).await;
    }
    for user in &old {
        for at in 0..api.instances() {
            api.for_instance(at).wait_until_expired(SPARE, &user.token).await;
        }
    }
    assert_eq!(api.join(SPARE, &old[1].user).await.expect(201)["status"], "waiting");
}

async fn payment_in_progress_is_in_the_way_of_a_deletion(world: TestWorld) {
    world.put_queue(SPARE, narrow()).await;
    let api = &world.api;
    let (active, waiting) = (api.join_new_user(SPARE).await, api.join_new_user(SPARE).await);
    let mut redis = world.stores.redis().await;
    let due = world.stores.key(world.stores.partition_of(SPARE), &format!("q:{SPARE}:due"));
    redis.ask(&["ZADD", &due, "99999999999999", "a payment"]).await;
    let forced = format!("/admin/queues/{SPARE}?force=true");
    let refused = admin_delete(api, &forced).await.problem(409, "in_use");
    let named = [&active, &waiting].map(|it| json!({"kind": "user", "id": it.user}));
    assert_eq!(refused["in_use"], json!(named));
    assert_eq!(api.poll(SPARE, &active.token).await.expect(200)["status"], "active");
    redis.ask(&["DEL", &due]).await;
    admin_delete(api, &forced).await.expect_text(204);
    wait_until_unknown(&world, SPARE, &active.token).await;
}
