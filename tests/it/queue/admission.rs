//! Admission: order, limits, rate and the ways in which a place is lost.

use std::collections::BTreeMap;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    ApiClient, CONCERT, SCHEDULE, TestWorld, eventually, new_key, new_user, on_one_and_two,
};

on_one_and_two!(
    users_are_admitted_in_order,
    max_active_is_never_exceeded,
    promotion_rate_is_never_exceeded,
    unclaimed_slot_goes_to_the_next_user,
    token_expires_with_its_active_slot,
    hold_keeps_its_user_active,
    leaving_frees_the_active_slot,
    payment_frees_the_active_slot,
    closed_paused_and_full_queues_refuse,
    queue_with_an_opening_time_admits_after_it,
);

/// One active user at a time, unless the settings say otherwise.
fn narrow(more: Value) -> Value {
    let mut settings = json!({"promote_per_interval": 1_000, "interval_ms": 100, "max_active": 1});
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

/// Waits until a poll reports a position. The response comes from a snapshot that is up to 250 ms
/// old.
async fn is_at(api: &ApiClient, token: &str, position: usize) {
    eventually("the position is reported", || async {
        let ticket = api.poll(CONCERT, token).await.expect(200);
        (ticket["position"] == json!(position)).then_some(())
    })
    .await;
}

async fn users_are_admitted_in_order(world: TestWorld) {
    world.put_queue(CONCERT, narrow(json!({}))).await;
    let api = &world.api;
    let first = api.join_new_user(CONCERT).await;
    let mut line = Vec::new();
    for place in 1..=5 {
        let user = new_user();
        let ticket = api.join(CONCERT, &user).await.expect(201);
        assert_eq!((&ticket["status"], &ticket["position"]), (&json!("waiting"), &json!(place)));
        assert_eq!((&ticket["waiting"], &ticket["active_until"]), (&json!(place), &json!(null)));
        assert!(
            ticket["poll_after_ms"].as_u64().is_some_and(|ms| (500..=11_000).contains(&ms)),
            "{ticket}"
        );
        line.push(ticket["token"].as_str().unwrap().to_owned());
    }
    let mut active_user = first.token;
    for (nth, token) in line.iter().enumerate() {
        for (behind, other) in line[nth..].iter().enumerate() {
            is_at(api, other, behind + 1).await;
        }
        api.delete("/v1/queues/show/tokens/me").token(&active_user).send().await.expect(204);
        eventually("the next user is admitted", || async {
            let ticket = api.poll(CONCERT, token).await.expect(200);
            (ticket["status"] == "active" && ticket["position"].is_null()).then_some(())
        })
        .await;
        active_user = token.clone();
    }
}

async fn max_active_is_never_exceeded(world: TestWorld) {
    world.put_queue(CONCERT, narrow(json!({"max_active": 25}))).await;
    let api = &world.api;
    let tickets =
        join_all((0..300).map(async |_| api.join(CONCERT, &new_user()).await.expect(201))).await;
    let active = tickets.iter().filter(|ticket| ticket["status"] == "active").count();
    assert!(active <= 25, "{active} users were admitted at once");
    eventually("the queue fills", || async {
        let queue = api.get("/v1/queues/show").send().await.expect(200);
        assert!(queue["active"].as_u64().unwrap() <= 25, "{queue}");
        let all = queue["waiting"].as_u64().unwrap() + queue["active"].as_u64().unwrap();
        (queue["active"] == 25 && all == 300).then_some(())
    })
    .await;
    // Each user has one place and no place is missing, once every instance has seen the last
    // promotion.
    let expected: BTreeMap<_, _> =
        [(None, 25)].into_iter().chain((1..=275).map(|n| (Some(n), 1))).collect();
    eventually("every user has one position", || async {
        let polls = tickets.iter().map(async |ticket| {
            api.poll(CONCERT, ticket["token"].as_str().unwrap()).await.expect(200)
        });
        let mut positions = BTreeMap::new();
        for ticket in join_all(polls).await {
            *positions.entry(ticket["position"].as_u64()).or_insert(0) += 1;
        }
        (positions == expected).then_some(())
    })
    .await;
    let one_inside = tickets.iter().find(|ticket| ticket["status"] == "active").cloned();

    // Each freed slot goes to one user only.
    let token = one_inside.expect("the first users were admitted in order")["token"].clone();
    let leave = api.delete("/v1/queues/show/tokens/me").token(token.as_str().unwrap());
    leave.send().await.expect(204);
    eventually("the slot goes to the next user", || async {
        let queue = api.get("/v1/queues/show").send().await.expect(200);
        assert!(queue["active"].as_u64().unwrap() <= 25, "{queue}");
        (queue["waiting"] == 274 && queue["active"] == 25).then_some(())
    })
    .await;
}

async fn promotion_rate_is_never_exceeded(world: TestWorld) {
    let settings = json!({"promote_per_interval": 10, "interval_ms": 300, "max_active": 10_000});
    world.put_queue(CONCERT, settings).await;
    let api = &world.api;
    join_all((0..60).map(async |_| api.join(CONCERT, &new_user()).await.expect(201))).await;
    eventually("every user is admitted", || async {
        let queue = api.get("/v1/queues/show").send().await.expect(200);
        (queue["active"] == 60 && queue["admitted_total"] == 60).then_some(())
    })
    .await;
    world.stores.wait_until_idle().await;
    let promotions: Vec<(i64, i64, u32, i64)> = sqlx::query_as(
        "SELECT from_score, to_score, count, CAST(ROUND(UNIX_TIMESTAMP(promoted_at) * 1000) AS \
             SIGNED) FROM promotions ORDER BY partition_id, n, idx",
    )
    .fetch_all(&world.stores.mysql)
    .await
    .unwrap();
    assert_eq!(promotions.iter().map(|(_, _, count, _)| count).sum::<u32>(), 60);
    for (nth, (from, to, count, at)) in promotions.iter().enumerate() {
        assert_eq!(to - from + 1, i64::from(*count), "positions without a gap: {promotions:?}");
        if nth > 0 {
            assert_eq!(
                *from,
                promotions[nth - 1].1 + 1,
                "promotions in the order of the queue: {promotions:?}"
            );
        }
        // Check every window that begins with an admission.
        let window = promotions[nth..].iter().filter(|(.., later)| *later < at + 300);
        assert!(window.map(|(_, _, count, _)| count).sum::<u32>() <= 10, "{promotions:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_promoters_admit_no_more_than_one() {
    promotion_rate_is_never_exceeded(TestWorld::start(10).await).await;
}

async fn unclaimed_slot_goes_to_the_next_user(world: TestWorld) {
    world.put_queue(CONCERT, narrow(json!({"claim_seconds": 1, "active_seconds": 600}))).await;
    let api = &world.api;
    let first = api.join_new_user(CONCERT).await;
    let absent = api.join_new_user(CONCERT).await;
    let next = api.join_new_user(CONCERT).await;
    api.delete("/v1/queues/show/tokens/me").token(&first.token).send().await.expect(204);
    // The second user is admitted and never polls, so the third has the slot after a second.
    let ticket = api.wait_until_active(CONCERT, &next).await;
    api.wait_until_expired(CONCERT, &absent.token).await;
    let until: chrono::DateTime<chrono::Utc> =
        ticket["active_until"].as_str().unwrap().parse().unwrap();
    assert!(
        until > chrono::Utc::now() + chrono::TimeDelta::seconds(500),
        "a user who polls keeps the slot"
    );
    // The place is lost, so the next join gets a new one at the end.
    let again = api.join(CONCERT, &absent.user).await.expect(201);
    assert_ne!(again["token"], absent.token);
}

async fn token_expires_with_its_active_slot(world: TestWorld) {
    world.put_queue(CONCERT, narrow(json!({"active_seconds": 1}))).await;
    let api = &world.api;
    let first = api.join_new_user(CONCERT).await;
    let next = api.join_new_user(CONCERT).await;
    assert_eq!(api.poll(CONCERT, &first.token).await.expect(200)["status"], "active");
    api.wait_until_expired(CONCERT, &first.token).await;
    api.delete("/v1/queues/show/tokens/me")
        .token(&first.token)
        .send()
        .await
        .problem(410, "queue_token_expired");
    api.wait_until_active(CONCERT, &next).await;
}

async fn hold_keeps_its_user_active(world: TestWorld) {
    world.put_queue(CONCERT, narrow(json!({"active_seconds": 1}))).await;
    world.put_concert(CONCERT, crate::support::world::concert_definition(10, 1_000)).await;
    let api = &world.api;
    let guest = api.join_new_user(CONCERT).await;
    let held = api.hold(&guest.token, SCHEDULE, &[1]).await.expect(201);
    let ticket = api.poll(CONCERT, &guest.token).await.expect(200);
    assert_eq!(ticket["active_until"], held["held_until"]);
    // The second has passed and the seats are still readable. After the release the slot ends, too.
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    assert_eq!(api.seats(&guest.token, SCHEDULE).await[0], "held");
    let path = format!("/v1/reservations/{}", held["id"].as_str().unwrap());
    api.delete(&path).token(&guest.token).send().await.expect(204);
    api.poll(CONCERT, &guest.token).await.problem(410, "queue_token_expired");
}

async fn leaving_frees_the_active_slot(world: TestWorld) {
    world.put_queue(CONCERT, narrow(json!({}))).await;
    let api = &world.api;
    let active_user = api.join_new_user(CONCERT).await;
    let (second, third) = (api.join_new_user(CONCERT).await, api.join_new_user(CONCERT).await);
    assert_eq!(api.poll(CONCERT, &third.token).await.expect(200)["position"], 2);
    api.delete("/v1/queues/show/tokens/me").token(&second.token).send().await.expect(204);
    api.wait_until_expired(CONCERT, &second.token).await;
    is_at(api, &third.token, 1).await;
    api.delete("/v1/queues/show/tokens/me").token(&active_user.token).send().await.expect(204);
    api.wait_until_active(CONCERT, &third).await;
}

async fn payment_frees_the_active_slot(world: TestWorld) {
    world.put_queue(CONCERT, narrow(json!({}))).await;
    world.put_concert(CONCERT, crate::support::world::concert_definition(10, 1_000)).await;
    let api = &world.api;
    let first = api.join_new_user(CONCERT).await;
    let next = api.join_new_user(CONCERT).await;
    api.hold(&next.token, SCHEDULE, &[1]).await.problem(403, "not_admitted");
    api.charge(&first.user, 1_000).await;
    let reservation = api.hold_seats(&first.token, SCHEDULE, &[1]).await;
    api.pay(&first.token, &reservation, &new_key()).await.expect(201);
    api.wait_until_active(CONCERT, &next).await;
    api.hold_seats(&next.token, SCHEDULE, &[2]).await;
}

async fn closed_paused_and_full_queues_refuse(world: TestWorld) {
    world.put_queue(CONCERT, narrow(json!({"max_waiting": 2}))).await;
    let api = &world.api;
    let active_user = api.join_new_user(CONCERT).await;
    let (waits, waits_too) = (api.join_new_user(CONCERT).await, api.join_new_user(CONCERT).await);
    api.join(CONCERT, &new_user()).await.problem(503, "queue_full");
    api.join(CONCERT, &waits.user).await.expect(200);

    // Paused: no promotions, although slots are free.
    world.put_queue(CONCERT, narrow(json!({"mode": "paused"}))).await;
    api.delete("/v1/queues/show/tokens/me").token(&active_user.token).send().await.expect(204);
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    let ticket = api.poll(CONCERT, &waits.token).await.expect(200);
    assert_eq!((&ticket["position"], &ticket["estimated_wait_seconds"]), (&json!(1), &json!(null)));
    assert_eq!(api.get("/v1/queues/show").send().await.expect(200)["mode"], "paused");
    assert_eq!(api.join(CONCERT, &new_user()).await.expect(201)["position"], 3);

    // Closed: places are kept and joins are refused.
    world.put_queue(CONCERT, narrow(json!({"mode": "closed"}))).await;
    api.join(CONCERT, &new_user()).await.problem(403, "queue_closed");
    assert_eq!(api.join(CONCERT, &waits_too.user).await.expect(200)["position"], 2);

    world.put_queue(CONCERT, narrow(json!({}))).await;
    api.wait_until_active(CONCERT, &waits).await;
}

async fn queue_with_an_opening_time_admits_after_it(world: TestWorld) {
    let opens = chrono::Utc::now() + chrono::TimeDelta::milliseconds(1_500);
    world.put_queue(CONCERT, narrow(json!({"opens_at": opens}))).await;
    let api = &world.api;
    let guest = api.join_new_user(CONCERT).await;
    let queue = api.get("/v1/queues/show").send().await.expect(200);
    if chrono::Utc::now() < opens {
        assert_eq!((&queue["mode"], &queue["active"]), (&json!("prequeue"), &json!(0)));
    }
    api.wait_until_active(CONCERT, &guest).await;
    assert!(
        chrono::Utc::now() + chrono::TimeDelta::milliseconds(50) >= opens,
        "no user is admitted before the opening"
    );
    eventually("the mode is reported", || async {
        let queue = api.get("/v1/queues/show").send().await.expect(200);
        (queue["mode"] == "open").then_some(())
    })
    .await;

    // A queue that has already closed.
    let over = chrono::Utc::now() - chrono::TimeDelta::seconds(1);
    world.put_queue("past", json!({"closes_at": over})).await;
    api.join("past", &new_user()).await.problem(403, "queue_closed");
    // Beyond the range of some servers' timestamps.
    world.put_queue("far", json!({"opens_at": "2100-01-01T00:00:00Z"})).await;
    assert_eq!(api.join("far", &new_user()).await.expect(201)["status"], "waiting");
}
