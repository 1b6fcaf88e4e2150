//! Seats: all or none, held for a while, given back, limited.

use futures::future::join_all;
use serde_json::json;

use crate::support::world::{fast_queue, night, show};
use crate::support::{NIGHT, SHOW, World, eventually, new_key, on_one_and_two};

on_one_and_two!(
    all_seats_or_none,
    crossing_wishes_never_share_a_seat,
    a_hold_lapses_at_its_moment,
    a_released_seat_is_free_at_once,
    the_limit_counts_what_is_held_and_what_is_bought,
    booking_has_its_hours,
    a_hall_of_ten_thousand,
    many_seats_in_one_request,
);

async fn all_seats_or_none(world: World) {
    world.show(10, 1_000).await;
    let api = &world.api;
    let (first, second) = (api.active_guest(SHOW).await, api.active_guest(SHOW).await);
    api.held(&first.token, NIGHT, &[3, 5]).await;
    let refused = api.hold(&second.token, NIGHT, &[2, 3, 4, 5]).await.problem(409, "seat_taken");
    assert_eq!(refused["seats"], json!([3, 5]));
    assert_eq!(api.seats(&first.token, NIGHT).await.iter().filter(|it| *it == "held").count(), 2);
    api.held(&second.token, NIGHT, &[2, 4]).await;

    let query = |status: &str| format!("/v1/schedules/{NIGHT}/seats?status={status}");
    let held = api.get(&query("held")).token(&first.token).send().await.expect(200);
    let numbers: Vec<_> =
        held["items"].as_array().unwrap().iter().map(|seat| seat["number"].clone()).collect();
    assert_eq!(json!(numbers), json!([2, 3, 4, 5]));
    let free = api.get(&query("available")).token(&first.token).send().await.expect(200);
    assert_eq!(free["items"].as_array().unwrap().len(), 6);
}

async fn crossing_wishes_never_share_a_seat(world: World) {
    world.show(40, 1_000).await;
    let api = &world.api;
    let guests = join_all((0..60).map(|_| api.active_guest(SHOW))).await;
    // Each wants three neighbours, in one order or the other.
    let wishes = guests.iter().enumerate().map(async |(nth, guest)| {
        let from = u32::try_from(nth * 7 % 38).unwrap() + 1;
        let mut seats = vec![from, from + 1, from + 2];
        if nth % 2 == 0 {
            seats.reverse();
        }
        (seats.clone(), api.hold(&guest.token, NIGHT, &seats).await)
    });
    let mut owned = std::collections::BTreeSet::new();
    for (seats, answer) in join_all(wishes).await {
        if answer.status == 201 {
            for seat in seats {
                assert!(owned.insert(seat), "seat {seat} was given twice");
            }
        } else {
            answer.problem(409, "seat_taken");
        }
    }
    assert!(owned.len() >= 3);
    let map = api.seats(&guests[0].token, NIGHT).await;
    let held: Vec<u32> = (1..=40).filter(|n| map[*n as usize - 1] == "held").collect();
    assert_eq!(held, owned.into_iter().collect::<Vec<_>>(), "a refused wish holds nothing");
}

async fn a_hold_lapses_at_its_moment(world: World) {
    world.queue(SHOW, fast_queue()).await;
    world
        .concert(
            SHOW,
            json!({"title": "brief", "hold_seconds": 1, "schedules": [night(10, 1_000)]}),
        )
        .await;
    let api = &world.api;
    let (first, second) = (api.active_guest(SHOW).await, api.active_guest(SHOW).await);
    api.charge(&first.user, 1_000).await;
    let reservation = api.held(&first.token, NIGHT, &[1]).await;
    api.hold(&second.token, NIGHT, &[1]).await.problem(409, "seat_taken");
    let second_hold = eventually("the seat is anybody's", || async {
        let answer = api.hold(&second.token, NIGHT, &[1]).await;
        (answer.status == 201).then_some(answer.body)
    })
    .await;
    let path = format!("/v1/reservations/{reservation}");
    let lapsed = api.get(&path).user(&first.user).send().await.expect(200);
    assert_eq!(lapsed["status"], "expired");
    assert!(
        second_hold["created_at"].as_str() >= lapsed["held_until"].as_str(),
        "not a moment before"
    );
    api.pay(&first.token, &reservation, &new_key()).await.problem(410, "hold_expired");
    api.delete(&path).user(&first.user).send().await.expect(204);
    assert_eq!(api.balance(&first.user).await, 1_000);
    assert_eq!(
        api.seats(&second.token, NIGHT).await[0],
        "held",
        "what had lapsed took nothing along"
    );

    // The sweep tells MySQL, once.
    eventually("the rows of both lapsed holds", || async {
        (world.stores.count("SELECT COUNT(*) FROM reservations WHERE status = 'expired'").await
            == 2)
            .then_some(())
    })
    .await;
    world.stores.audit().await;
}

async fn a_released_seat_is_free_at_once(world: World) {
    world.show(10, 1_000).await;
    let api = &world.api;
    let (first, second) = (api.active_guest(SHOW).await, api.active_guest(SHOW).await);
    let path = format!("/v1/reservations/{}", api.held(&first.token, NIGHT, &[1, 2]).await);
    api.delete(&path).token(&second.token).send().await.problem(404, "not_found");
    api.delete(&path).token(&first.token).send().await.expect(204);
    api.held(&second.token, NIGHT, &[1, 2]).await;
    // Once more changes nothing for the one who has the seats now.
    api.delete(&path).user(&first.user).send().await.expect(204);
    assert_eq!(api.seats(&second.token, NIGHT).await[..2], ["held", "held"]);
    assert_eq!(api.get(&path).user(&first.user).send().await.expect(200)["status"], "released");
    let facts = world.stores.audit().await;
    assert_eq!(facts.reservations.len(), 1);
}

async fn the_limit_counts_what_is_held_and_what_is_bought(world: World) {
    world.show(10, 1_000).await;
    let api = &world.api;
    let guest = api.active_guest(SHOW).await;
    api.charge(&guest.user, 2_000).await;
    let bought = api.held(&guest.token, NIGHT, &[1, 2]).await;
    let held = api.held(&guest.token, NIGHT, &[3]).await;
    api.hold(&guest.token, NIGHT, &[4, 5]).await.problem(422, "seat_limit_exceeded");
    api.pay(&guest.token, &bought, &new_key()).await.expect(201);

    // Back in line: two bought and one held are three.
    let ticket = api.join(SHOW, &guest.user).await.expect(201);
    let token = ticket["token"].as_str().unwrap();
    api.hold(token, NIGHT, &[4, 5]).await.problem(422, "seat_limit_exceeded");
    api.held(token, NIGHT, &[4]).await;
    api.delete(&format!("/v1/reservations/{held}")).user(&guest.user).send().await.expect(204);
    api.held(token, NIGHT, &[5]).await;
    api.hold(token, NIGHT, &[6]).await.problem(422, "seat_limit_exceeded");

    // In parallel no more than the limit either.
    let other = api.active_guest(SHOW).await;
    let seats: Vec<u32> = (6..=10).collect();
    let holds =
        join_all(seats.iter().map(async |seat| api.hold(&other.token, NIGHT, &[*seat]).await))
            .await;
    assert_eq!(holds.iter().filter(|answer| answer.status == 201).count(), 4);
}

async fn booking_has_its_hours(world: World) {
    world.queue(SHOW, fast_queue()).await;
    let mut early = night(10, 1_000);
    early["booking_opens_at"] = json!(chrono::Utc::now() + chrono::TimeDelta::milliseconds(900));
    let mut late = night(10, 1_000);
    late["id"] = json!("late");
    late["booking_closes_at"] = json!(chrono::Utc::now() - chrono::TimeDelta::seconds(1));
    world.concert(SHOW, json!({"title": "hours", "schedules": [early, late]})).await;
    let api = &world.api;
    let guest = api.active_guest(SHOW).await;
    api.hold(&guest.token, "late", &[1]).await.problem(403, "booking_not_open");
    let refused = api.hold(&guest.token, NIGHT, &[1]).await;
    if chrono::Utc::now() < early_opening(&world).await {
        refused.problem(403, "booking_not_open");
    }
    eventually("booking opens", || async {
        (api.hold(&guest.token, NIGHT, &[1]).await.status == 201).then_some(())
    })
    .await;
}

async fn early_opening(world: &World) -> chrono::DateTime<chrono::Utc> {
    let guest = world.api.active_guest(SHOW).await;
    let dates =
        world.api.get("/v1/concerts/show/schedules").token(&guest.token).send().await.expect(200);
    let items = dates["items"].as_array().unwrap();
    let date = items.iter().find(|date| date["id"] == NIGHT).unwrap();
    date["booking_opens_at"].as_str().unwrap().parse().unwrap()
}

async fn a_hall_of_ten_thousand(world: World) {
    world.show(10_000, 1_000).await;
    let api = &world.api;
    let guest = api.active_guest(SHOW).await;
    api.held(&guest.token, NIGHT, &[1, 1_000, 1_001, 10_000]).await;
    let seats = api.seats(&guest.token, NIGHT).await;
    assert_eq!(seats.len(), 10_000);
    let held: Vec<usize> = (1..=10_000).filter(|n| seats[n - 1] == "held").collect();
    assert_eq!(held, [1, 1_000, 1_001, 10_000]);
    let dates = api.get("/v1/concerts/show/schedules").token(&guest.token).send().await.expect(200);
    assert_eq!(dates["items"][0]["available_seats"], 9_996);
}

async fn many_seats_in_one_request(world: World) {
    world.queue(SHOW, fast_queue()).await;
    let mut definition = show(400, 1_000);
    definition["max_seats_per_user"] = json!(100);
    world.concert(SHOW, definition).await;
    let api = &world.api;
    let guest = api.active_guest(SHOW).await;
    let seats: Vec<u32> = (1..=300).collect();
    api.hold(&guest.token, NIGHT, &seats).await.problem(422, "seat_limit_exceeded");
    let reservation = api.held(&guest.token, NIGHT, &seats[..100]).await;
    api.charge(&guest.user, 100_000).await;
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    assert_eq!(world.stores.audit().await.sold.len(), 100);
}
