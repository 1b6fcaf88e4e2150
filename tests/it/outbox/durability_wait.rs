//! `USHER_ACK=durable`: a response is final once MySQL has its effects, whichever instance writes
//! them. Otherwise it is 202, and nothing is lost.

use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::{MySql, Transaction};
use usher::config::args::ServeArgs;

use crate::support::{
    ApiClient, ApiResponse, CONCERT, LossTarget, SCHEDULE, StoreRelays, TestStores, TestWorld,
    eventually, new_key, new_user,
};

/// Every call that changes durable state: its name, the status of its response, and a query that
/// counts its rows in MySQL.
const CALLS: [(&str, u16, &str); 7] = [
    ("charge", 201, "SELECT COUNT(*) FROM wallet_entries WHERE kind = 'charge'"),
    ("use", 201, "SELECT COUNT(*) FROM wallet_entries WHERE kind = 'use'"),
    ("pay", 201, "SELECT COUNT(*) FROM payments WHERE status = 'confirmed'"),
    ("cancel", 200, "SELECT COUNT(*) FROM payments WHERE status = 'refunded'"),
    ("issue", 201, "SELECT COUNT(*) FROM coupon_issues"),
    ("claim", 201, "SELECT COUNT(*) FROM reward_claims"),
    ("facts", 200, "SELECT COUNT(*) FROM user_facts"),
];

/// One user's calls, under keys that stay the same.
struct DurableCalls {
    user: String,
    token: String,
    reservation: String,
    keys: [String; 4],
}

impl DurableCalls {
    /// An active user with a hold.
    async fn begin(api: &ApiClient) -> Self {
        let guest = api.active_user(CONCERT).await;
        let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
        let keys = std::array::from_fn(|_| new_key());
        Self { user: guest.user, token: guest.token, reservation, keys }
    }

    async fn call(&self, api: &ApiClient, name: &str) -> ApiResponse {
        let user = &self.user;
        let path = match name {
            "charge" => return api.charge_with_key(user, 9_000, &self.keys[0]).await,
            "use" => {
                let call = api.post("/v1/wallet/uses").user(user).key(&self.keys[1]);
                return call.json(&json!({"amount": 1_000})).send().await;
            }
            "pay" => return api.pay(&self.token, &self.reservation, &self.keys[2]).await,
            "facts" => {
                return api
                    .put(&format!("/admin/users/{user}/facts"), &json!({"login_days": 7}))
                    .await;
            }
            "cancel" => format!("/v1/reservations/{}/cancel", self.reservation),
            "issue" => "/v1/coupons/spring/issues".to_owned(),
            _ => "/v1/rewards/daily/claims".to_owned(),
        };
        api.post(&path).user(user).key(&self.keys[3]).send().await
    }
}

fn waiting(mut args: ServeArgs, ack: &str, patience_ms: u32) -> ServeArgs {
    args.stores.ack = Some(ack.to_owned());
    args.stores.ack_timeout_ms = Some(patience_ms.to_string());
    args
}

/// A sale, a coupon and a reward on a number of instances with the same durability settings.
async fn world(instances: usize, ack: &str, patience_ms: u32) -> TestWorld {
    let stores = TestStores::new().await;
    let args = waiting(stores.args(), ack, patience_ms);
    with_sale(TestWorld::with_args(stores, &vec![args; instances]).await).await
}

async fn with_sale(world: TestWorld) -> TestWorld {
    world.put_show(10, 3_000).await;
    let [from, to] = ["2020-01-01T00:00:00.000Z", "2100-01-01T00:00:00.000Z"];
    let times = |names: [&str; 2]| json!({names[0]: from, names[1]: to});
    let merged = |mut times: Value, other: Value| {
        times.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
        times
    };
    let coupon = json!({"title": "Spring", "total_quantity": 10, "discount_amount": 100,
        "min_available_amount": 100});
    let coupon = merged(times(["issue_starts_at", "issue_ends_at"]), coupon);
    world.api.put("/admin/coupons/spring", &coupon).await.expect(200);
    let reward = json!({"title": "Daily", "active": true, "conditions": [],
        "reward": {"kind": "points", "amount": 5}});
    let reward = merged(times(["starts_at", "ends_at"]), reward);
    world.api.put("/admin/rewards/daily", &reward).await.expect(200);
    world.wait_on_every_instance("/v1/coupons/spring", |_| true).await;
    world.wait_on_every_instance("/v1/rewards/daily", |_| true).await;
    world
}

/// Locks every checkpoint, so that no writer can commit.
async fn hold_writers(stores: &TestStores) -> Transaction<'static, MySql> {
    let mut lock = stores.mysql.begin().await.unwrap();
    sqlx::query("SELECT n FROM outbox_checkpoints FOR UPDATE").fetch_all(&mut *lock).await.unwrap();
    lock
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirmed_calls_are_in_mysql() {
    for instances in [1, 2] {
        let world = world(instances, "durable", 20_000).await;
        let way = DurableCalls::begin(&world.api).await;
        for (name, status, count) in CALLS {
            way.call(&world.api, name).await.expect(status);
            assert_eq!(world.stores.count(count).await, 1, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_mode_does_not_wait() {
    let world = world(1, "accepted", 20_000).await;
    let way = DurableCalls::begin(&world.api).await;
    let lock = hold_writers(&world.stores).await;
    for (name, status, count) in CALLS {
        way.call(&world.api, name).await.expect(status);
        assert_eq!(world.stores.count(count).await, 0, "{name}");
    }
    lock.rollback().await.unwrap();
    world.stores.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_write_is_202_and_final_on_retry() {
    let world = world(2, "durable", 300).await;
    let (way, other) = (DurableCalls::begin(&world.api).await, new_user());
    let lock = hold_writers(&world.stores).await;
    for name in ["charge", "use", "pay", "issue", "claim", "facts"] {
        let body = way.call(&world.api, name).await.expect(202);
        if let Some(status) = body["status"].as_str() {
            assert_eq!(status, "pending", "{name}");
        }
    }
    let payment = way.call(&world.api, "pay").await.expect(202)["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/payments/{payment}");
    let pending = world.api.get(&path).user(&way.user).send().await.expect(200);
    assert_eq!((&pending["status"], &pending["settled_at"]), (&json!("pending"), &Value::Null));
    // A refusal does not wait, and neither does a call without an effect.
    way.call(&world.api, "claim").await.problem(409, "already_claimed");
    world
        .api
        .post("/v1/wallet/uses")
        .user(&other)
        .key(&new_key())
        .json(&json!({"amount": 1}))
        .send()
        .await
        .problem(402, "insufficient_balance");
    assert_eq!(world.api.balance(&way.user).await, 9_000 - 1_000 - 3_000 + 5);

    lock.rollback().await.unwrap();
    for (name, replayed) in [("charge", true), ("use", true), ("pay", true), ("issue", false)] {
        let answer = eventually("the response is final", async || {
            let answer = way.call(&world.api, name).await;
            (answer.status != 202).then_some(answer)
        })
        .await;
        answer.expect(if name == "issue" { 200 } else { 201 });
        assert_eq!(answer.header("idempotency-replayed").is_some(), replayed, "{name}");
    }
    assert_eq!(
        world.api.get(&path).user(&way.user).send().await.expect(200)["status"],
        "confirmed"
    );
    let lock = hold_writers(&world.stores).await;
    way.call(&world.api, "cancel").await.expect(202);
    lock.rollback().await.unwrap();
    assert_eq!(way.call(&world.api, "cancel").await.expect(200)["status"], "cancelled");
    let facts = world.stores.audit().await;
    assert_eq!((facts.payments_that_are("refunded"), facts.sold.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer_on_another_instance_completes_the_wait() {
    let stores = TestStores::new().await;
    let relays = StoreRelays::before(&stores).await;
    let (mute, writing) = (relays.args(&stores), stores.args());
    let all = [waiting(mute, "durable", 20_000), waiting(writing, "durable", 20_000)];
    let world = with_sale(TestWorld::with_args(stores, &all).await).await;
    // The first instance reads MySQL as usual, but none of its flushes commits.
    relays.mysql.strike("SKIP LOCKED", LossTarget::Request, usize::MAX);
    let mute = world.api.for_instance(0);
    let way = DurableCalls::begin(&mute).await;
    for (name, status, count) in CALLS {
        way.call(&mute, name).await.expect(status);
        assert_eq!(world.stores.count(count).await, 1, "{name}");
    }
    assert!(relays.mysql.struck() > 0, "the first instance tried to write");
    // Many waiting requests share one reader.
    let before = relays.mysql.requests();
    join_all(
        (0..400).map(async |_| mute.charge_with_key(&new_user(), 10, &new_key()).await.expect(201)),
    )
    .await;
    let asked = relays.mysql.requests() - before;
    assert!(asked < 200, "{asked} requests to MySQL for 400 charges");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_mysql_responses_are_late_and_bounded() {
    let stores = TestStores::new().await;
    let relays = StoreRelays::before(&stores).await;
    let args = waiting(relays.args(&stores), "durable", 500);
    let world = with_sale(TestWorld::with_args(stores, &[args.clone(), args]).await).await;
    let way = DurableCalls::begin(&world.api).await;
    relays.mysql.down();
    for name in ["charge", "pay", "issue", "claim"] {
        way.call(&world.api, name).await.expect(202);
    }
    relays.mysql.up();
    for name in ["charge", "pay"] {
        let answer = eventually("MySQL has it", async || {
            let answer = way.call(&world.api, name).await;
            (answer.status != 202).then_some(answer)
        })
        .await;
        answer.expect(201);
    }
    let facts = world.stores.audit().await;
    assert_eq!((facts.payments_that_are("confirmed"), facts.wallets.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losing_redis_during_the_wait_leaves_the_outcome_unknown() {
    let stores = TestStores::new().await;
    let relays = StoreRelays::before(&stores).await;
    let args = waiting(relays.args(&stores), "durable", 20_000);
    let world = with_sale(TestWorld::with_args(stores, &[args]).await).await;
    let (user, key) = (new_user(), new_key());
    let lock = hold_writers(&world.stores).await;
    let (api, asked) = (world.api.clone(), (user.clone(), key.clone()));
    let waits = tokio::spawn(async move { api.charge_with_key(&asked.0, 700, &asked.1).await });
    eventually("Redis has it", || async { (world.api.balance(&user).await == 700).then_some(()) })
        .await;
    // The moment when the awaited sequences have been read is not observable. A cut before it would
    // be another case with the same response.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    relays.redis.cut();
    eventually("Redis is reached again", || async {
        (world.api.get("/v1/wallet").user(&user).send().await.status == 200).then_some(())
    })
    .await;
    lock.rollback().await.unwrap();
    waits.await.unwrap().expect(202);
    // Immediately, or when all connections are open again.
    eventually("a repeated request gets the outcome", || async {
        let answer = world.api.charge_with_key(&user, 700, &key).await;
        (answer.status == 201).then_some(())
    })
    .await;
    assert_eq!(world.stores.count("SELECT CAST(SUM(balance) AS SIGNED) FROM wallets").await, 700);
}
