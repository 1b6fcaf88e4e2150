//! The best adjacent seats.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::world::fast_queue;
use crate::support::{Answer, Api, NIGHT, SHOW, World, on_one_and_two};

on_one_and_two!(
    the_best_seats_are_the_lowest_that_leave_nobody_alone,
    sections_are_searched_in_the_operators_order,
    an_unsound_wish_changes_nothing,
    a_crowd_that_wants_the_best_gets_every_seat_once,
    a_large_hall_is_searched_to_its_end,
    a_crowd_in_a_large_hall_gets_every_seat_once,
);

async fn best(api: &Api, token: &str, body: &Value) -> Answer {
    api.post("/v1/reservations/best").token(token).json(body).send().await
}

fn numbers(reservation: &Value) -> Vec<u64> {
    let seats = reservation["seats"].as_array().unwrap();
    seats.iter().map(|seat| seat["number"].as_u64().unwrap()).collect()
}

fn pair() -> Value {
    json!({"schedule_id": NIGHT, "quantity": 2})
}

/// A hall of sections, given as name, first and last number, and price.
async fn hall(world: &World, sections: &[(&str, u32, u32, i64)]) {
    let sections: Vec<_> = sections
        .iter()
        .map(
            |(name, from, to, price)| json!({"name": name, "from": from, "to": to, "price": price}),
        )
        .collect();
    let night = json!({"id": NIGHT, "starts_at": "2100-01-01T19:00:00.000Z", "sections": sections});
    world.queue(SHOW, fast_queue()).await;
    world
        .concert(SHOW, json!({"title": "The show", "max_seats_per_user": 20, "schedules": [night]}))
        .await;
}

async fn the_best_seats_are_the_lowest_that_leave_nobody_alone(world: World) {
    hall(&world, &[("A", 1, 12, 3_000)]).await;
    let api = &world.api;
    let guest = api.active_guest(SHOW).await;
    // Free: 1–3 (a pair leaves one alone), 5–9, 11–12.
    api.held(&guest.token, NIGHT, &[4, 10]).await;
    let first = best(api, &guest.token, &pair()).await.expect(201);
    assert_eq!(numbers(&first), [5, 6]);
    assert_eq!((first["amount"].as_i64(), first["status"].as_str()), (Some(6_000), Some("held")));
    assert_eq!(first["seats"][0], json!({"number": 5, "section": "A", "price": 3_000}));
    let path = format!("/v1/reservations/{}", first["id"].as_str().unwrap());
    let read = api.get(&path).user(&guest.user).send().await.expect(200);
    assert_eq!(read, first, "the script and the answer tell the same seats");
    // Now 7–9 would leave one alone as well, 11–12 none.
    assert_eq!(numbers(&best(api, &guest.token, &pair()).await.expect(201)), [11, 12]);
    // Where it can't be avoided, the lowest.
    assert_eq!(numbers(&best(api, &guest.token, &pair()).await.expect(201)), [1, 2]);
    assert_eq!(numbers(&best(api, &guest.token, &pair()).await.expect(201)), [7, 8]);
    // Two seats are left, but not side by side.
    best(api, &guest.token, &pair()).await.problem(409, "not_enough_seats");
    assert_eq!(
        numbers(
            &best(api, &guest.token, &json!({"schedule_id": NIGHT, "quantity": 1}))
                .await
                .expect(201)
        ),
        [3]
    );
}

async fn sections_are_searched_in_the_operators_order(world: World) {
    hall(&world, &[("Front", 7, 12, 9_000), ("Back", 1, 6, 4_000)]).await;
    let api = &world.api;
    let guest = api.active_guest(SHOW).await;
    let four = |section: Option<&str>| match section {
        Some(name) => json!({"schedule_id": NIGHT, "quantity": 4, "section": name}),
        None => json!({"schedule_id": NIGHT, "quantity": 4}),
    };
    let first = best(api, &guest.token, &four(None)).await.expect(201);
    assert_eq!((numbers(&first), first["amount"].as_i64()), (vec![7, 8, 9, 10], Some(36_000)));
    // 11–12 and 1–… are not side by side: they are of two sections.
    let second = best(api, &guest.token, &four(None)).await.expect(201);
    assert_eq!((numbers(&second), second["amount"].as_i64()), (vec![1, 2, 3, 4], Some(16_000)));
    best(api, &guest.token, &four(Some("Front"))).await.problem(409, "not_enough_seats");
    let front = json!({"schedule_id": NIGHT, "quantity": 2, "section": "Front"});
    assert_eq!(numbers(&best(api, &guest.token, &front).await.expect(201)), [11, 12]);
}

async fn an_unsound_wish_changes_nothing(world: World) {
    hall(&world, &[("A", 1, 50, 3_000)]).await;
    let api = &world.api;
    let guest = api.active_guest(SHOW).await;
    for wish in [
        json!({"schedule_id": NIGHT, "quantity": 0}),
        json!({"schedule_id": NIGHT, "quantity": -1}),
        json!({"schedule_id": NIGHT, "quantity": 1.5}),
        json!({"schedule_id": NIGHT, "quantity": "2"}),
        json!({"schedule_id": NIGHT, "quantity": 5_000_000_000_u64}),
        json!({"schedule_id": NIGHT}),
        json!({"schedule_id": NIGHT, "quantity": 2, "section": "Z"}),
        json!({"schedule_id": NIGHT, "quantity": 2, "row": 1}),
    ] {
        best(api, &guest.token, &wish).await.problem(422, "invalid_request");
    }
    let many = json!({"schedule_id": NIGHT, "quantity": 21});
    best(api, &guest.token, &many).await.problem(422, "seat_limit_exceeded");
    best(api, &guest.token, &json!({"schedule_id": "none", "quantity": 1}))
        .await
        .problem(404, "not_found");
    assert!(api.seats(&guest.token, NIGHT).await.iter().all(|status| status == "available"));
    best(api, "x", &pair()).await.problem(401, "invalid_queue_token");
}

async fn a_crowd_that_wants_the_best_gets_every_seat_once(world: World) {
    hall(&world, &[("A", 1, 60, 3_000), ("B", 61, 150, 2_000)]).await;
    let api = &world.api;
    let guests = join_all((0..100).map(|_| api.active_guest(SHOW))).await;
    let wish = pair();
    let answers = join_all(guests.iter().map(|guest| best(api, &guest.token, &wish))).await;
    let mut seats = BTreeSet::new();
    let (mut held, mut refused) = (0, 0);
    for answer in &answers {
        if answer.status == 201 {
            held += 1;
            let pair = numbers(&answer.body);
            assert_eq!(pair[0] + 1, pair[1], "side by side");
            for number in pair {
                assert!(seats.insert(number), "seat {number} was held twice");
            }
        } else {
            refused += 1;
            answer.problem(409, "not_enough_seats");
        }
    }
    assert_eq!((held, refused, seats.len()), (75, 25, 150), "every seat is held");
}

async fn a_large_hall_is_searched_to_its_end(world: World) {
    hall(&world, &[("A", 1, 9_990, 3_000), ("B", 9_991, 10_000, 5_000)]).await;
    let api = &world.api;
    let guests = join_all((0..2).map(|_| api.active_guest(SHOW))).await;
    let wish = json!({"schedule_id": NIGHT, "quantity": 3, "section": "B"});
    assert_eq!(
        numbers(&best(api, &guests[0].token, &wish).await.expect(201)),
        [9_991, 9_992, 9_993]
    );
    // Sell all of section A but one run of four, far behind: it is found, though it leaves a seat alone.
    let mut redis = world.stores.redis().await;
    let key =
        redis.ask(&["KEYS", &format!("{}:*:s:{NIGHT}:seats", world.stores.prefix)]).await.list();
    let key = key.into_iter().next().unwrap().text();
    for number in (1..=9_990).filter(|number| !(8_001..=8_004).contains(number)) {
        redis.ask(&["HSET", &key, &number.to_string(), "0123456789abcdefs"]).await;
    }
    let wish = json!({"schedule_id": NIGHT, "quantity": 3});
    let found = join_all(guests.iter().map(|guest| best(api, &guest.token, &wish))).await;
    let mut found: Vec<_> = found.iter().map(|answer| numbers(&answer.expect(201))).collect();
    found.sort();
    assert_eq!(found, [vec![8_001, 8_002, 8_003], vec![9_994, 9_995, 9_996]]);
    let five = json!({"schedule_id": NIGHT, "quantity": 5});
    best(api, &guests[0].token, &five).await.problem(409, "not_enough_seats");
}

/// Nothing is left but runs of three, so every pair leaves a seat alone: all searches go through the whole hall, in several calls, and come back
/// to the run that each of them passed first.
async fn a_crowd_in_a_large_hall_gets_every_seat_once(world: World) {
    hall(&world, &[("A", 1, 6_000, 3_000)]).await;
    let api = &world.api;
    let guests = join_all((0..50).map(|_| api.active_guest(SHOW))).await;
    api.held(&guests[0].token, NIGHT, &[1]).await;
    let mut redis = world.stores.redis().await;
    let key =
        redis.ask(&["KEYS", &format!("{}:*:s:{NIGHT}:seats", world.stores.prefix)]).await.list();
    let key = key.into_iter().next().unwrap().text();
    for number in (1..=6_000).filter(|number| !(10..13).contains(&(number % 100))) {
        redis.ask(&["HSET", &key, &number.to_string(), "0123456789abcdefs"]).await;
    }
    let wish = pair();
    let answers = join_all(guests.iter().map(|guest| best(api, &guest.token, &wish))).await;
    let mut seats = BTreeSet::new();
    for answer in &answers {
        let pair = numbers(&answer.expect(201));
        assert_eq!(pair[0] + 1, pair[1], "side by side");
        for number in pair {
            assert!(seats.insert(number), "seat {number} was held twice");
        }
    }
}
