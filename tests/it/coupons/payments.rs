//! Coupons in payments: a discount for one payment, and unused again if the payment fails.

use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta, Utc};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::api::{ApiClient, TestUser};
use crate::support::{
    ApiResponse, CONCERT, SCHEDULE, TestStores, TestWorld, eventually, new_key, on_one_and_two,
};

pub(crate) const COUPON: &str = "off";
const PRICE: i64 = 9_000;
const OFF: i64 = 2_000;

on_one_and_two!(
    coupon_discounts_one_payment,
    inapplicable_coupon_changes_nothing,
    declined_payment_returns_its_coupon,
    coupon_is_used_by_one_of_two_payments,
    discount_never_exceeds_the_price,
    sweep_redeems_a_coupon_after_a_crash,
    overdue_payment_returns_its_coupon,
    cancelled_reservation_returns_its_coupon,
);

/// An open coupon whose users are in more than one partition.
pub(crate) fn coupon(off: i64, least: i64) -> Value {
    let text = |time: chrono::DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Millis, true);
    json!({"title": "Off", "total_quantity": null, "discount_amount": off,
        "min_available_amount": least,
        "issue_starts_at": text(Utc::now() - TimeDelta::hours(1)),
        "issue_ends_at": text(Utc::now() + TimeDelta::hours(1))})
}

async fn set_up(world: &TestWorld, off: i64, least: i64) {
    world.put_show(20, PRICE).await;
    world.api.put(&format!("/admin/coupons/{COUPON}"), &coupon(off, least)).await.expect(200);
    world.wait_on_every_instance(&format!("/v1/coupons/{COUPON}"), |_| true).await;
}

pub(crate) async fn issue(api: &ApiClient, user: &str) -> String {
    let answer = api.post(&format!("/v1/coupons/{COUPON}/issues")).user(user).send().await;
    assert!([200, 201].contains(&answer.status), "{}", answer.text);
    answer.body["id"].as_str().expect("an id").to_owned()
}

async fn pay(
    api: &ApiClient,
    token: &str,
    reservation: &str,
    issue: &str,
    key: &str,
) -> ApiResponse {
    let body = json!({"reservation_id": reservation, "coupon_issue_id": issue});
    api.post("/v1/payments").token(token).key(key).json(&body).send().await
}

/// Whether the user's one issue is used, as the API reports.
async fn is_used(api: &ApiClient, user: &str) -> bool {
    let list = api.get("/v1/coupons/issues/mine").user(user).send().await.expect(200);
    let items = list["items"].as_array().expect("a list");
    assert_eq!(items.len(), 1);
    !items[0]["used_at"].is_null()
}

/// A user with money, a coupon and a held seat.
async fn shopper(world: &TestWorld, seat: u32, money: i64) -> (TestUser, String, String) {
    let guest = world.api.active_user(CONCERT).await;
    if money > 0 {
        world.api.charge(&guest.user, money).await;
    }
    let issue = issue(&world.api, &guest.user).await;
    let reservation = world.api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
    (guest, issue, reservation)
}

/// Once everything is idle: an issue is used exactly if a confirmed payment used it, in Redis and
/// in MySQL.
pub(crate) async fn audit(stores: &TestStores) -> i64 {
    stores.audit().await;
    let used = stores.count("SELECT COUNT(*) FROM coupon_issues WHERE used_at IS NOT NULL").await;
    let matched = "SELECT COUNT(*) FROM coupon_issues i JOIN payments p ON p.id = i.payment_id \
         AND p.coupon_issue_id = i.id \
         AND p.coupon_id = i.coupon_id AND p.user_id = i.user_id WHERE p.status = 'confirmed' AND \
         i.used_at IS NOT NULL";
    assert_eq!(stores.count(matched).await, used, "used issues and the payments that used them");
    let paid =
        "SELECT COUNT(*) FROM payments WHERE status = 'confirmed' AND coupon_issue_id IS NOT NULL";
    assert_eq!(stores.count(paid).await, used, "payments with a coupon and used issues");
    let cheaper = "SELECT COUNT(*) FROM payments WHERE status = 'confirmed' AND discount > 0";
    assert_eq!(stores.count(cheaper).await, used, "discounts and used issues");
    let mut redis = stores.redis().await;
    let mut held = 0;
    for key in redis.ask(&["KEYS", &format!("{}:*:uses", stores.prefix)]).await.list() {
        held += redis.ask(&["HLEN", &key.text()]).await.int();
    }
    assert_eq!(held, used, "no failed payment keeps an issue");
    used
}

async fn coupon_discounts_one_payment(world: TestWorld) {
    set_up(&world, OFF, 5_000).await;
    let api = &world.api;
    let (guest, issue, reservation) = shopper(&world, 1, 30_000).await;
    let key = new_key();
    let twins = join_all((0..10).map(|_| pay(api, &guest.token, &reservation, &issue, &key))).await;
    for twin in &twins {
        let payment = twin.expect(201);
        let expected =
            (&json!(PRICE), &json!(OFF), &json!(PRICE - OFF), &json!(30_000 - PRICE + OFF));
        let reported =
            (&payment["amount"], &payment["discount"], &payment["paid"], &payment["balance_after"]);
        assert_eq!((reported, &payment["status"]), (expected, &json!("confirmed")));
    }
    assert!(is_used(api, &guest.user).await);
    // The same request without the coupon under the same key is a different request.
    api.pay(&guest.token, &reservation, &key).await.problem(422, "idempotency_key_reused");

    let again = api.join(CONCERT, &guest.user).await;
    let token = again.body["token"].as_str().expect("a token");
    let other = api.hold_seats(token, SCHEDULE, &[2]).await;
    pay(api, token, &other, &issue, &new_key()).await.problem(422, "coupon_not_applicable");
    let full = api.pay(token, &other, &new_key()).await.expect(201);
    assert_eq!((&full["discount"], &full["paid"]), (&json!(0), &json!(PRICE)));
    assert_eq!(audit(&world.stores).await, 1);
    let at = world
        .stores
        .count("SELECT TIMESTAMPDIFF(SECOND, issued_at, used_at) FROM coupon_issues")
        .await;
    assert!((0..60).contains(&at), "{at}");
}

async fn inapplicable_coupon_changes_nothing(world: TestWorld) {
    set_up(&world, OFF, PRICE + 1).await;
    let api = &world.api;
    let (guest, issue, reservation) = shopper(&world, 1, 30_000).await;
    let (other, others_issue, _) = shopper(&world, 2, 0).await;
    let unknown = uuid::Uuid::new_v4().to_string();
    for bad in [&issue, &others_issue, &unknown, "x", ""] {
        let key = new_key();
        for _ in 0..2 {
            let refusal = pay(api, &guest.token, &reservation, bad, &key).await;
            refusal.problem(422, "coupon_not_applicable");
        }
    }
    assert_eq!(api.balance(&guest.user).await, 30_000);
    assert!(!is_used(api, &guest.user).await && !is_used(api, &other.user).await);
    let held = api
        .get(&format!("/v1/reservations/{reservation}"))
        .user(&guest.user)
        .send()
        .await
        .expect(200);
    assert_eq!(held["status"], "held");
    assert_eq!(audit(&world.stores).await, 0);
}

async fn declined_payment_returns_its_coupon(world: TestWorld) {
    set_up(&world, OFF, 0).await;
    let api = &world.api;
    let (guest, issue, reservation) = shopper(&world, 1, PRICE - OFF - 1).await;
    let key = new_key();
    for _ in 0..3 {
        pay(api, &guest.token, &reservation, &issue, &key)
            .await
            .problem(402, "insufficient_balance");
        assert!(!is_used(api, &guest.user).await);
    }
    assert_eq!(audit(&world.stores).await, 0);
    api.charge(&guest.user, 1).await;
    // The issue can be used by another payment of another reservation, too.
    let payment = pay(api, &guest.token, &reservation, &issue, &key).await.expect(201);
    assert_eq!((&payment["paid"], &payment["balance_after"]), (&json!(PRICE - OFF), &json!(0)));
    assert_eq!(audit(&world.stores).await, 1);
}

async fn coupon_is_used_by_one_of_two_payments(world: TestWorld) {
    set_up(&world, OFF, 0).await;
    let api = &world.api;
    for round in 0..3 {
        let (guest, issue, first) = shopper(&world, 4 * round + 1, 100_000).await;
        let mut reservations = vec![first];
        for seat in 2..=4 {
            reservations.push(api.hold_seats(&guest.token, SCHEDULE, &[4 * round + seat]).await);
        }
        let keys: Vec<_> = reservations.iter().map(|_| new_key()).collect();
        let pays = reservations
            .iter()
            .zip(&keys)
            .map(|(reservation, key)| pay(api, &guest.token, reservation, &issue, key));
        let answers = join_all(pays).await;
        let paid: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
        assert_eq!(paid.len(), 1, "one issue, one payment");
        assert_eq!(paid[0].body["discount"], OFF);
        for refused in answers.iter().filter(|answer| answer.status != 201) {
            refused.problem(422, "coupon_not_applicable");
        }
        assert_eq!(api.balance(&guest.user).await, 100_000 - PRICE + OFF);
        assert_eq!(audit(&world.stores).await, i64::from(round) + 1);
    }
}

async fn discount_never_exceeds_the_price(world: TestWorld) {
    set_up(&world, 9_007_199_254_740_991, 0).await;
    let (guest, issue, reservation) = shopper(&world, 1, 0).await;
    let payment = pay(&world.api, &guest.token, &reservation, &issue, &new_key()).await.expect(201);
    assert_eq!((&payment["discount"], &payment["paid"]), (&json!(PRICE), &json!(0)));
    assert_eq!(world.api.balance(&guest.user).await, 0);
    assert_eq!(audit(&world.stores).await, 1);
}

/// As if the instance had died right after the commit point: the payment is confirmed, its coupon
/// is not redeemed.
async fn sweep_redeems_a_coupon_after_a_crash(world: TestWorld) {
    set_up(&world, OFF, 0).await;
    let (guest, issue, reservation) = shopper(&world, 1, 30_000).await;
    let payment = pay(&world.api, &guest.token, &reservation, &issue, &new_key()).await.expect(201);
    world.stores.wait_until_idle().await;
    let id: uuid::Uuid = payment["id"].as_str().expect("an id").parse().expect("an id");
    let uses = world.stores.key(world.stores.partition_of(COUPON), &format!("c:{COUPON}:uses"));
    let due = world.stores.key(world.stores.partition_of(CONCERT), &format!("q:{CONCERT}:due"));
    let undo = "redis.call('DEL', KEYS[1]) redis.call('ZADD', KEYS[2], 0, (string.gsub(ARGV[1], \
         '%x%x', function(x) return string.char(tonumber(x, 16)) end)))";
    let mut redis = world.stores.redis().await;
    redis.try_command(&["EVAL", undo, "2", &uses, &due, &id.simple().to_string()]).await;
    assert_eq!(redis.ask(&["EXISTS", &uses]).await.int(), 0, "the script ran");
    let redis = tokio::sync::Mutex::new(redis);
    eventually("the sweep redeems the coupon", || async {
        (redis.lock().await.ask(&["HLEN", &uses]).await.int() == 1).then_some(())
    })
    .await;
    assert!(is_used(&world.api, &guest.user).await);
    assert_eq!(world.api.balance(&guest.user).await, 30_000 - PRICE + OFF);
    audit(&world.stores).await;
}

/// As if the instance had died between the steps: the reserved coupon is returned, and a late
/// reservation is refused.
async fn overdue_payment_returns_its_coupon(world: TestWorld) {
    set_up(&world, OFF, 0).await;
    let api = &world.api;
    let (guest, issue, reservation) = shopper(&world, 1, 30_000).await;
    // A wallet of the wrong type stops the flow between the coupon and the debit.
    let user: uuid::Uuid = guest.user.parse().expect("a user");
    let partitions =
        usher::partition::PartitionCount::new(crate::support::servers::PARTITIONS).expect("few");
    let partition = partitions.of(usher::ids::UserId::from(user).slot()).get();
    let (ops, aside) =
        (world.stores.key(partition, "wallet_ops"), world.stores.key(partition, "aside"));
    let mut redis = world.stores.redis().await;
    redis.try_command(&["RENAME", &ops, &aside]).await;
    redis.ask(&["SET", &ops, "x"]).await;
    let answer = pay(api, &guest.token, &reservation, &issue, &new_key()).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    tokio::time::sleep(Duration::from_millis(100)).await;
    redis.ask(&["DEL", &ops]).await;
    redis.try_command(&["RENAME", &aside, &ops]).await;
    // Makes the payment due.
    let due = world.stores.key(world.stores.partition_of(CONCERT), &format!("q:{CONCERT}:due"));
    let now = "for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do redis.call('ZADD', \
         KEYS[1], 0, id) end";
    redis.try_command(&["EVAL", now, "1", &due]).await;
    world.stores.wait_until_idle().await;
    assert!(!is_used(api, &guest.user).await);
    assert_eq!(audit(&world.stores).await, 0);
    assert_eq!(api.balance(&guest.user).await, 30_000);
    let payment = pay(api, &guest.token, &reservation, &issue, &new_key()).await.expect(201);
    assert_eq!(payment["discount"], OFF);
    assert_eq!(audit(&world.stores).await, 1);
}

async fn cancelled_reservation_returns_its_coupon(world: TestWorld) {
    set_up(&world, OFF, 0).await;
    let api = &world.api;
    let (guest, issue, reservation) = shopper(&world, 1, 30_000).await;
    // Facts that a reward can check.
    let reward = json!({"title": "Twice", "starts_at": "2026-01-01T00:00:00Z",
        "ends_at": "2100-01-01T00:00:00Z",
        "conditions": [{"fact": "reservations_confirmed", "op": "==", "value": 0},
            {"fact": "paid_total", "op": "==", "value": 0}],
        "reward": {"kind": "points", "amount": 1}});
    api.put("/admin/rewards/none", &reward).await.expect(200);
    world.wait_on_every_instance("/v1/rewards/none", |_| true).await;
    let claim = async || api.post("/v1/rewards/none/claims").user(&guest.user).send().await;
    pay(api, &guest.token, &reservation, &issue, &new_key()).await.expect(201);
    assert!(is_used(api, &guest.user).await);
    claim().await.problem(403, "condition_not_met");
    let key = new_key();
    for _ in 0..2 {
        let cancel =
            api.post(&format!("/v1/reservations/{reservation}/cancel")).user(&guest.user).key(&key);
        assert_eq!(cancel.send().await.expect(200)["status"], "cancelled");
    }
    assert!(!is_used(api, &guest.user).await);
    assert_eq!(api.balance(&guest.user).await, 30_000);
    assert_eq!(audit(&world.stores).await, 0);
    claim().await.expect(201);
    let ticket = api.join(CONCERT, &guest.user).await;
    let token = ticket.body["token"].as_str().expect("a token");
    let other = api.hold_seats(token, SCHEDULE, &[2]).await;
    assert_eq!(pay(api, token, &other, &issue, &new_key()).await.expect(201)["discount"], OFF);
    assert_eq!(audit(&world.stores).await, 1);
}
