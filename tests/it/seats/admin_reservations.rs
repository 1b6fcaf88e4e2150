//! Reservations and payments of all users, for operators: lists with holds, single ones, and the
//! end of a hold.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    ApiClient, CONCERT, SCHEDULE, TestWorld, eventually, new_key, on_one_and_two,
};

on_one_and_two!(
    list_has_every_status_and_can_be_limited_to_one,
    pages_of_one_status_are_complete,
    operator_sees_any_reservation_and_payment,
    operator_ends_a_hold_at_once,
);

async fn list(api: &ApiClient, query: &str) -> Value {
    let path = format!("/admin/concerts/{CONCERT}/reservations?{query}");
    api.admin_call(Method::GET, &path).send().await.expect(200)
}

fn column(page: &Value, name: &str) -> Vec<String> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item[name].as_str().unwrap().to_owned()).collect()
}

async fn list_has_every_status_and_can_be_limited_to_one(world: TestWorld) {
    world.put_show(10, 1_000).await;
    let api = &world.api;
    let mut made = Vec::new();
    for (seat, end) in [(1, "held"), (2, "released"), (3, "confirmed"), (4, "held")] {
        let guest = api.active_user(CONCERT).await;
        let id = api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
        match end {
            "released" => {
                let path = format!("/v1/reservations/{id}");
                api.delete(&path).token(&guest.token).send().await.expect(204);
            }
            "confirmed" => {
                api.charge(&guest.user, 1_000).await;
                api.pay(&guest.token, &id, &new_key()).await.expect(201);
            }
            _ => {}
        }
        made.insert(0, (id, guest.user, end));
    }
    let all = list(api, "").await;
    let listed: Vec<_> = column(&all, "id")
        .into_iter()
        .zip(column(&all, "user_id"))
        .zip(column(&all, "status"))
        .map(|((id, user), status)| (id, user, status))
        .collect();
    let expected: Vec<_> =
        made.iter().map(|(id, user, end)| (id.clone(), user.clone(), (*end).to_owned())).collect();
    assert_eq!(listed, expected);
    for status in ["held", "released", "confirmed", "paying", "expired", "cancelled"] {
        let wanted = made.iter().filter(|(_, _, end)| *end == status);
        let wanted: Vec<String> = wanted.map(|(id, _, _)| id.clone()).collect();
        let found = list(api, &format!("status={status}")).await;
        assert_eq!(column(&found, "id"), wanted, "{status}");
    }
}

async fn pages_of_one_status_are_complete(world: TestWorld) {
    world.put_show(12, 1_000).await;
    let api = &world.api;
    let mut held = Vec::new();
    for seat in 1..=12 {
        let guest = api.active_user(CONCERT).await;
        let id = api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
        if seat % 3 == 0 {
            let path = format!("/v1/reservations/{id}");
            api.delete(&path).token(&guest.token).send().await.expect(204);
        } else {
            held.insert(0, id);
        }
    }
    let (mut seen, mut next) = (Vec::new(), String::new());
    loop {
        let page = list(api, &format!("status=held&limit=3{next}")).await;
        seen.extend(column(&page, "id"));
        match page["next"].as_str() {
            Some(before) => next = format!("&before={before}"),
            None => break,
        }
    }
    assert_eq!(seen, held);
}

async fn operator_sees_any_reservation_and_payment(world: TestWorld) {
    world.put_show(10, 1_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 1_000).await;
    let id = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    let get = async |path: String| api.admin_call(Method::GET, &path).send().await.expect(200);
    let found = get(format!("/admin/reservations/{id}")).await;
    assert_eq!(
        (&found["id"], &found["status"], &found["user_id"]),
        (&json!(id), &json!("held"), &json!(guest.user))
    );
    let paid = api.pay(&guest.token, &id, &new_key()).await.expect(201);
    let payment = paid["id"].as_str().unwrap();
    let found = get(format!("/admin/payments/{payment}")).await;
    assert_eq!(
        (&found["status"], &found["paid"], &found["user_id"]),
        (&json!("confirmed"), &json!(1_000), &json!(guest.user))
    );
    let found = get(format!("/admin/reservations/{id}")).await;
    assert_eq!((&found["status"], &found["payment_id"]), (&json!("confirmed"), &json!(payment)));
}

async fn operator_ends_a_hold_at_once(world: TestWorld) {
    world.put_show(10, 1_000).await;
    let api = &world.api;
    let (guest, other) = (api.active_user(CONCERT).await, api.active_user(CONCERT).await);
    let id = api.hold_seats(&guest.token, SCHEDULE, &[1, 2]).await;
    let path = format!("/admin/reservations/{id}");
    for _ in 0..2 {
        api.admin_call(Method::DELETE, &path).send().await.expect(204);
    }
    let ended = api.get(&format!("/v1/reservations/{id}")).user(&guest.user).send().await;
    assert_eq!(ended.expect(200)["status"], "released");
    let bought = api.hold_seats(&other.token, SCHEDULE, &[1, 2]).await;
    api.charge(&other.user, 2_000).await;
    api.pay(&other.token, &bought, &new_key()).await.expect(201);
    let path = format!("/admin/reservations/{bought}");
    api.admin_call(Method::DELETE, &path).send().await.problem(409, "not_releasable");
    eventually("MySQL has the released hold", || async {
        let query = "SELECT COUNT(*) FROM reservations WHERE status = 'released'";
        (world.stores.count(query).await == 1).then_some(())
    })
    .await;
    world.stores.audit().await;
}
