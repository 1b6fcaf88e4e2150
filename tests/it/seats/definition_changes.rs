//! Definitions that operators change while users book.

use serde_json::{Value, json};

use crate::support::world::{concert_definition, fast_queue_settings};
use crate::support::{CONCERT, SCHEDULE, TestWorld, eventually, new_key, on_one_and_two};

on_one_and_two!(
    seat_in_use_cannot_be_removed,
    free_seat_can_be_removed,
    changed_price_applies_to_later_holds,
    settings_change_is_visible,
    many_dates_fit_one_definition,
);

const PATH: &str = "/admin/concerts/show";

async fn seat_in_use_cannot_be_removed(world: TestWorld) {
    world.put_show(50, 1_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[50]).await;
    api.put(PATH, &concert_definition(49, 2_000)).await.problem(409, "in_use");
    assert_eq!(api.seats(&guest.token, SCHEDULE).await.len(), 50, "nothing has changed");
    let other = api.active_user(CONCERT).await;
    assert_eq!(api.hold(&other.token, SCHEDULE, &[49]).await.expect(201)["amount"], 1_000);

    // Sold seats count like held ones, and the held seat can still be paid.
    api.charge(&guest.user, 1_000).await;
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    api.put(PATH, &concert_definition(49, 2_000)).await.problem(409, "in_use");
    assert_eq!(world.stores.audit().await.sold.len(), 1);
}

async fn free_seat_can_be_removed(world: TestWorld) {
    world.put_show(50, 1_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[50]).await;
    let path = format!("/v1/reservations/{reservation}");
    api.delete(&path).user(&guest.user).send().await.expect(204);
    let guest = api.active_user(CONCERT).await;
    api.put(PATH, &concert_definition(49, 1_000)).await.expect(200);

    // Immediately on every instance, even before it knows the change.
    for _ in 0..world.api.instances() {
        api.hold(&guest.token, SCHEDULE, &[50]).await.problem(422, "invalid_request");
    }
    let changed = std::time::Instant::now();
    eventually("every instance shows the smaller schedule", || async {
        for at in 0..api.instances() {
            if api.for_instance(at).seats(&guest.token, SCHEDULE).await.len() != 49 {
                return None;
            }
        }
        Some(())
    })
    .await;
    assert!(
        changed.elapsed() < std::time::Duration::from_secs(2),
        "the change took {:?}",
        changed.elapsed()
    );
    api.hold_seats(&guest.token, SCHEDULE, &[49]).await;
}

async fn changed_price_applies_to_later_holds(world: TestWorld) {
    world.put_show(50, 1_000).await;
    let api = &world.api;
    let (before, after) = (api.active_user(CONCERT).await, api.active_user(CONCERT).await);
    let held = api.hold_seats(&before.token, SCHEDULE, &[1]).await;
    // Repeatedly, each time through the instance that did not receive the change.
    for (nth, price) in [2_000, 3_000, 4_000].into_iter().enumerate() {
        let seat = u32::try_from(nth).unwrap() + 2;
        api.for_instance(0).put(PATH, &concert_definition(50, price)).await.expect(200);
        let other = api.for_instance(api.instances() - 1);
        assert_eq!(other.hold(&after.token, SCHEDULE, &[seat]).await.expect(201)["amount"], price);
    }
    // A user who held before the change pays the old price.
    api.charge(&before.user, 5_000).await;
    let paid = api.pay(&before.token, &held, &new_key()).await.expect(201);
    assert_eq!((&paid["amount"], &paid["balance_after"]), (&json!(1_000), &json!(4_000)));
    world.stores.audit().await;
}

async fn settings_change_is_visible(world: TestWorld) {
    world.put_queue(CONCERT, fast_queue_settings()).await;
    let changed = json!({"max_active": 7, "promote_per_interval": 3, "interval_ms": 500,
        "opens_at": "2100-01-01T00:00:00Z"});
    world.put_queue(CONCERT, changed).await;
    world
        .wait_on_every_instance("/v1/queues/show", |queue| {
            queue["opens_at"] == "2100-01-01T00:00:00.000Z" && queue["mode"] == "prequeue"
        })
        .await;
    let queue =
        world.api.admin_call(reqwest::Method::GET, "/admin/queues/show").send().await.expect(200);
    let settings: &Value = &queue["definition"];
    assert_eq!((&settings["max_active"], &settings["claim_seconds"]), (&json!(7), &json!(60)));
    let queues =
        world.api.admin_call(reqwest::Method::GET, "/admin/queues").send().await.expect(200);
    assert_eq!(queues["items"].as_array().unwrap().len(), 1);
}

async fn many_dates_fit_one_definition(world: TestWorld) {
    let section = |k: u32| {
        json!({"name": format!("S{k}"), "from": k * 10 + 1, "to": k * 10 + 10,
        "price": 1_000})
    };
    let date = |d: u32| {
        json!({"id": format!("show-{d}"), "starts_at": "2100-01-01T00:00:00Z",
        "sections": (0..10).map(section).collect::<Vec<_>>()})
    };
    let concert = json!({"title": "Long run", "schedules": (0..400).map(date).collect::<Vec<_>>()});
    let answer = world.api.put(PATH, &concert).await.expect(200);
    assert_eq!(answer["schedules"].as_array().unwrap().len(), 400);
}
