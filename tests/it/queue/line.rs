//! The line document: its form, its version over several instances, and the positions that clients
//! compute from it.

use std::collections::BTreeMap;

use chrono::{TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};

use crate::recovery::restore::lose_redis;
use crate::support::{
    ApiClient, ApiResponse, CONCERT, TestStores, TestWorld, eventually, new_user, on_one_and_two,
};

on_one_and_two!(
    document_has_all_fields_and_is_cacheable,
    version_changes_only_with_the_line,
    positions_agree_with_the_tickets,
    private_and_unknown_queues_have_no_document,
    line_has_no_front_before_the_draw,
);

const LINE: &str = "/v1/queues/show/line";

/// One active user; nothing changes without a request.
fn standing() -> Value {
    json!({"promote_per_interval": 1_000, "interval_ms": 100, "max_active": 1,
        "active_seconds": 3_600, "claim_seconds": 3_600})
}

async fn line(api: &ApiClient) -> Value {
    api.get(LINE).send().await.expect(200)
}

/// The first document that satisfies the condition.
async fn line_with(api: &ApiClient, what: &str, satisfies: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || async {
        let line = line(api).await;
        satisfies(&line).then_some(line)
    })
    .await
}

/// The position of a score, as `docs/line.md` defines it.
fn position(line: &Value, score: u64) -> Option<u64> {
    let lane = &line["lanes"][0];
    let front = lane["front"].as_u64().filter(|front| *front <= score)?;
    let marks: Vec<(u64, u64)> = serde_json::from_value(lane["marks"].clone()).unwrap();
    let below = marks.iter().filter(|(mark, _)| *mark <= score).max();
    let above = marks.iter().filter(|(mark, _)| *mark > score).min();
    let from_below = below.map(|(mark, ahead)| ahead + score - mark + 1);
    let from_above = above.map(|(_, ahead)| *ahead);
    [Some(score - front + 1), from_below, from_above].into_iter().flatten().min()
}

async fn document_has_all_fields_and_is_cacheable(world: TestWorld) {
    let mut settings = standing();
    let closes_at = Utc::now() + TimeDelta::days(1);
    settings["closes_at"] = json!(closes_at);
    settings["message"] = json!({"ko": "잠시만 기다려 주세요.", "en": "Please wait."});
    world.put_queue(CONCERT, settings.clone()).await;
    let api = &world.api;
    api.join_new_user(CONCERT).await;
    let first = api.join(CONCERT, &new_user()).await.expect(201);
    for _ in 0..9 {
        api.join_new_user(CONCERT).await;
    }
    let line = line_with(api, "ten users wait", |line| line["waiting"] == 10).await;
    let fields: Vec<&String> = line.as_object().unwrap().keys().collect();
    let expected = [
        "at",
        "closes_at",
        "lanes",
        "messages",
        "mode",
        "next_ms",
        "opens_at",
        "queue_id",
        "version",
        "waiting",
    ];
    assert_eq!(fields, expected);
    assert_eq!(line["queue_id"], CONCERT);
    assert_eq!(line["mode"], "open");
    assert_eq!(line["opens_at"], Value::Null);
    assert_eq!(line["messages"], settings["message"]);
    let lanes = line["lanes"].as_array().unwrap();
    let fields: Vec<&String> = lanes[0].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["admitted_per_second", "front", "marks", "name", "waiting"]);
    assert_eq!((lanes.len(), &lanes[0]["name"]), (1, &json!("default")));
    assert_eq!((&lanes[0]["front"], &lanes[0]["waiting"]), (&first["score"], &json!(10)));

    let ApiResponse { headers, .. } = api.get(LINE).send().await;
    assert_eq!(headers["cache-control"], "public, max-age=1, stale-while-revalidate=5");
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["vary"], "accept-encoding");
    let tag = format!("\"{}\"", line["version"]);
    let api = api.for_instance(0);
    line_with(&api, "the instance has this version", |it| it["version"] == line["version"]).await;
    for known in [tag.clone(), format!("W/{tag}"), format!("\"1\", {tag}")] {
        let answer = api.get(LINE).header("if-none-match", &known).send().await;
        assert_eq!((answer.status, answer.text.as_str()), (304, ""), "{known}");
        assert_eq!(answer.headers["etag"], tag.as_str());
    }
    let answer = api.get(LINE).header("if-none-match", "\"1\"").send().await;
    assert_eq!(
        (answer.expect(200)["version"].clone(), &answer.headers["etag"].len()),
        (line["version"].clone(), &tag.len())
    );

    settings["message"] = json!("Soon.");
    world.put_queue(CONCERT, settings).await;
    assert_eq!(api.get(LINE).send().await.expect(200)["messages"], json!({"und": "Soon."}));
}

async fn version_changes_only_with_the_line(world: TestWorld) {
    world.put_queue(CONCERT, standing()).await;
    let api = &world.api;
    for _ in 0..6 {
        api.join_new_user(CONCERT).await;
    }
    let redis = tokio::sync::Mutex::new(world.stores.redis().await);
    let key = world.stores.key(world.stores.partition_of(CONCERT), &format!("q:{CONCERT}:line"));
    let taken_at = async || -> i64 {
        redis.lock().await.ask(&["HGET", &key, "taken_at"]).await.text().parse().unwrap()
    };
    let before = line_with(api, "five users wait", |line| line["waiting"] == 5).await;
    for at in 0..api.instances() {
        let own = api.for_instance(at);
        line_with(&own, "the same version", |line| line["version"] == before["version"]).await;
    }
    // Every instance reads the line several times more.
    for _ in 0..3 {
        let since = taken_at().await;
        eventually("a later snapshot", || async {
            for at in 0..api.instances() {
                assert_eq!(line(&api.for_instance(at)).await, before);
            }
            (taken_at().await > since).then_some(())
        })
        .await;
    }
    let mut versions = vec![before["version"].as_u64().unwrap()];
    for users in 6..10 {
        api.join_new_user(CONCERT).await;
        let line = line_with(api, "one more waits", |line| line["waiting"] == users).await;
        versions.push(line["version"].as_u64().unwrap());
    }
    assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
}

async fn positions_agree_with_the_tickets(world: TestWorld) {
    world.put_queue(CONCERT, standing()).await;
    let api = &world.api;
    let active = api.join_new_user(CONCERT).await;
    let mut waiting = BTreeMap::new();
    for _ in 0..60 {
        let ticket = api.join(CONCERT, &new_user()).await.expect(201);
        let token = ticket["token"].as_str().unwrap().to_owned();
        waiting.insert(ticket["score"].as_u64().unwrap(), token);
    }
    let line = line_with(api, "sixty users wait", |line| line["waiting"] == 60).await;
    for (rank, score) in waiting.keys().enumerate() {
        assert_eq!(position(&line, *score), Some(rank as u64 + 1), "{line}");
    }
    // Users leave all over the line, and the first ones are admitted.
    let leavers: Vec<u64> = waiting.keys().copied().skip(2).step_by(3).collect();
    for score in leavers {
        let token = waiting.remove(&score).unwrap();
        let path = format!("/v1/queues/{CONCERT}/tokens/me");
        api.delete(&path).token(&token).send().await.expect_text(204);
    }
    api.delete(&format!("/v1/queues/{CONCERT}/tokens/me"))
        .token(&active.token)
        .send()
        .await
        .expect_text(204);
    let (admitted, _) = waiting.pop_first().unwrap();
    let line = line_with(api, "the others wait", |line| line["waiting"] == waiting.len()).await;
    assert_eq!(position(&line, admitted), None, "the ticket knows more");
    for (rank, (score, token)) in waiting.iter().enumerate() {
        let (found, rank) = (position(&line, *score).unwrap(), rank as u64 + 1);
        assert!((rank..=rank + 4).contains(&found), "position {found}, rank {rank}: {line}");
        let ticket = api.poll(CONCERT, token).await.expect(200);
        assert!(ticket["position"].as_u64() >= Some(rank), "rank {rank}: {ticket}");
    }
}

async fn private_and_unknown_queues_have_no_document(world: TestWorld) {
    world.put_queue(CONCERT, standing()).await;
    let api = &world.api;
    let listed = api.admin_call(Method::GET, "/admin/queues").send().await.expect(200);
    assert_eq!(listed["items"][0]["definition"]["private"], false);
    for at in 0..api.instances() {
        line(&api.for_instance(at)).await;
    }
    let mut private = standing();
    private["private"] = json!(true);
    world.put_queue(CONCERT, private).await;
    for at in 0..api.instances() {
        api.for_instance(at).get(LINE).send().await.problem(404, "not_found");
    }
    api.join_new_user(CONCERT).await;
    world.put_queue(CONCERT, standing()).await;
    for at in 0..api.instances() {
        line(&api.for_instance(at)).await;
    }
    api.get("/v1/queues/unknown/line").send().await.problem(404, "not_found");
    api.post(LINE).send().await.problem(405, "method_not_allowed");
}

async fn line_has_no_front_before_the_draw(world: TestWorld) {
    let mut lottery = standing();
    lottery["order"] = json!("lottery");
    lottery["opens_at"] = json!(Utc::now() + TimeDelta::hours(1));
    world.put_queue(CONCERT, lottery.clone()).await;
    let api = &world.api;
    for _ in 0..7 {
        api.join_new_user(CONCERT).await;
    }
    let line = line_with(api, "seven users wait", |line| line["waiting"] == 7).await;
    assert_eq!(line["mode"], "prequeue");
    let lane = &line["lanes"][0];
    assert_eq!((&lane["front"], &lane["marks"]), (&Value::Null, &json!([])));
    // The operator opens the queue.
    lottery["order"] = json!("fifo");
    lottery["opens_at"] = json!(null);
    world.put_queue(CONCERT, lottery).await;
    let line = line_with(api, "one user is admitted", |line| line["waiting"] == 6).await;
    assert!(line["lanes"][0]["front"].is_u64(), "{line}");
}

/// Clients ignore lower versions, so a new Redis must not start from the beginning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_rises_across_a_loss_of_redis() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 2).await;
    let mut settings = standing();
    settings["restore_seconds"] = json!(2);
    world.put_queue(CONCERT, settings).await;
    let api = &world.api;
    let mut users = Vec::new();
    for _ in 0..4 {
        users.push(api.join_new_user(CONCERT).await);
    }
    let before = line_with(api, "three users wait", |line| line["waiting"] == 3).await;
    world.stores.audit().await;
    lose_redis(&world).await;
    for user in &users {
        assert_eq!(api.poll(CONCERT, &user.token).await.expect(200)["status"], "waiting");
    }
    let restored = eventually("the line is known again", || async {
        let answer = api.get(LINE).send().await;
        let is_known = answer.status == 200
            && answer.body["version"] != before["version"]
            && answer.body["lanes"][0]["front"].is_u64();
        is_known.then_some(answer.body)
    })
    .await;
    assert!(restored["version"].as_u64() > before["version"].as_u64(), "{restored}");
}
