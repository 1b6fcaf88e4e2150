//! Seat maps: the layout, which clients and caches keep, and the statuses of the seats.

use serde_json::{Value, json};

use crate::support::api::ApiRequest;
use crate::support::world::{fast_queue_settings, schedule_definition};
use crate::support::{CONCERT, SCHEDULE, TestWorld, new_key, on_one_and_two};

on_one_and_two!(
    layout_is_kept_until_it_changes,
    status_view_has_one_letter_for_each_seat,
    section_limits_each_view,
);

const LAYOUT: &str = "/v1/schedules/night/layout";
const SEATS: &str = "/v1/schedules/night/seats";

/// Sections that are not in the order of their numbers, two of them with one name.
fn sections(price: u32) -> Value {
    json!([
        {"name": "Front", "from": 4, "to": 5, "price": price},
        {"name": "Back", "from": 1, "to": 3, "price": 500},
        {"name": "Front", "from": 6, "to": 6, "price": 2_000},
    ])
}

async fn put_hall(world: &TestWorld, title: &str, price: u32) {
    let mut night = schedule_definition(1, 1);
    night["sections"] = sections(price);
    world.put_concert(CONCERT, json!({"title": title, "schedules": [night]})).await;
}

fn with_tag(call: ApiRequest, tag: &str) -> ApiRequest {
    call.header("if-none-match", tag)
}

async fn layout_is_kept_until_it_changes(world: TestWorld) {
    world.put_queue(CONCERT, fast_queue_settings()).await;
    put_hall(&world, "The show", 1_000).await;
    let api = &world.api;
    let answer = api.get(LAYOUT).send().await;
    let layout = answer.expect(200);
    assert_eq!(layout, json!({"schedule_id": SCHEDULE, "sections": sections(1_000)}));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=1"));
    let tag = answer.header("etag").unwrap().to_owned();
    for known in [tag.clone(), format!("W/{tag}"), format!("\"1\", {tag}"), "*".into()] {
        let unchanged = with_tag(api.get(LAYOUT), &known).send().await;
        assert_eq!((unchanged.expect_text(304).as_str(), known.as_str()), ("", known.as_str()));
        assert_eq!(unchanged.header("etag"), Some(tag.as_str()));
        assert_eq!(unchanged.header("cache-control"), Some("public, max-age=1"));
    }
    // The title is not part of the layout.
    put_hall(&world, "The same show", 1_000).await;
    for _ in 0..api.instances() {
        with_tag(api.get(LAYOUT), &tag).send().await.expect_text(304);
    }
    put_hall(&world, "The same show", 1_001).await;
    for _ in 0..api.instances() {
        let changed = with_tag(api.get(LAYOUT), &tag).send().await;
        assert_eq!(changed.expect(200)["sections"], sections(1_001));
        assert_ne!(changed.header("etag"), Some(tag.as_str()));
    }
}

async fn status_view_has_one_letter_for_each_seat(world: TestWorld) {
    world.put_show(2_345, 1_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 3_000).await;
    let bought = api.hold_seats(&guest.token, SCHEDULE, &[1, 1_000, 2_345]).await;
    api.pay(&guest.token, &bought, &new_key()).await.expect(201);
    let guest = api.active_user(CONCERT).await;
    api.hold_seats(&guest.token, SCHEDULE, &[2, 1_001]).await;
    let view = api.get(&format!("{SEATS}?view=status")).token(&guest.token).send().await;
    let view = view.expect(200);
    let mut letters = vec!["a"; 2_345];
    for (number, letter) in [(1, "s"), (1_000, "s"), (2_345, "s"), (2, "h"), (1_001, "h")] {
        letters[number - 1] = letter;
    }
    assert_eq!(view["statuses"], letters.concat());
    let tag = api.get(LAYOUT).send().await.header("etag").unwrap().to_owned();
    assert_eq!((&view["schedule_id"], &view["layout_etag"]), (&json!(SCHEDULE), &json!(tag)));
    // The default view has the same statuses.
    for query in ["", "?view=list"] {
        let list = api.get(&format!("{SEATS}{query}")).token(&guest.token).send().await.expect(200);
        let items = list["items"].as_array().unwrap();
        let statuses = items.iter().map(|seat| &seat["status"].as_str().unwrap()[..1]);
        assert_eq!(statuses.collect::<String>(), letters.concat());
    }
}

async fn section_limits_each_view(world: TestWorld) {
    world.put_queue(CONCERT, fast_queue_settings()).await;
    put_hall(&world, "The show", 1_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.hold_seats(&guest.token, SCHEDULE, &[2, 6]).await;
    let get = async |query: &str| {
        let answer = api.get(&format!("{SEATS}?{query}")).token(&guest.token).send().await;
        answer.expect(200)
    };
    assert_eq!(get("view=status").await["statuses"], "ahaaah");
    assert_eq!(get("view=status&section=Back").await["statuses"], "aha");
    let front = get("view=status&section=Front").await;
    assert_eq!(front["statuses"], "aah");
    assert_eq!(front["layout_etag"], get("view=status").await["layout_etag"]);
    let numbers = |list: Value| -> Vec<Value> {
        list["items"].as_array().unwrap().iter().map(|seat| seat["number"].clone()).collect()
    };
    assert_eq!(json!(numbers(get("").await)), json!([1, 2, 3, 4, 5, 6]));
    assert_eq!(json!(numbers(get("section=Front").await)), json!([4, 5, 6]));
    assert_eq!(json!(numbers(get("section=Front&status=held").await)), json!([6]));

    let whole = api.get(LAYOUT).send().await;
    let part = api.get(&format!("{LAYOUT}?section=Front")).send().await;
    assert_eq!(part.expect(200)["sections"], json!([sections(1_000)[0], sections(1_000)[2]]));
    assert_eq!(part.header("etag"), whole.header("etag"));
}
