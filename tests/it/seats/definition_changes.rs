//! What operators change while people book.

use serde_json::{Value, json};

use crate::support::world::{fast_queue, show};
use crate::support::{NIGHT, SHOW, World, eventually, new_key, on_one_and_two};

on_one_and_two!(
    a_seat_that_is_taken_cannot_be_taken_away,
    a_seat_that_is_free_can_be_taken_away,
    a_changed_price_holds_from_the_next_hold_on,
    a_settings_change_is_shown,
);

const PATH: &str = "/admin/concerts/show";

async fn a_seat_that_is_taken_cannot_be_taken_away(world: World) {
    world.show(50, 1_000).await;
    let api = &world.api;
    let guest = api.active_guest(SHOW).await;
    let reservation = api.held(&guest.token, NIGHT, &[50]).await;
    api.put(PATH, &show(49, 2_000)).await.problem(409, "in_use");
    assert_eq!(api.seats(&guest.token, NIGHT).await.len(), 50, "nothing has changed");
    let other = api.active_guest(SHOW).await;
    assert_eq!(api.hold(&other.token, NIGHT, &[49]).await.expect(201)["amount"], 1_000);

    // Sold is as good as held; and what is held still can be paid for.
    api.charge(&guest.user, 1_000).await;
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    api.put(PATH, &show(49, 2_000)).await.problem(409, "in_use");
    assert_eq!(world.stores.audit().await.sold.len(), 1);
}

async fn a_seat_that_is_free_can_be_taken_away(world: World) {
    world.show(50, 1_000).await;
    let api = &world.api;
    let guest = api.active_guest(SHOW).await;
    let reservation = api.held(&guest.token, NIGHT, &[50]).await;
    let path = format!("/v1/reservations/{reservation}");
    api.delete(&path).user(&guest.user).send().await.expect(204);
    let guest = api.active_guest(SHOW).await;
    api.put(PATH, &show(49, 1_000)).await.expect(200);

    // At once, on whichever instance, even before it has heard of the change.
    for _ in 0..world.api.instances() {
        api.hold(&guest.token, NIGHT, &[50]).await.problem(422, "invalid_request");
    }
    let changed = std::time::Instant::now();
    eventually("every instance shows the smaller hall", || async {
        for at in 0..api.instances() {
            if api.only(at).seats(&guest.token, NIGHT).await.len() != 49 {
                return None;
            }
        }
        Some(())
    })
    .await;
    assert!(
        changed.elapsed() < std::time::Duration::from_secs(2),
        "it took {:?}",
        changed.elapsed()
    );
    api.held(&guest.token, NIGHT, &[49]).await;
}

async fn a_changed_price_holds_from_the_next_hold_on(world: World) {
    world.show(50, 1_000).await;
    let api = &world.api;
    let (before, after) = (api.active_guest(SHOW).await, api.active_guest(SHOW).await);
    let held = api.held(&before.token, NIGHT, &[1]).await;
    // Over and over, each time asking the instance that was not told.
    for (nth, price) in [2_000, 3_000, 4_000].into_iter().enumerate() {
        let seat = u32::try_from(nth).unwrap() + 2;
        api.only(0).put(PATH, &show(50, price)).await.expect(200);
        let other = api.only(api.instances() - 1);
        assert_eq!(other.hold(&after.token, NIGHT, &[seat]).await.expect(201)["amount"], price);
    }
    // Who held before pays what was said then.
    api.charge(&before.user, 5_000).await;
    let paid = api.pay(&before.token, &held, &new_key()).await.expect(201);
    assert_eq!((&paid["amount"], &paid["balance_after"]), (&json!(1_000), &json!(4_000)));
    world.stores.audit().await;
}

async fn a_settings_change_is_shown(world: World) {
    world.queue(SHOW, fast_queue()).await;
    let changed = json!({"max_active": 7, "promote_per_interval": 3, "interval_ms": 500, "opens_at": "2100-01-01T00:00:00Z"});
    world.queue(SHOW, changed).await;
    world
        .everywhere("/v1/queues/show", |queue| {
            queue["opens_at"] == "2100-01-01T00:00:00.000Z" && queue["mode"] == "prequeue"
        })
        .await;
    let queue =
        world.api.admin_call(reqwest::Method::GET, "/admin/queues/show").send().await.expect(200);
    let settings: &Value = &queue["settings"];
    assert_eq!((&settings["max_active"], &settings["claim_seconds"]), (&json!(7), &json!(60)));
    let queues =
        world.api.admin_call(reqwest::Method::GET, "/admin/queues").send().await.expect(200);
    assert_eq!(queues["items"].as_array().unwrap().len(), 1);
}
