//! Shows that are over, and which dates are listed as bookable.

use serde_json::{Value, json};

use crate::support::world::fast_queue_settings;
use crate::support::{CONCERT, TestWorld, on_one_and_two};

on_one_and_two!(past_show_is_neither_listed_nor_sold);

fn date(id: &str, starts_at: &str, more: Value) -> Value {
    let sections = json!([{"name": "A", "from": 1, "to": 1, "price": 100}]);
    let mut date = json!({"id": id, "starts_at": starts_at, "sections": sections});
    date.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    date
}

async fn past_show_is_neither_listed_nor_sold(world: TestWorld) {
    const PAST: &str = "2020-01-01T00:00:00Z";
    const FUTURE: &str = "2100-01-01T00:00:00Z";
    world.put_queue(CONCERT, fast_queue_settings()).await;
    let dates = [
        date("past", PAST, json!({})),
        date("long", PAST, json!({"booking_closes_at": FUTURE})),
        date("closed", FUTURE, json!({"booking_closes_at": PAST})),
        date("early", FUTURE, json!({"booking_opens_at": "2099-01-01T00:00:00Z"})),
        date("open", FUTURE, json!({})),
        date("full", "2100-01-02T00:00:00Z", json!({})),
    ];
    world.put_concert(CONCERT, json!({"title": "x", "schedules": dates})).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.hold(&guest.token, "full", &[1]).await.expect(201);
    for closed in ["past", "closed", "early"] {
        api.hold(&guest.token, closed, &[1]).await.problem(403, "booking_not_open");
        let best = json!({"schedule_id": closed, "quantity": 1});
        let best = api.post("/v1/reservations/best").token(&guest.token).json(&best).send().await;
        best.problem(403, "booking_not_open");
    }
    let path = format!("/v1/concerts/{CONCERT}/schedules");
    let list = async |query: &str| {
        let answer = api.get(&format!("{path}{query}")).token(&guest.token).send().await;
        let items = answer.expect(200)["items"].as_array().unwrap().clone();
        let state = |it: &Value| json!([it["id"], it["bookable"], it["not_bookable_reason"]]);
        items.iter().map(state).collect::<Vec<_>>()
    };
    let bookable = [
        json!(["long", true, null]),
        json!(["early", false, "not_open"]),
        json!(["open", true, null]),
        json!(["full", false, "sold_out"]),
    ];
    let sorted = |mut all: Vec<Value>| {
        all.sort_by_key(Value::to_string);
        all
    };
    assert_eq!(sorted(list("").await), sorted(bookable.to_vec()));
    assert_eq!(sorted(list("?all=false").await), sorted(bookable.to_vec()));
    let mut all = bookable.to_vec();
    all.extend([json!(["past", false, "past"]), json!(["closed", false, "closed"])]);
    assert_eq!(sorted(list("?all=true").await), sorted(all));
    api.hold(&guest.token, "long", &[1]).await.expect(201);
}
