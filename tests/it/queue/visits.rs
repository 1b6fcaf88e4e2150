//! Visits: when they end, what extends them, and what tickets report about the queue.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::support::world::concert_definition;
use crate::support::{ApiClient, CONCERT, SCHEDULE, TestWorld, eventually, on_one_and_two};

on_one_and_two!(
    hold_gives_no_right_to_further_holds,
    use_extends_a_sliding_visit_and_polls_do_not,
    visit_has_a_maximum_length,
    ticket_reports_mode_opening_and_message,
);

/// One active user at a time, unless the settings say otherwise.
fn narrow(more: Value) -> Value {
    let mut settings = json!({"promote_per_interval": 1_000, "interval_ms": 100, "max_active": 1});
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

async fn active_until(api: &ApiClient, token: &str) -> DateTime<Utc> {
    let ticket = api.poll(CONCERT, token).await.expect(200);
    ticket["active_until"].as_str().expect("the user is active").parse().unwrap()
}

async fn hold_gives_no_right_to_further_holds(world: TestWorld) {
    world.put_queue(CONCERT, narrow(json!({"active_seconds": 1}))).await;
    world.put_concert(CONCERT, concert_definition(10, 1_000)).await;
    let api = &world.api;
    let guest = api.join_new_user(CONCERT).await;
    let held = api.hold(&guest.token, SCHEDULE, &[1]).await.expect(201);
    // The seat is held already, until the visit is over.
    eventually("the visit is over", || async {
        let again = api.hold(&guest.token, SCHEDULE, &[1]).await;
        match again.status {
            409 => again.problem(409, "seat_taken"),
            _ => return Some(again.problem(403, "visit_over")),
        };
        None
    })
    .await;
    let best = json!({"schedule_id": SCHEDULE, "quantity": 1});
    let best = api.post("/v1/reservations/best").token(&guest.token).json(&best);
    best.send().await.problem(403, "visit_over");
    // The hold keeps its user active, and can be paid.
    assert_eq!(api.poll(CONCERT, &guest.token).await.expect(200)["status"], "active");
    api.charge(&guest.user, 1_000).await;
    let reservation = held["id"].as_str().unwrap();
    api.pay(&guest.token, reservation, &crate::support::new_key()).await.expect(201);
}

async fn use_extends_a_sliding_visit_and_polls_do_not(world: TestWorld) {
    for (visit, is_extended) in [("sliding", true), ("fixed", false)] {
        let settings = narrow(json!({"active_seconds": 600, "visit": visit, "max_active": 10}));
        world.put_queue(CONCERT, settings).await;
        let api = &world.api;
        let guest = api.join_new_user(CONCERT).await;
        let before = active_until(api, &guest.token).await;
        eventually("a tenth of a second has passed", || async {
            (Utc::now() + TimeDelta::milliseconds(599_900) > before).then_some(())
        })
        .await;
        assert_eq!(active_until(api, &guest.token).await, before, "a poll is no use");
        api.get("/v1/queues/show/check").token(&guest.token).send().await.expect_text(204);
        let after = active_until(api, &guest.token).await;
        assert_eq!(after > before, is_extended, "{visit}: {before}, then {after}");
        api.delete("/v1/queues/show/tokens/me").token(&guest.token).send().await.expect(204);
    }
}

async fn visit_has_a_maximum_length(world: TestWorld) {
    let settings = json!({"active_seconds": 600, "visit": "sliding", "visit_limit_seconds": 60});
    world.put_queue(CONCERT, narrow(settings)).await;
    let api = &world.api;
    let guest = api.join_new_user(CONCERT).await;
    let before = active_until(api, &guest.token).await;
    assert!(before <= Utc::now() + TimeDelta::seconds(61), "{before}");
    api.get("/v1/queues/show/check").token(&guest.token).send().await.expect_text(204);
    assert_eq!(active_until(api, &guest.token).await, before);
}

async fn ticket_reports_mode_opening_and_message(world: TestWorld) {
    let message = json!({"ko": "곧 시작합니다", "en": "We start soon"});
    let opens_at = "2100-01-01T00:00:00.000Z";
    let settings = narrow(json!({"message": message, "opens_at": opens_at}));
    world.put_queue(CONCERT, settings).await;
    let api = &world.api;
    let guest = api.join_new_user(CONCERT).await;
    let poll = async |language: &str| {
        let call = api.get("/v1/queues/show/tokens/me").token(&guest.token);
        call.header("accept-language", language).send().await.expect(200)
    };
    let ticket = poll("ko-KR,ko;q=0.9,en;q=0.8").await;
    assert_eq!(
        (&ticket["mode"], &ticket["opens_at"], &ticket["message"]),
        (&json!("prequeue"), &json!(opens_at), &json!("곧 시작합니다"))
    );
    assert!(ticket["score"].is_u64(), "{ticket}");
    assert_eq!(poll("fr;q=0.5, en").await["message"], "We start soon");
    let state = api.get("/v1/queues/show").header("accept-language", "ko").send().await;
    assert_eq!(state.expect(200)["message"], "곧 시작합니다");

    // A user who waits when the queue closes keeps the place.
    world.put_queue(CONCERT, narrow(json!({"mode": "closed", "message": "Closed."}))).await;
    for at in 0..api.instances() {
        let api = api.for_instance(at);
        eventually("the ticket reports the new settings", || async {
            let ticket = api.poll(CONCERT, &guest.token).await.expect(200);
            assert_eq!(ticket["status"], "waiting");
            (ticket["mode"] == "closed" && ticket["message"] == "Closed.").then_some(())
        })
        .await;
    }
}
