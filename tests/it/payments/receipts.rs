//! Receipts: what was bought reads as it was, wherever it is stored, and can be found again.

use serde_json::{Value, json};

use crate::coupons::payments::coupon;
use crate::recovery::restore::{lose_redis, queue_without_window};
use crate::support::world::schedule_definition;
use crate::support::{
    ApiClient, CONCERT, SCHEDULE, TestStores, TestWorld, new_key, on_one_and_two,
};

on_one_and_two!(
    receipt_keeps_the_title_and_the_date,
    payments_are_listed_and_paged,
    ledger_entries_name_what_they_belong_to,
    payment_with_another_amount_is_refused,
);

async fn get(api: &ApiClient, user: &str, path: &str) -> Value {
    api.get(path).user(user).send().await.expect(200)
}

async fn payments(api: &ApiClient, user: &str, query: &str) -> Value {
    get(api, user, &format!("/v1/payments{query}")).await
}

async fn receipt_keeps_the_title_and_the_date(world: TestWorld) {
    world.put_show(9, 3_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 9_000).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    let path = format!("/v1/reservations/{reservation}");
    let held = get(api, &guest.user, &path).await;
    assert_eq!(
        (&held["payment_id"], &held["paid"], &held["discount"], &held["currency"]),
        (&Value::Null, &json!(0), &json!(0), &json!("KRW"))
    );
    let mut moved = schedule_definition(9, 5_000);
    moved["starts_at"] = json!("2099-09-09T09:09:09.000Z");
    world.put_concert(CONCERT, json!({"title": "Macbeth", "schedules": [moved]})).await;
    let payment = api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    assert_eq!(payment["currency"], "KRW");
    for _ in 0..2 {
        let bought = get(api, &guest.user, &path).await;
        let by_id =
            get(api, &guest.user, &format!("/v1/payments/{}", payment["id"].as_str().unwrap()))
                .await;
        assert_eq!(by_id, payment);
        for receipt in [&bought, &payment] {
            assert_eq!(receipt["concert_title"], "The show");
            assert_eq!(receipt["starts_at"], "2100-01-01T19:00:00.000Z");
            assert_eq!((&receipt["paid"], &receipt["discount"]), (&json!(3_000), &json!(0)));
        }
        assert_eq!(bought["payment_id"], payment["id"]);
        let listed = get(api, &guest.user, "/v1/reservations/mine").await;
        assert_eq!(listed["items"][0], bought);
        world.stores.wait_until_idle().await;
    }
    // A later hold reads the new definition.
    let other = api.active_user(CONCERT).await;
    let later = api.hold_seats(&other.token, SCHEDULE, &[2]).await;
    let later = get(api, &other.user, &format!("/v1/reservations/{later}")).await;
    assert_eq!(later["concert_title"], "Macbeth");
    assert_eq!(get(api, &guest.user, "/v1/wallet").await["currency"], "KRW");
    world.stores.audit().await;
}

async fn payments_are_listed_and_paged(world: TestWorld) {
    world.put_show(9, 3_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    assert_eq!(payments(api, &guest.user, "").await, json!({"items": [], "next": null}));
    let mut expected = Vec::new();
    let mut holds = Vec::new();
    for seat in 1..=3 {
        holds.push(api.hold_seats(&guest.token, SCHEDULE, &[seat]).await);
    }
    for (seat, reservation) in (1..).zip(holds) {
        let key = new_key();
        if seat == 1 {
            api.pay(&guest.token, &reservation, &key).await.problem(402, "insufficient_balance");
            expected.push("declined");
            api.charge(&guest.user, 9_000).await;
            continue;
        }
        let payment = api.pay(&guest.token, &reservation, &key).await.expect(201);
        expected.push("confirmed");
        // The newest comes first, before and after MySQL has it.
        for _ in 0..2 {
            let page = payments(api, &guest.user, "").await;
            assert_eq!(page["items"][0], payment);
            let statuses: Vec<_> =
                page["items"].as_array().unwrap().iter().map(|it| &it["status"]).collect();
            assert_eq!(statuses, expected.iter().rev().collect::<Vec<_>>());
            world.stores.wait_until_idle().await;
        }
    }
    let all = payments(api, &guest.user, "").await;
    let (mut pages, mut next) = (Vec::new(), Some("?limit=1".to_owned()));
    while let Some(query) = next {
        let page = payments(api, &guest.user, &query).await;
        pages.extend(page["items"].as_array().unwrap().clone());
        next = page["next"].as_str().map(|before| format!("?limit=1&before={before}"));
    }
    assert_eq!(json!(pages), all["items"]);
    let other = api.active_user(CONCERT).await;
    assert_eq!(payments(api, &other.user, "").await["items"], json!([]));
}

async fn ledger_entries_name_what_they_belong_to(world: TestWorld) {
    world.put_show(9, 3_000).await;
    let api = &world.api;
    let reward = json!({"title": "Hello", "starts_at": "2026-01-01T00:00:00Z",
        "ends_at": "2100-01-01T00:00:00Z", "active": true, "conditions": [],
        "reward": {"kind": "points", "amount": 50}});
    api.put("/admin/rewards/hello", &reward).await.expect(200);
    world.wait_on_every_instance("/v1/rewards/hello", |_| true).await;
    let guest = api.active_user(CONCERT).await;
    let claim = api.post("/v1/rewards/hello/claims").user(&guest.user).send().await.expect(201);
    api.charge(&guest.user, 9_000).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    let payment = api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    let cancel = api.post(&format!("/v1/reservations/{reservation}/cancel"));
    cancel.user(&guest.user).key(&new_key()).send().await.expect(200);
    for _ in 0..2 {
        let entries = get(api, &guest.user, "/v1/wallet/entries").await;
        let named: Vec<_> = entries["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| json!([it["kind"], it["payment_id"], it["reservation_id"], it["claim_id"]]))
            .collect();
        let (payment, claim) = (&payment["id"], &claim["id"]);
        assert_eq!(
            json!(named),
            json!([
                ["refund", payment, reservation, null],
                ["payment", payment, reservation, null],
                ["charge", null, null, null],
                ["reward", null, null, claim],
            ])
        );
        world.stores.wait_until_idle().await;
    }
}

async fn payment_with_another_amount_is_refused(world: TestWorld) {
    world.put_show(9, 3_000).await;
    let api = &world.api;
    api.put("/admin/coupons/off", &coupon(500, 0)).await.expect(200);
    world.wait_on_every_instance("/v1/coupons/off", |_| true).await;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 9_000).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    let issue = crate::coupons::payments::issue(api, &guest.user).await;
    let pay = |expected: i64, issue: Option<&str>, key: &str| {
        let body = json!({"reservation_id": reservation, "coupon_issue_id": issue,
            "expected_amount": expected});
        api.post("/v1/payments").token(&guest.token).key(key).json(&body).send()
    };
    let key = new_key();
    for _ in 0..2 {
        let refused = pay(2_999, None, &key).await.problem(409, "amount_changed");
        assert_eq!(refused["amount"], 3_000);
        let refused = pay(3_000, Some(&issue), &new_key()).await.problem(409, "amount_changed");
        assert_eq!(refused["amount"], 2_500);
    }
    assert_eq!(api.balance(&guest.user).await, 9_000);
    let issues = get(api, &guest.user, "/v1/coupons/issues/mine").await;
    assert_eq!(issues["items"][0]["used_at"], Value::Null);
    let held = get(api, &guest.user, &format!("/v1/reservations/{reservation}")).await;
    assert_eq!((&held["status"], &held["payment_id"]), (&json!("held"), &Value::Null));
    let nothing = payments(api, &guest.user, "").await;
    assert_eq!(nothing["items"], json!([]), "a refused payment leaves nothing");
    let paid = pay(2_500, Some(&issue), &new_key()).await.expect(201);
    assert_eq!((&paid["paid"], &paid["discount"]), (&json!(2_500), &json!(500)));
    world.stores.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_survive_a_loss_of_redis() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    world.put_queue(CONCERT, queue_without_window()).await;
    world
        .put_concert(CONCERT, json!({"title": "Hamlet", "schedules": [schedule_definition(9, 10)]}))
        .await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    let hold = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    api.pay(&guest.token, &hold, &new_key()).await.problem(402, "insufficient_balance");
    api.charge(&guest.user, 100).await;
    let bought = api.hold_seats(&guest.token, SCHEDULE, &[2, 3]).await;
    api.pay(&guest.token, &bought, &new_key()).await.expect(201);
    let path = format!("/v1/reservations/{bought}");
    let lists = async || {
        let all = payments(api, &guest.user, "").await;
        (all, get(api, &guest.user, &path).await, get(api, &guest.user, "/v1/wallet/entries").await)
    };
    let mut before = lists().await;
    world.stores.wait_until_idle().await;
    world
        .put_concert(CONCERT, json!({"title": "X", "schedules": [schedule_definition(9, 10)]}))
        .await;
    lose_redis(&world).await;
    // The hold is lost, its failed payment is not.
    let failed = before.0["items"].as_array_mut().unwrap().last_mut().unwrap();
    failed["seats"] = json!([]);
    failed["concert_title"] = json!("");
    failed["starts_at"] = Value::Null;
    assert_eq!(lists().await, before);
    world.stores.audit().await;
}
