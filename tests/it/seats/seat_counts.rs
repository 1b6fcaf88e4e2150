//! The list of schedules counts seats without reading them.

use serde_json::json;

use crate::support::world::{fast_queue_settings, schedule_definition};
use crate::support::{
    ApiClient, CONCERT, SCHEDULE, TestWorld, eventually, new_key, on_one_and_two,
};

on_one_and_two!(counts_follow_holds_sales_and_lapses);

async fn available(api: &ApiClient, token: &str) -> u64 {
    let list = api.get("/v1/concerts/show/schedules").token(token).send().await.expect(200);
    list["items"][0]["available_seats"].as_u64().unwrap()
}

async fn counts_follow_holds_sales_and_lapses(world: TestWorld) {
    world.put_queue(CONCERT, fast_queue_settings()).await;
    let show = json!({"title": "brief", "hold_seconds": 1, "max_seats_per_user": 10,
        "schedules": [schedule_definition(20, 1_000)]});
    world.put_concert(CONCERT, show).await;
    let api = &world.api;
    // The payment ends the visit of its user.
    let watcher = api.active_user(CONCERT).await;
    let token = &watcher.token;
    let guest = api.active_user(CONCERT).await;
    assert_eq!(available(api, token).await, 20);
    api.charge(&guest.user, 3_000).await;
    let bought = api.hold_seats(&guest.token, SCHEDULE, &[1, 2, 3]).await;
    assert_eq!(available(api, token).await, 17);
    api.pay(&guest.token, &bought, &new_key()).await.expect(201);
    assert_eq!(available(api, token).await, 17);
    let cancel = api.post(&format!("/v1/reservations/{bought}/cancel"));
    let cancel = cancel.user(&guest.user).key(&new_key()).json(&json!({"seats": [2]}));
    cancel.send().await.expect(200);
    assert_eq!(available(api, token).await, 18);

    let other = api.active_user(CONCERT).await;
    let released = api.hold_seats(&other.token, SCHEDULE, &[4]).await;
    let release = api.delete(&format!("/v1/reservations/{released}")).token(&other.token);
    release.send().await.expect(204);
    let other = api.active_user(CONCERT).await;
    api.hold_seats(&other.token, SCHEDULE, &[5, 6]).await;
    eventually("the seats of the lapsed hold are counted as available", || async {
        (available(api, token).await == 18).then_some(())
    })
    .await;
    let seats =
        world.stores.key(world.stores.partition_of(CONCERT), &format!("s:{SCHEDULE}:seats"));
    eventually("their marks are deleted", || async {
        let marks = world.stores.redis().await.hash(&seats).await;
        (marks.len() == 2).then_some(())
    })
    .await;
    world.stores.audit().await;
}
