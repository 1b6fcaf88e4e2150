//! Holds: all seats or none, expiry, release and limits.

use futures::future::join_all;
use serde_json::json;

use crate::support::world::{concert_definition, fast_queue_settings, schedule_definition};
use crate::support::{CONCERT, SCHEDULE, TestWorld, eventually, new_key, on_one_and_two};

on_one_and_two!(
    hold_takes_all_seats_or_none,
    overlapping_holds_never_share_a_seat,
    hold_expires_on_time,
    released_seat_is_free_immediately,
    seat_limit_counts_held_and_bought_seats,
    booking_is_refused_outside_its_hours,
    schedule_of_ten_thousand_seats,
    one_hold_of_many_seats,
);

async fn hold_takes_all_seats_or_none(world: TestWorld) {
    world.put_show(10, 1_000).await;
    let api = &world.api;
    let (first, second) = (api.active_user(CONCERT).await, api.active_user(CONCERT).await);
    api.hold_seats(&first.token, SCHEDULE, &[3, 5]).await;
    let refused = api.hold(&second.token, SCHEDULE, &[2, 3, 4, 5]).await.problem(409, "seat_taken");
    assert_eq!(refused["seats"], json!([3, 5]));
    assert_eq!(
        api.seats(&first.token, SCHEDULE).await.iter().filter(|it| *it == "held").count(),
        2
    );
    api.hold_seats(&second.token, SCHEDULE, &[2, 4]).await;

    let query = |status: &str| format!("/v1/schedules/{SCHEDULE}/seats?status={status}");
    let held = api.get(&query("held")).token(&first.token).send().await.expect(200);
    let numbers: Vec<_> =
        held["items"].as_array().unwrap().iter().map(|seat| seat["number"].clone()).collect();
    assert_eq!(json!(numbers), json!([2, 3, 4, 5]));
    let free = api.get(&query("available")).token(&first.token).send().await.expect(200);
    assert_eq!(free["items"].as_array().unwrap().len(), 6);
}

async fn overlapping_holds_never_share_a_seat(world: TestWorld) {
    world.put_show(40, 1_000).await;
    let api = &world.api;
    let guests = join_all((0..60).map(|_| api.active_user(CONCERT))).await;
    // Each request wants three adjacent seats, in either order.
    let wishes = guests.iter().enumerate().map(async |(nth, guest)| {
        let from = u32::try_from(nth * 7 % 38).unwrap() + 1;
        let mut seats = vec![from, from + 1, from + 2];
        if nth % 2 == 0 {
            seats.reverse();
        }
        (seats.clone(), api.hold(&guest.token, SCHEDULE, &seats).await)
    });
    let mut owned = std::collections::BTreeSet::new();
    for (seats, answer) in join_all(wishes).await {
        if answer.status == 201 {
            for seat in seats {
                assert!(owned.insert(seat), "seat {seat} was assigned twice");
            }
        } else {
            answer.problem(409, "seat_taken");
        }
    }
    assert!(owned.len() >= 3);
    let map = api.seats(&guests[0].token, SCHEDULE).await;
    let held: Vec<u32> = (1..=40).filter(|n| map[*n as usize - 1] == "held").collect();
    assert_eq!(held, owned.into_iter().collect::<Vec<_>>(), "a refused request holds no seat");
}

async fn hold_expires_on_time(world: TestWorld) {
    world.put_queue(CONCERT, fast_queue_settings()).await;
    world
        .put_concert(
            CONCERT,
            json!({"title": "brief", "hold_seconds": 1, "schedules": [schedule_definition(10,
                1_000)]}),
        )
        .await;
    let api = &world.api;
    let (first, second) = (api.active_user(CONCERT).await, api.active_user(CONCERT).await);
    api.charge(&first.user, 1_000).await;
    let reservation = api.hold_seats(&first.token, SCHEDULE, &[1]).await;
    api.hold(&second.token, SCHEDULE, &[1]).await.problem(409, "seat_taken");
    let second_hold = eventually("the seat is free", || async {
        let answer = api.hold(&second.token, SCHEDULE, &[1]).await;
        (answer.status == 201).then_some(answer.body)
    })
    .await;
    let path = format!("/v1/reservations/{reservation}");
    let lapsed = api.get(&path).user(&first.user).send().await.expect(200);
    assert_eq!(lapsed["status"], "expired");
    assert!(
        second_hold["created_at"].as_str() >= lapsed["held_until"].as_str(),
        "the hold lasted until its end"
    );
    api.pay(&first.token, &reservation, &new_key()).await.problem(410, "hold_expired");
    api.delete(&path).user(&first.user).send().await.expect(204);
    assert_eq!(api.balance(&first.user).await, 1_000);
    assert_eq!(
        api.seats(&second.token, SCHEDULE).await[0],
        "held",
        "the expired hold did not change the new one"
    );

    // The sweep writes each expired hold to MySQL once.
    eventually("the rows of both expired holds", || async {
        (world.stores.count("SELECT COUNT(*) FROM reservations WHERE status = 'expired'").await
            == 2)
            .then_some(())
    })
    .await;
    world.stores.audit().await;
}

async fn released_seat_is_free_immediately(world: TestWorld) {
    world.put_show(10, 1_000).await;
    let api = &world.api;
    let (first, second) = (api.active_user(CONCERT).await, api.active_user(CONCERT).await);
    let path =
        format!("/v1/reservations/{}", api.hold_seats(&first.token, SCHEDULE, &[1, 2]).await);
    api.delete(&path).token(&second.token).send().await.problem(404, "not_found");
    api.delete(&path).token(&first.token).send().await.expect(204);
    api.hold_seats(&second.token, SCHEDULE, &[1, 2]).await;
    // A second release changes nothing for the new holder.
    api.delete(&path).user(&first.user).send().await.expect(204);
    assert_eq!(api.seats(&second.token, SCHEDULE).await[..2], ["held", "held"]);
    assert_eq!(api.get(&path).user(&first.user).send().await.expect(200)["status"], "released");
    let facts = world.stores.audit().await;
    assert_eq!(facts.reservations.len(), 1);
}

async fn seat_limit_counts_held_and_bought_seats(world: TestWorld) {
    world.put_show(10, 1_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 2_000).await;
    let bought = api.hold_seats(&guest.token, SCHEDULE, &[1, 2]).await;
    let held = api.hold_seats(&guest.token, SCHEDULE, &[3]).await;
    api.hold(&guest.token, SCHEDULE, &[4, 5]).await.problem(422, "seat_limit_exceeded");
    api.pay(&guest.token, &bought, &new_key()).await.expect(201);

    // After joining again: two bought and one held are three.
    let ticket = api.join(CONCERT, &guest.user).await.expect(201);
    let token = ticket["token"].as_str().unwrap();
    api.hold(token, SCHEDULE, &[4, 5]).await.problem(422, "seat_limit_exceeded");
    api.hold_seats(token, SCHEDULE, &[4]).await;
    api.delete(&format!("/v1/reservations/{held}")).user(&guest.user).send().await.expect(204);
    api.hold_seats(token, SCHEDULE, &[5]).await;
    api.hold(token, SCHEDULE, &[6]).await.problem(422, "seat_limit_exceeded");

    // Concurrent requests do not exceed the limit either.
    let other = api.active_user(CONCERT).await;
    let seats: Vec<u32> = (6..=10).collect();
    let holds =
        join_all(seats.iter().map(async |seat| api.hold(&other.token, SCHEDULE, &[*seat]).await))
            .await;
    assert_eq!(holds.iter().filter(|answer| answer.status == 201).count(), 4);
}

async fn booking_is_refused_outside_its_hours(world: TestWorld) {
    world.put_queue(CONCERT, fast_queue_settings()).await;
    let mut early = schedule_definition(10, 1_000);
    early["booking_opens_at"] = json!(chrono::Utc::now() + chrono::TimeDelta::milliseconds(900));
    let mut late = schedule_definition(10, 1_000);
    late["id"] = json!("late");
    late["booking_closes_at"] = json!(chrono::Utc::now() - chrono::TimeDelta::seconds(1));
    world.put_concert(CONCERT, json!({"title": "hours", "schedules": [early, late]})).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.hold(&guest.token, "late", &[1]).await.problem(403, "booking_not_open");
    let refused = api.hold(&guest.token, SCHEDULE, &[1]).await;
    if chrono::Utc::now() < early_opening(&world).await {
        refused.problem(403, "booking_not_open");
    }
    eventually("booking opens", || async {
        (api.hold(&guest.token, SCHEDULE, &[1]).await.status == 201).then_some(())
    })
    .await;
}

async fn early_opening(world: &TestWorld) -> chrono::DateTime<chrono::Utc> {
    let guest = world.api.active_user(CONCERT).await;
    let dates =
        world.api.get("/v1/concerts/show/schedules").token(&guest.token).send().await.expect(200);
    let items = dates["items"].as_array().unwrap();
    let date = items.iter().find(|date| date["id"] == SCHEDULE).unwrap();
    date["booking_opens_at"].as_str().unwrap().parse().unwrap()
}

async fn schedule_of_ten_thousand_seats(world: TestWorld) {
    world.put_show(10_000, 1_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.hold_seats(&guest.token, SCHEDULE, &[1, 1_000, 1_001, 10_000]).await;
    let seats = api.seats(&guest.token, SCHEDULE).await;
    assert_eq!(seats.len(), 10_000);
    let held: Vec<usize> = (1..=10_000).filter(|n| seats[n - 1] == "held").collect();
    assert_eq!(held, [1, 1_000, 1_001, 10_000]);
    let dates = api.get("/v1/concerts/show/schedules").token(&guest.token).send().await.expect(200);
    assert_eq!(dates["items"][0]["available_seats"], 9_996);
}

async fn one_hold_of_many_seats(world: TestWorld) {
    world.put_queue(CONCERT, fast_queue_settings()).await;
    let mut definition = concert_definition(400, 1_000);
    definition["max_seats_per_user"] = json!(100);
    world.put_concert(CONCERT, definition).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    let seats: Vec<u32> = (1..=300).collect();
    api.hold(&guest.token, SCHEDULE, &seats).await.problem(422, "seat_limit_exceeded");
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &seats[..100]).await;
    api.charge(&guest.user, 100_000).await;
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    assert_eq!(world.stores.audit().await.sold.len(), 100);
}
