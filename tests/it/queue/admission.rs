//! The line: who is let in, when, how many, and when a place is lost.

use std::collections::BTreeMap;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{Api, NIGHT, SHOW, World, eventually, new_key, new_user, on_one_and_two};

on_one_and_two!(
    the_line_moves_in_order,
    no_more_are_active_than_may_be,
    no_more_are_let_in_an_interval_than_may_be,
    a_no_show_hands_the_slot_on,
    a_slot_lapses_and_its_token_with_it,
    a_hold_keeps_its_holder_active,
    who_leaves_makes_room,
    a_payment_hands_the_slot_on,
    a_closed_a_paused_and_a_full_queue,
    a_queue_that_opens_later,
);

/// One user inside at a time, unless the settings say otherwise.
fn narrow(more: Value) -> Value {
    let mut settings = json!({"promote_per_interval": 1_000, "interval_ms": 100, "max_active": 1});
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

/// Waits until a poll tells a position: it comes from a look that may be a quarter of a second old.
async fn is_at(api: &Api, token: &str, position: usize) {
    eventually("the position is told", || async {
        let ticket = api.poll(SHOW, token).await.expect(200);
        (ticket["position"] == json!(position)).then_some(())
    })
    .await;
}

async fn the_line_moves_in_order(world: World) {
    world.queue(SHOW, narrow(json!({}))).await;
    let api = &world.api;
    let first = api.guest(SHOW).await;
    let mut line = Vec::new();
    for place in 1..=5 {
        let user = new_user();
        let ticket = api.join(SHOW, &user).await.expect(201);
        assert_eq!((&ticket["status"], &ticket["position"]), (&json!("waiting"), &json!(place)));
        assert_eq!((&ticket["waiting"], &ticket["active_until"]), (&json!(place), &json!(null)));
        assert!(
            ticket["poll_after_ms"].as_u64().is_some_and(|ms| (500..=11_000).contains(&ms)),
            "{ticket}"
        );
        line.push(ticket["token"].as_str().unwrap().to_owned());
    }
    let mut inside = first.token;
    for (nth, token) in line.iter().enumerate() {
        for (behind, other) in line[nth..].iter().enumerate() {
            is_at(api, other, behind + 1).await;
        }
        api.delete("/v1/queues/show/tokens/me").token(&inside).send().await.expect(204);
        eventually("the next one is let in", || async {
            let ticket = api.poll(SHOW, token).await.expect(200);
            (ticket["status"] == "active" && ticket["position"].is_null()).then_some(())
        })
        .await;
        inside = token.clone();
    }
}

async fn no_more_are_active_than_may_be(world: World) {
    world.queue(SHOW, narrow(json!({"max_active": 25}))).await;
    let api = &world.api;
    let tickets =
        join_all((0..300).map(async |_| api.join(SHOW, &new_user()).await.expect(201))).await;
    let active = tickets.iter().filter(|ticket| ticket["status"] == "active").count();
    assert!(active <= 25, "{active} were let in at once");
    eventually("the queue fills", || async {
        let queue = api.get("/v1/queues/show").send().await.expect(200);
        assert!(queue["active"].as_u64().unwrap() <= 25, "{queue}");
        let all = queue["waiting"].as_u64().unwrap() + queue["active"].as_u64().unwrap();
        (queue["active"] == 25 && all == 300).then_some(())
    })
    .await;
    // Nobody stands twice and no place is missing, once every instance has seen the last one let in.
    let expected: BTreeMap<_, _> =
        [(None, 25)].into_iter().chain((1..=275).map(|n| (Some(n), 1))).collect();
    eventually("each has a place of their own", || async {
        let polls = tickets.iter().map(async |ticket| {
            api.poll(SHOW, ticket["token"].as_str().unwrap()).await.expect(200)
        });
        let mut positions = BTreeMap::new();
        for ticket in join_all(polls).await {
            *positions.entry(ticket["position"].as_u64()).or_insert(0) += 1;
        }
        (positions == expected).then_some(())
    })
    .await;
    let one_inside = tickets.iter().find(|ticket| ticket["status"] == "active").cloned();

    // Each slot that is given up goes to one, and to one alone.
    let token = one_inside.expect("the first were let in as they came")["token"].clone();
    let leave = api.delete("/v1/queues/show/tokens/me").token(token.as_str().unwrap());
    leave.send().await.expect(204);
    eventually("the slot goes to the next", || async {
        let queue = api.get("/v1/queues/show").send().await.expect(200);
        assert!(queue["active"].as_u64().unwrap() <= 25, "{queue}");
        (queue["waiting"] == 274 && queue["active"] == 25).then_some(())
    })
    .await;
}

async fn no_more_are_let_in_an_interval_than_may_be(world: World) {
    let settings = json!({"promote_per_interval": 10, "interval_ms": 300, "max_active": 10_000});
    world.queue(SHOW, settings).await;
    let api = &world.api;
    join_all((0..60).map(async |_| api.join(SHOW, &new_user()).await.expect(201))).await;
    eventually("everybody is let in", || async {
        let queue = api.get("/v1/queues/show").send().await.expect(200);
        (queue["active"] == 60 && queue["admitted_total"] == 60).then_some(())
    })
    .await;
    world.stores.at_rest().await;
    let promotions: Vec<(i64, i64, u32, i64)> = sqlx::query_as(
        "SELECT from_score, to_score, count, CAST(ROUND(UNIX_TIMESTAMP(promoted_at) * 1000) AS SIGNED) FROM promotions ORDER BY partition_id, n, idx",
    )
    .fetch_all(&world.stores.mysql)
    .await
    .unwrap();
    assert_eq!(promotions.iter().map(|(_, _, count, _)| count).sum::<u32>(), 60);
    for (nth, (from, to, count, at)) in promotions.iter().enumerate() {
        assert_eq!(to - from + 1, i64::from(*count), "a run of places: {promotions:?}");
        if nth > 0 {
            assert_eq!(
                *from,
                promotions[nth - 1].1 + 1,
                "in the order of the line: {promotions:?}"
            );
        }
        // Every window that begins with an admission.
        let window = promotions[nth..].iter().filter(|(.., later)| *later < at + 300);
        assert!(window.map(|(_, _, count, _)| count).sum::<u32>() <= 10, "{promotions:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_promoters_let_in_no_more_than_one() {
    no_more_are_let_in_an_interval_than_may_be(World::start(10).await).await;
}

async fn a_no_show_hands_the_slot_on(world: World) {
    world.queue(SHOW, narrow(json!({"claim_seconds": 1, "active_seconds": 600}))).await;
    let api = &world.api;
    let first = api.guest(SHOW).await;
    let absent = api.guest(SHOW).await;
    let next = api.guest(SHOW).await;
    api.delete("/v1/queues/show/tokens/me").token(&first.token).send().await.expect(204);
    // The second is let in, never shows up, and after a second the third has the slot.
    let ticket = api.until_active(SHOW, &next).await;
    api.until_expired(SHOW, &absent.token).await;
    let until: chrono::DateTime<chrono::Utc> =
        ticket["active_until"].as_str().unwrap().parse().unwrap();
    assert!(
        until > chrono::Utc::now() + chrono::TimeDelta::seconds(500),
        "who shows up has the slot for long"
    );
    // The place is lost, so the next ask is a new one, at the end.
    let again = api.join(SHOW, &absent.user).await.expect(201);
    assert_ne!(again["token"], absent.token);
}

async fn a_slot_lapses_and_its_token_with_it(world: World) {
    world.queue(SHOW, narrow(json!({"active_seconds": 1}))).await;
    let api = &world.api;
    let first = api.guest(SHOW).await;
    let next = api.guest(SHOW).await;
    assert_eq!(api.poll(SHOW, &first.token).await.expect(200)["status"], "active");
    api.until_expired(SHOW, &first.token).await;
    api.delete("/v1/queues/show/tokens/me")
        .token(&first.token)
        .send()
        .await
        .problem(410, "queue_token_expired");
    api.until_active(SHOW, &next).await;
}

async fn a_hold_keeps_its_holder_active(world: World) {
    world.queue(SHOW, narrow(json!({"active_seconds": 1}))).await;
    world.concert(SHOW, crate::support::world::show(10, 1_000)).await;
    let api = &world.api;
    let guest = api.guest(SHOW).await;
    let held = api.hold(&guest.token, NIGHT, &[1]).await.expect(201);
    let ticket = api.poll(SHOW, &guest.token).await.expect(200);
    assert_eq!(ticket["active_until"], held["held_until"]);
    // A second is long over, and the seats can still be looked at; once the hold is given back the slot is over too.
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    assert_eq!(api.seats(&guest.token, NIGHT).await[0], "held");
    let path = format!("/v1/reservations/{}", held["id"].as_str().unwrap());
    api.delete(&path).token(&guest.token).send().await.expect(204);
    api.poll(SHOW, &guest.token).await.problem(410, "queue_token_expired");
}

async fn who_leaves_makes_room(world: World) {
    world.queue(SHOW, narrow(json!({}))).await;
    let api = &world.api;
    let inside = api.guest(SHOW).await;
    let (second, third) = (api.guest(SHOW).await, api.guest(SHOW).await);
    assert_eq!(api.poll(SHOW, &third.token).await.expect(200)["position"], 2);
    api.delete("/v1/queues/show/tokens/me").token(&second.token).send().await.expect(204);
    api.until_expired(SHOW, &second.token).await;
    is_at(api, &third.token, 1).await;
    api.delete("/v1/queues/show/tokens/me").token(&inside.token).send().await.expect(204);
    api.until_active(SHOW, &third).await;
}

async fn a_payment_hands_the_slot_on(world: World) {
    world.queue(SHOW, narrow(json!({}))).await;
    world.concert(SHOW, crate::support::world::show(10, 1_000)).await;
    let api = &world.api;
    let first = api.guest(SHOW).await;
    let next = api.guest(SHOW).await;
    api.hold(&next.token, NIGHT, &[1]).await.problem(403, "not_admitted");
    api.charge(&first.user, 1_000).await;
    let reservation = api.held(&first.token, NIGHT, &[1]).await;
    api.pay(&first.token, &reservation, &new_key()).await.expect(201);
    api.until_active(SHOW, &next).await;
    api.held(&next.token, NIGHT, &[2]).await;
}

async fn a_closed_a_paused_and_a_full_queue(world: World) {
    world.queue(SHOW, narrow(json!({"max_waiting": 2}))).await;
    let api = &world.api;
    let inside = api.guest(SHOW).await;
    let (waits, waits_too) = (api.guest(SHOW).await, api.guest(SHOW).await);
    api.join(SHOW, &new_user()).await.problem(503, "queue_full");
    api.join(SHOW, &waits.user).await.expect(200);

    // Paused: nobody is let in, though there is room.
    world.queue(SHOW, narrow(json!({"mode": "paused"}))).await;
    api.delete("/v1/queues/show/tokens/me").token(&inside.token).send().await.expect(204);
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    let ticket = api.poll(SHOW, &waits.token).await.expect(200);
    assert_eq!((&ticket["position"], &ticket["estimated_wait_seconds"]), (&json!(1), &json!(null)));
    assert_eq!(api.get("/v1/queues/show").send().await.expect(200)["mode"], "paused");
    assert_eq!(api.join(SHOW, &new_user()).await.expect(201)["position"], 3);

    // Closed: places are kept, nobody comes in.
    world.queue(SHOW, narrow(json!({"mode": "closed"}))).await;
    api.join(SHOW, &new_user()).await.problem(403, "queue_closed");
    assert_eq!(api.join(SHOW, &waits_too.user).await.expect(200)["position"], 2);

    world.queue(SHOW, narrow(json!({}))).await;
    api.until_active(SHOW, &waits).await;
}

async fn a_queue_that_opens_later(world: World) {
    let opens = chrono::Utc::now() + chrono::TimeDelta::milliseconds(1_500);
    world.queue(SHOW, narrow(json!({"opens_at": opens}))).await;
    let api = &world.api;
    let guest = api.guest(SHOW).await;
    let queue = api.get("/v1/queues/show").send().await.expect(200);
    if chrono::Utc::now() < opens {
        assert_eq!((&queue["mode"], &queue["active"]), (&json!("prequeue"), &json!(0)));
    }
    api.until_active(SHOW, &guest).await;
    assert!(
        chrono::Utc::now() + chrono::TimeDelta::milliseconds(50) >= opens,
        "nobody is let in before"
    );
    eventually("the mode is told", || async {
        let queue = api.get("/v1/queues/show").send().await.expect(200);
        (queue["mode"] == "open").then_some(())
    })
    .await;

    // And one that is over.
    let over = chrono::Utc::now() - chrono::TimeDelta::seconds(1);
    world.queue("past", json!({"closes_at": over})).await;
    api.join("past", &new_user()).await.problem(403, "queue_closed");
    // Far ahead, farther than some servers' timestamps reach.
    world.queue("far", json!({"opens_at": "2100-01-01T00:00:00Z"})).await;
    assert_eq!(api.join("far", &new_user()).await.expect(201)["status"], "waiting");
}
