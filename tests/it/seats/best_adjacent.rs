//! The best adjacent seats.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::world::fast_queue_settings;
use crate::support::{ApiClient, ApiResponse, CONCERT, SCHEDULE, TestWorld, on_one_and_two};

on_one_and_two!(
    best_seats_are_the_lowest_without_a_single_gap,
    sections_are_searched_in_configured_order,
    invalid_request_changes_nothing,
    concurrent_requests_assign_every_seat_once,
    large_schedule_is_searched_to_its_end,
    concurrent_requests_in_a_large_schedule_assign_every_seat_once,
);

async fn best(api: &ApiClient, token: &str, body: &Value) -> ApiResponse {
    api.post("/v1/reservations/best").token(token).json(body).send().await
}

fn numbers(reservation: &Value) -> Vec<u64> {
    let seats = reservation["seats"].as_array().unwrap();
    seats.iter().map(|seat| seat["number"].as_u64().unwrap()).collect()
}

fn pair() -> Value {
    json!({"schedule_id": SCHEDULE, "quantity": 2})
}

/// A schedule with sections, given as name, first and last number, and price.
async fn put_sections(world: &TestWorld, sections: &[(&str, u32, u32, i64)]) {
    let sections: Vec<_> = sections
        .iter()
        .map(
            |(name, from, to, price)| json!({"name": name, "from": from, "to": to, "price": price}),
        )
        .collect();
    let night =
        json!({"id": SCHEDULE, "starts_at": "2100-01-01T19:00:00.000Z", "sections": sections});
    world.put_queue(CONCERT, fast_queue_settings()).await;
    world
        .put_concert(
            CONCERT,
            json!({"title": "The show", "max_seats_per_user": 20, "schedules": [night]}),
        )
        .await;
}

async fn best_seats_are_the_lowest_without_a_single_gap(world: TestWorld) {
    put_sections(&world, &[("A", 1, 12, 3_000)]).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    // Free: 1–3 (a pair leaves a single seat), 5–9, 11–12.
    api.hold_seats(&guest.token, SCHEDULE, &[4, 10]).await;
    let first = best(api, &guest.token, &pair()).await.expect(201);
    assert_eq!(numbers(&first), [5, 6]);
    assert_eq!((first["amount"].as_i64(), first["status"].as_str()), (Some(6_000), Some("held")));
    assert_eq!(first["seats"][0], json!({"number": 5, "section": "A", "price": 3_000}));
    let path = format!("/v1/reservations/{}", first["id"].as_str().unwrap());
    let read = api.get(&path).user(&guest.user).send().await.expect(200);
    assert_eq!(read, first, "the script and the response have the same seats");
    // Now 7–9 would leave a single seat as well, 11–12 would not.
    assert_eq!(numbers(&best(api, &guest.token, &pair()).await.expect(201)), [11, 12]);
    // If every choice leaves a single seat, the lowest seats.
    assert_eq!(numbers(&best(api, &guest.token, &pair()).await.expect(201)), [1, 2]);
    assert_eq!(numbers(&best(api, &guest.token, &pair()).await.expect(201)), [7, 8]);
    // Two seats are left, but they are not adjacent.
    best(api, &guest.token, &pair()).await.problem(409, "not_enough_seats");
    assert_eq!(
        numbers(
            &best(api, &guest.token, &json!({"schedule_id": SCHEDULE, "quantity": 1}))
                .await
                .expect(201)
        ),
        [3]
    );
}

async fn sections_are_searched_in_configured_order(world: TestWorld) {
    put_sections(&world, &[("Front", 7, 12, 9_000), ("Back", 1, 6, 4_000)]).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    let four = |section: Option<&str>| match section {
        Some(name) => json!({"schedule_id": SCHEDULE, "quantity": 4, "section": name}),
        None => json!({"schedule_id": SCHEDULE, "quantity": 4}),
    };
    let first = best(api, &guest.token, &four(None)).await.expect(201);
    assert_eq!((numbers(&first), first["amount"].as_i64()), (vec![7, 8, 9, 10], Some(36_000)));
    // 11–12 and 1–… are not adjacent: they are in two sections.
    let second = best(api, &guest.token, &four(None)).await.expect(201);
    assert_eq!((numbers(&second), second["amount"].as_i64()), (vec![1, 2, 3, 4], Some(16_000)));
    best(api, &guest.token, &four(Some("Front"))).await.problem(409, "not_enough_seats");
    let front = json!({"schedule_id": SCHEDULE, "quantity": 2, "section": "Front"});
    assert_eq!(numbers(&best(api, &guest.token, &front).await.expect(201)), [11, 12]);
}

async fn invalid_request_changes_nothing(world: TestWorld) {
    put_sections(&world, &[("A", 1, 50, 3_000)]).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    for wish in [
        json!({"schedule_id": SCHEDULE, "quantity": 0}),
        json!({"schedule_id": SCHEDULE, "quantity": -1}),
        json!({"schedule_id": SCHEDULE, "quantity": 1.5}),
        json!({"schedule_id": SCHEDULE, "quantity": "2"}),
        json!({"schedule_id": SCHEDULE, "quantity": 5_000_000_000_u64}),
        json!({"schedule_id": SCHEDULE}),
        json!({"schedule_id": SCHEDULE, "quantity": 2, "section": "Z"}),
        json!({"schedule_id": SCHEDULE, "quantity": 2, "row": 1}),
    ] {
        best(api, &guest.token, &wish).await.problem(422, "invalid_request");
    }
    let many = json!({"schedule_id": SCHEDULE, "quantity": 21});
    best(api, &guest.token, &many).await.problem(422, "seat_limit_exceeded");
    best(api, &guest.token, &json!({"schedule_id": "none", "quantity": 1}))
        .await
        .problem(404, "not_found");
    assert!(api.seats(&guest.token, SCHEDULE).await.iter().all(|status| status == "available"));
    best(api, "x", &pair()).await.problem(401, "invalid_queue_token");
}

async fn concurrent_requests_assign_every_seat_once(world: TestWorld) {
    put_sections(&world, &[("A", 1, 60, 3_000), ("B", 61, 150, 2_000)]).await;
    let api = &world.api;
    let guests = join_all((0..100).map(|_| api.active_user(CONCERT))).await;
    let wish = pair();
    let answers = join_all(guests.iter().map(|guest| best(api, &guest.token, &wish))).await;
    let mut seats = BTreeSet::new();
    let (mut held, mut refused) = (0, 0);
    for answer in &answers {
        if answer.status == 201 {
            held += 1;
            let pair = numbers(&answer.body);
            assert_eq!(pair[0] + 1, pair[1], "adjacent seats");
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

async fn large_schedule_is_searched_to_its_end(world: TestWorld) {
    put_sections(&world, &[("A", 1, 9_990, 3_000), ("B", 9_991, 10_000, 5_000)]).await;
    let api = &world.api;
    let guests = join_all((0..2).map(|_| api.active_user(CONCERT))).await;
    let wish = json!({"schedule_id": SCHEDULE, "quantity": 3, "section": "B"});
    assert_eq!(
        numbers(&best(api, &guests[0].token, &wish).await.expect(201)),
        [9_991, 9_992, 9_993]
    );
    // Sell all of section A except one run of four near its end: the search finds it, although it
    // leaves a single seat.
    let mut redis = world.stores.redis().await;
    let key =
        redis.ask(&["KEYS", &format!("{}:*:s:{SCHEDULE}:seats", world.stores.prefix)]).await.list();
    let key = key.into_iter().next().unwrap().text();
    for number in (1..=9_990).filter(|number| !(8_001..=8_004).contains(number)) {
        redis.ask(&["HSET", &key, &number.to_string(), "0123456789abcdefs"]).await;
    }
    let wish = json!({"schedule_id": SCHEDULE, "quantity": 3});
    let found = join_all(guests.iter().map(|guest| best(api, &guest.token, &wish))).await;
    let mut found: Vec<_> = found.iter().map(|answer| numbers(&answer.expect(201))).collect();
    found.sort();
    assert_eq!(found, [vec![8_001, 8_002, 8_003], vec![9_994, 9_995, 9_996]]);
    let five = json!({"schedule_id": SCHEDULE, "quantity": 5});
    best(api, &guests[0].token, &five).await.problem(409, "not_enough_seats");
}

/// Only runs of three are left, so every pair leaves a single seat: all searches scan the whole
/// schedule, in several calls, and return to the first run that they passed.
async fn concurrent_requests_in_a_large_schedule_assign_every_seat_once(world: TestWorld) {
    put_sections(&world, &[("A", 1, 6_000, 3_000)]).await;
    let api = &world.api;
    let guests = join_all((0..50).map(|_| api.active_user(CONCERT))).await;
    api.hold_seats(&guests[0].token, SCHEDULE, &[1]).await;
    let mut redis = world.stores.redis().await;
    let key =
        redis.ask(&["KEYS", &format!("{}:*:s:{SCHEDULE}:seats", world.stores.prefix)]).await.list();
    let key = key.into_iter().next().unwrap().text();
    for number in (1..=6_000).filter(|number| !(10..13).contains(&(number % 100))) {
        redis.ask(&["HSET", &key, &number.to_string(), "0123456789abcdefs"]).await;
    }
    let wish = pair();
    let answers = join_all(guests.iter().map(|guest| best(api, &guest.token, &wish))).await;
    let mut seats = BTreeSet::new();
    for answer in &answers {
        let pair = numbers(&answer.expect(201));
        assert_eq!(pair[0] + 1, pair[1], "adjacent seats");
        for number in pair {
            assert!(seats.insert(number), "seat {number} was held twice");
        }
    }
}
