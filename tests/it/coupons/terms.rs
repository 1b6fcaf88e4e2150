//! The terms of coupons: percent discounts, validity, and the copy of the terms in each issue.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use usher::redis::scripts;

use super::payments::{audit, coupon, issue};
use super::validity_windows::run_at;
use crate::support::resp::RespValue;
use crate::support::{
    ApiClient, ApiResponse, CONCERT, SCHEDULE, TestWorld, eventually, new_key, new_user,
    on_one_and_two,
};

const PATH: &str = "/admin/coupons/off";
const PRICE: i64 = 9_999;

on_one_and_two!(
    issue_keeps_its_terms,
    percent_is_rounded_down_and_limited,
    expired_coupon_is_refused,
    coupon_is_not_used_up_on_a_free_seat,
);

/// The coupon of [`coupon`] with other fields.
fn with(changes: &Value) -> Value {
    let mut coupon = coupon(2_000, 0);
    let fields = coupon.as_object_mut().unwrap();
    fields.extend(changes.as_object().unwrap().clone());
    fields.retain(|_, value| !value.is_null());
    coupon
}

async fn set_up(world: &TestWorld, price: i64, changes: &Value) {
    world.put_show(20, price).await;
    world.api.put(PATH, &with(changes)).await.expect(200);
    world.wait_on_every_instance("/v1/coupons/off", |_| true).await;
}

async fn pay(api: &ApiClient, token: &str, reservation: &str, issue: &str) -> ApiResponse {
    let body = json!({"reservation_id": reservation, "coupon_issue_id": issue});
    api.post("/v1/payments").token(token).key(&new_key()).json(&body).send().await
}

/// The one issue of a user, as listed.
async fn listed(api: &ApiClient, user: &str) -> Value {
    let list = api.get("/v1/coupons/issues/mine").user(user).send().await.expect(200);
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 1);
    items[0].clone()
}

async fn issue_keeps_its_terms(world: TestWorld) {
    set_up(&world, PRICE, &json!({"valid_seconds": 3_600})).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, PRICE).await;
    let id = issue(api, &guest.user).await;
    let before = listed(api, &guest.user).await;
    let time = |name: &str| before[name].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    assert_eq!(time("valid_until") - time("issued_at"), TimeDelta::seconds(3_600));
    assert_eq!(
        (&before["discount_kind"], &before["discount_amount"]),
        (&json!("amount"), &json!(2_000))
    );
    assert_eq!(
        (&before["discount_percent"], &before["discount_limit"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(before["min_available_amount"], 0);

    // Every term changes to the disadvantage of the user.
    let worse = json!({"discount_kind": "percent", "discount_amount": null, "discount_percent": 1,
        "discount_limit": 1, "min_available_amount": PRICE + 1,
        "valid_until": Utc::now() + TimeDelta::minutes(1)});
    api.put(PATH, &with(&worse)).await.expect(200);
    let shown = api.get("/v1/coupons/off").send().await.expect(200);
    assert_eq!(
        (&shown["discount_kind"], &shown["discount_percent"]),
        (&json!("percent"), &json!(1))
    );
    assert_eq!((&shown["discount_amount"], &shown["discount_limit"]), (&Value::Null, &json!(1)));
    assert_eq!(shown["valid_seconds"], Value::Null);
    let has_changed = |coupon: &Value| coupon["valid_until"] == shown["valid_until"];
    world.wait_on_every_instance("/v1/coupons/off", has_changed).await;
    let again = api.post("/v1/coupons/off/issues").user(&guest.user).send().await.expect(200);
    assert_eq!((&again, &listed(api, &guest.user).await), (&before, &before));
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    let payment = pay(api, &guest.token, &reservation, &id).await.expect(201);
    assert_eq!((&payment["discount"], &payment["paid"]), (&json!(2_000), &json!(PRICE - 2_000)));

    // A new issue has the new terms, also in the list of the operator, which reads MySQL.
    let late = new_user();
    issue(api, &late).await;
    assert_eq!(audit(&world.stores).await, 1);
    let all = api.admin_call(reqwest::Method::GET, "/admin/coupons/off/issues").send().await;
    let all = all.expect(200);
    let of = |user: &str| {
        let mut items = all["items"].as_array().unwrap().iter();
        items.find(|item| item["user_id"] == user).unwrap().clone()
    };
    assert_eq!(of(&late), listed(api, &late).await);
    assert_eq!(
        (&of(&late)["discount_percent"], &of(&late)["discount_limit"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(of(&late)["valid_until"], shown["valid_until"]);
    let used = of(&guest.user);
    assert_eq!(
        (&used["discount_amount"], &used["valid_until"]),
        (&json!(2_000), &before["valid_until"])
    );
}

async fn percent_is_rounded_down_and_limited(world: TestWorld) {
    let percent = |percent: i64, limit: Value| {
        json!({"discount_kind": "percent", "discount_amount": null, "discount_percent": percent,
            "discount_limit": limit})
    };
    set_up(&world, PRICE, &percent(15, Value::Null)).await;
    let api = &world.api;
    // 15 % of 9,999 is 1,499.85.
    for (seat, share, limit, off) in
        [(1, 15, Value::Null, 1_499), (2, 15, json!(1_000), 1_000), (3, 100, Value::Null, PRICE)]
    {
        api.put(PATH, &with(&percent(share, limit))).await.expect(200);
        let guest = api.active_user(CONCERT).await;
        if off < PRICE {
            api.charge(&guest.user, PRICE).await;
        }
        let id = issue(api, &guest.user).await;
        let reservation = api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
        let payment = pay(api, &guest.token, &reservation, &id).await.expect(201);
        assert_eq!((&payment["discount"], &payment["paid"]), (&json!(off), &json!(PRICE - off)));
        assert_eq!(audit(&world.stores).await, i64::from(seat));
    }
}

async fn expired_coupon_is_refused(world: TestWorld) {
    set_up(&world, PRICE, &json!({"valid_seconds": 1})).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, PRICE).await;
    let id = issue(api, &guest.user).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    let valid_until = listed(api, &guest.user).await["valid_until"].as_str().unwrap().to_owned();
    let valid_until: DateTime<Utc> = valid_until.parse().unwrap();
    eventually("Redis' clock reaches the end of the validity", || async {
        let now = world.stores.redis().await.ask(&["TIME"]).await.list();
        let seconds: i64 = now[0].clone().text().parse().unwrap();
        (seconds > valid_until.timestamp()).then_some(())
    })
    .await;
    for _ in 0..2 {
        pay(api, &guest.token, &reservation, &id).await.problem(422, "coupon_expired");
    }
    assert_eq!(api.balance(&guest.user).await, PRICE);
    assert_eq!(audit(&world.stores).await, 0);
    let held = api.get(&format!("/v1/reservations/{reservation}")).user(&guest.user);
    assert_eq!(held.send().await.expect(200)["status"], "held");
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);

    // A coupon that is valid until a past time is not issued.
    let starts = json!("2020-01-01T00:00:00Z");
    let past = json!({"issue_starts_at": starts, "valid_until": "2021-01-01T00:00:00Z"});
    let shown = api.put(PATH, &with(&past)).await.expect(200);
    assert_eq!(shown["status"], "ended");
    let late = api.post("/v1/coupons/off/issues").user(&new_user());
    late.send().await.problem(403, "ended");
}

async fn coupon_is_not_used_up_on_a_free_seat(world: TestWorld) {
    set_up(&world, 0, &json!({})).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    let id = issue(api, &guest.user).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    let payment = pay(api, &guest.token, &reservation, &id).await.expect(201);
    assert_eq!((&payment["paid"], &payment["discount"]), (&json!(0), &json!(0)));
    assert_eq!(listed(api, &guest.user).await["used_at"], Value::Null);
    assert_eq!(audit(&world.stores).await, 0);
    // Cancelling the free seat changes nothing about the coupon.
    let cancel = api.post(&format!("/v1/reservations/{reservation}/cancel"));
    cancel.user(&guest.user).key(&new_key()).send().await.expect(200);
    assert_eq!(audit(&world.stores).await, 0);
    // One percent of 99 is less than 1.
    let percent =
        json!({"discount_kind": "percent", "discount_amount": null, "discount_percent": 1});
    set_up(&world, 99, &percent).await;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 99).await;
    let id = issue(api, &guest.user).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[2]).await;
    let payment = pay(api, &guest.token, &reservation, &id).await.expect(201);
    assert_eq!((&payment["paid"], &payment["discount"]), (&json!(99), &json!(0)));
    assert_eq!(listed(api, &guest.user).await["used_at"], Value::Null);
    assert_eq!(audit(&world.stores).await, 0);
}

/// The end of the validity to the millisecond, and discounts that are exact where a double is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reservation_of_an_issue_is_exact() {
    const UNTIL: i64 = 2_000_000_000_000;
    const HUGE: i64 = (1 << 53) - 1;
    let world = TestWorld::start(1).await;
    let partition = world.stores.partition_of("off");
    let key = |word: &str| world.stores.key(partition, &word.replacen("c:", "c:off:", 1));
    let mut redis = world.stores.redis().await;
    let share = |percent: i64| HUGE / 100 * percent + HUGE % 100 * percent / 100;
    let percent = |percent: i64| format!("percent:{percent}::0:");
    let amount = format!("amount:5::10:{UNTIL}");
    for (nth, (terms, now, price, code, off)) in (0..).zip([
        (amount.clone(), UNTIL - 1, 10, 1, 5),
        (amount.clone(), UNTIL - 1, 9, 2, 0),
        (amount.clone(), UNTIL, 10, 4, 0),
        // Expired, whatever the price.
        (amount, UNTIL, 9, 4, 0),
        (format!("percent:50:3:0:{UNTIL}"), UNTIL - 1, 10, 1, 3),
        (percent(33), UNTIL, HUGE, 1, share(33)),
        (percent(99), UNTIL, HUGE, 1, share(99)),
        (percent(100), UNTIL, HUGE, 1, HUGE),
        (percent(7), UNTIL, HUGE - 1, 1, (HUGE - 1) / 100 * 7 + (HUGE - 1) % 100 * 7 / 100),
        (percent(1), UNTIL, 99, 1, 0),
        (percent(1), UNTIL, 100, 1, 1),
    ]) {
        let (user, id) = (format!("a-user-named-{nth:03}"), format!("an-issue-no-{nth:04}"));
        let record = format!("{id}{}:{terms}", UNTIL - 1_000);
        redis.ask(&["HSET", &key("c:issues"), &user, &record]).await;
        let args = [&user, &id, "a-payment-no-001", "1", &price.to_string()];
        let reply = run_at(&world, now, &scripts::COUPONS_RESERVE, key, &args).await;
        let words = reply[0].clone().list();
        assert_eq!(words[0], RespValue::Int(code), "{terms} of {price} at {now}");
        assert_eq!(words[1].clone().text(), off.to_string(), "{terms} of {price}");
    }
}
