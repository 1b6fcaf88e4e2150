//! Restore of Redis from MySQL: whatever is lost, no seat is sold twice, no money is lost, and
//! service resumes automatically.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::api::TestUser;
use crate::support::audit::StoreFacts;
use crate::support::resp::RespValue;
use crate::support::servers::{PARTITIONS, partition_of_user};
use crate::support::{
    ApiClient, ApiResponse, CONCERT, SCHEDULE, TestInstance, TestStores, TestWorld, eventually,
    new_key, new_user,
};

const PRICE: i64 = 1_000;
const COUPON: &str = "spring";

/// A queue that admits everyone at once, also right after a loss.
pub(crate) fn queue_without_window() -> Value {
    json!({"promote_per_interval": 10_000, "interval_ms": 100, "max_active": 10_000,
        "restore_seconds": 0})
}

/// [`CONCERT`] with such a queue, a coupon and a reward.
pub(crate) async fn open_sale(world: &TestWorld, seats: u32) {
    world.put_queue(CONCERT, queue_without_window()).await;
    world.put_concert(CONCERT, crate::support::world::concert_definition(seats, PRICE)).await;
    world
        .api
        .put(&format!("/admin/coupons/{COUPON}"), &crate::coupons::payments::coupon(300, 0))
        .await
        .expect(200);
    world.wait_on_every_instance(&format!("/v1/coupons/{COUPON}"), |_| true).await;
    let reward = json!({"title": "Hello", "starts_at": "2026-01-01T00:00:00Z",
        "ends_at": "2100-01-01T00:00:00Z", "active": true,
        "conditions": [{"fact": "reservations_confirmed", "op": ">=", "value": 1}],
        "reward": {"kind": "points", "amount": 50}});
    world.api.put("/admin/rewards/hello", &reward).await.expect(200);
    world.wait_on_every_instance("/v1/rewards/hello", |_| true).await;
}

/// A buyer, and the requests that can be repeated.
#[derive(Debug)]
pub(crate) struct TestBuyer {
    pub(crate) guest: TestUser,
    pub(crate) reservation: String,
    /// Each with its key and its first response.
    charged: (String, Value),
    used: (String, Value),
    paid: (String, Value),
}

async fn use_of(api: &ApiClient, user: &str, amount: i64, key: &str) -> ApiResponse {
    api.post("/v1/wallet/uses").user(user).key(key).json(&json!({"amount": amount})).send().await
}

/// Charges, uses some money and buys a seat, with the coupon if wanted.
pub(crate) async fn buyer(api: &ApiClient, seat: u32, with_coupon: bool) -> TestBuyer {
    let guest = api.active_user(CONCERT).await;
    let (charge, usage, pay) = (new_key(), new_key(), new_key());
    let charged = api.charge_with_key(&guest.user, 5_000, &charge).await.expect(201);
    let used = use_of(api, &guest.user, 700, &usage).await.expect(201);
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[seat]).await;
    let mut body = json!({"reservation_id": reservation});
    if with_coupon {
        let issue = api
            .post(&format!("/v1/coupons/{COUPON}/issues"))
            .user(&guest.user)
            .send()
            .await
            .expect(201);
        body["coupon_issue_id"] = issue["id"].clone();
    }
    let paid =
        api.post("/v1/payments").token(&guest.token).key(&pay).json(&body).send().await.expect(201);
    TestBuyer {
        guest,
        reservation,
        charged: (charge, charged),
        used: (usage, used),
        paid: (pay, paid),
    }
}

/// Empties Redis and waits until every instance serves what MySQL has restored.
pub(crate) async fn lose_redis(world: &TestWorld) {
    let had = generations(&world.stores).await;
    world.stores.redis().await.ask(&["FLUSHALL"]).await;
    wait_until_restored(world, &had).await;
}

/// Waits until every partition has a new epoch and every instance serves it.
pub(crate) async fn wait_until_restored(world: &TestWorld, had: &[String]) {
    eventually("every partition is restored", || async {
        let has = generations(&world.stores).await;
        has.iter().zip(had).all(|(has, had)| has.parse::<u64>().is_ok() && has != had).then_some(())
    })
    .await;
    wait_until_serving(&world.api).await;
}

/// Waits until every instance serves every partition. `/readyz` is not enough: an instance that
/// has not met the loss yet reports the epoch that it knows.
pub(crate) async fn wait_until_serving(api: &ApiClient) {
    for at in 0..api.instances() {
        let api = api.for_instance(at);
        eventually("every partition serves again", || async {
            (api.get("/readyz?strict=true").send().await.status == 200).then_some(())
        })
        .await;
        for partition in 0..PARTITIONS {
            let user = user_of_partition(partition);
            eventually("the partition serves a user", || async {
                let path = format!("/admin/users/{user}");
                (api.admin_call(Method::GET, &path).send().await.status == 200).then_some(())
            })
            .await;
        }
    }
}

fn user_of_partition(partition: u16) -> String {
    std::iter::repeat_with(new_user).find(|user| partition_of_user(user) == partition).unwrap()
}

/// The epochs in Redis.
pub(crate) async fn generations(stores: &TestStores) -> Vec<String> {
    let mut redis = stores.redis().await;
    let mut all = Vec::new();
    for partition in 0..PARTITIONS {
        let found = redis.ask(&["GET", &stores.key(partition, "epoch")]).await;
        all.push(if found == RespValue::Nil { String::new() } else { found.text() });
    }
    all
}

/// All state of Redis that MySQL has to contain, key by key. For records that Lua packs as maps, in
/// undefined order, only their existence: the audit compares payments and reservations by field,
/// and repeated requests show the stored responses.
pub(crate) async fn durable(stores: &TestStores) -> BTreeMap<String, Vec<String>> {
    let mut redis = stores.redis().await;
    let mut all = BTreeMap::new();
    for key in redis.ask(&["KEYS", &format!("{}:*", stores.prefix)]).await.list() {
        let key = key.text();
        let word = key.rsplit(':').next().unwrap();
        let packed =
            ["payments", "reservations", "idempotency", "uses", "revocable"].contains(&word);
        if packed
            || [
                "wallets",
                "wallet_ops",
                "tallies",
                "facts",
                "claims",
                "issues",
                "seats",
                "bought",
                "sales",
            ]
            .contains(&word)
        {
            let mut fields = redis.hash(&key).await;
            // Empty state: a counter back at zero, the tombstone of an attempt without effect, and
            // definitions that are published on demand.
            fields.retain(|field, value| {
                value != b"0 0"
                    && value != b"t"
                    && field != b"capacity"
                    && (word, value.as_slice()) != ("sales", b"0")
            });
            if word == "facts" {
                // MySQL writes JSON with spaces.
                fields.values_mut().for_each(|value| value.retain(|byte| *byte != b' '));
            }
            let reported = fields.into_iter();
            let reported = reported.map(|(field, value)| {
                format!("{field:?} {:?}", if packed { vec![] } else { value })
            });
            let reported: Vec<_> = reported.collect();
            if !reported.is_empty() {
                all.insert(key, reported);
            }
        }
    }
    all
}

pub(crate) async fn assert_replays(api: &ApiClient, buyer: &TestBuyer) {
    let user = &buyer.guest.user;
    let again = api.charge_with_key(user, 5_000, &buyer.charged.0).await;
    assert_eq!(
        (again.expect(201), again.header("idempotency-replayed")),
        (buyer.charged.1.clone(), Some("true"))
    );
    let again = use_of(api, user, 700, &buyer.used.0).await;
    assert_eq!(
        (again.expect(201), again.header("idempotency-replayed")),
        (buyer.used.1.clone(), Some("true"))
    );
    use_of(api, user, 701, &buyer.used.0).await.problem(422, "idempotency_key_reused");
    let mut body = json!({"reservation_id": buyer.reservation});
    if buyer.paid.1["discount"] != 0 {
        let issues = api.get("/v1/coupons/issues/mine").user(user).send().await.expect(200);
        body["coupon_issue_id"] = issues["items"][0]["id"].clone();
    }
    let pay = || api.post("/v1/payments").token(&buyer.guest.token).key(&buyer.paid.0);
    let again = pay().json(&body).send().await;
    assert_eq!(
        (again.expect(201), again.header("idempotency-replayed")),
        (buyer.paid.1.clone(), Some("true"))
    );
    let other = json!({"reservation_id": uuid::Uuid::new_v4()});
    pay().json(&other).send().await.problem(422, "idempotency_key_reused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emptied_redis_is_restored_exactly() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 2).await;
    open_sale(&world, 40).await;
    let api = &world.api;
    let buyers = join_all((1..=12).map(|seat| buyer(api, seat, seat % 3 == 0))).await;
    // Cancelled, released, declined, claimed, and with facts.
    let (gone, cancelled) = (&buyers[0], new_key());
    let cancel = || {
        api.post(&format!("/v1/reservations/{}/cancel", gone.reservation))
            .user(&gone.guest.user)
            .key(&cancelled)
    };
    let first = cancel().send().await.expect(200);
    let claim = || api.post("/v1/rewards/hello/claims").user(&buyers[1].guest.user).send();
    claim().await.expect(201);
    let poor = api.active_user(CONCERT).await;
    let hold = api.hold_seats(&poor.token, SCHEDULE, &[30]).await;
    api.pay(&poor.token, &hold, &new_key()).await.problem(402, "insufficient_balance");
    api.delete(&format!("/v1/reservations/{hold}")).token(&poor.token).send().await.expect(204);
    api.put(&format!("/admin/users/{}/facts", poor.user), &json!({"login_days": 7}))
        .await
        .expect(200);
    let facts = world.stores.audit().await;
    let before = durable(&world.stores).await;

    lose_redis(&world).await;
    assert_eq!(world.stores.audit().await, facts);
    assert_eq!(before, durable(&world.stores).await);

    join_all(buyers.iter().skip(1).map(|buyer| assert_replays(api, buyer))).await;
    let again = cancel().send().await;
    assert_eq!((again.expect(200), again.header("idempotency-replayed")), (first, Some("true")));
    claim().await.problem(409, "already_claimed");
    // Sold seats stay sold, and returned ones can be sold again.
    let late = api.active_user(CONCERT).await;
    api.hold(&late.token, SCHEDULE, &[2]).await.problem(409, "seat_taken");
    api.charge(&late.user, 5_000).await;
    let hold = api.hold_seats(&late.token, SCHEDULE, &[1]).await;
    api.pay(&late.token, &hold, &new_key()).await.expect(201);
    world.stores.audit().await;
}

async fn rush(api: &ApiClient, from: u32, to: u32) -> Vec<(u32, Option<ApiResponse>)> {
    join_all((from..=to).map(async |seat| {
        let call = async {
            let joined = api.join(CONCERT, &new_user()).await;
            let (user, token) = (
                joined.body["user_id"].as_str()?.to_owned(),
                joined.body["token"].as_str()?.to_owned(),
            );
            let charged = api.charge_with_key(&user, 5_000, &new_key()).await;
            if charged.status != 201 {
                return None;
            }
            let held = api.hold(&token, SCHEDULE, &[seat]).await;
            Some(api.pay(&token, held.body["id"].as_str()?, &new_key()).await)
        };
        (seat, call.await)
    }))
    .await
}

fn check(facts: &StoreFacts) {
    let confirmed = i64::try_from(facts.payments_that_are("confirmed")).unwrap();
    assert_eq!(facts.sold.len() as i64, confirmed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_emptied_repeatedly_under_load_loses_nothing() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 2).await;
    open_sale(&world, 400).await;
    let (api, stores) = (&world.api, &world.stores);
    let load = join_all((0..8).map(async |round| {
        tokio::time::sleep(Duration::from_millis(round * 250)).await;
        rush(api, u32::try_from(round).unwrap() * 40 + 1, u32::try_from(round).unwrap() * 40 + 40)
            .await
    }));
    let strikes = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(600)).await;
            stores.redis().await.ask(&["FLUSHALL"]).await;
        }
    };
    tokio::join!(load, strikes);
    wait_until_serving(api).await;
    wait_until_reconciled(stores).await;
    check(&stores.audit().await);
}

/// Waits until reconciliation across partitions is complete.
pub(crate) async fn wait_until_reconciled(stores: &TestStores) {
    eventually("everything is reconciled", || async {
        (stores.count("SELECT COUNT(*) FROM recoveries WHERE settled_at IS NULL").await == 0)
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_redis_is_untouched_until_the_operator_forces_it() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    open_sale(&world, 10).await;
    buyer(&world.api, 1, false).await;
    world.stores.audit().await;
    let stores = world.stop().await;
    let mut redis = stores.redis().await;
    for partition in 0..PARTITIONS {
        redis.ask(&["SET", &stores.key(partition, "epoch"), "4711"]).await;
        // It continues with the next sequence number, so the numbers reveal nothing.
        let next = redis.ask(&["INCR", &stores.key(partition, "seq")]).await.int();
        let add = "return redis.call('XADD', KEYS[1], ARGV[1], 'v1', cmsgpack.pack({}))";
        redis
            .ask(&["EVAL", add, "1", &stores.key(partition, "outbox"), &format!("{next}-0")])
            .await;
    }
    let written = stores.count("SELECT CAST(SUM(n) AS SIGNED) FROM outbox_checkpoints").await;
    let before = redis.dump_keys(&stores.prefix).await;
    let instance = TestInstance::start(&stores).await;
    let api = ApiClient::new(vec![[instance.public.clone(), instance.admin.clone()]]);
    api.charge_with_key(&new_user(), 1, &new_key()).await.problem(503, "recovering");
    eventually("/readyz reports it", || async {
        (api.get("/readyz?strict=true").send().await.status == 503).then_some(())
    })
    .await;
    assert_eq!(redis.dump_keys(&stores.prefix).await, before);
    let now = stores.count("SELECT CAST(SUM(n) AS SIGNED) FROM outbox_checkpoints").await;
    assert_eq!(now, written, "no event of the foreign outbox reaches MySQL");
    let done = recover(&stores, &[]).await;
    assert!(done.status.success(), "{done:?}");
    assert_eq!(String::from_utf8(done.stdout).unwrap().lines().count(), 1);
    wait_until_serving(&api).await;
    let facts = stores.audit().await;
    assert_eq!((facts.sold.len(), facts.payments_that_are("confirmed")), (1, 1));
    instance.stop().await;
}

/// Runs `usher recover`.
pub(crate) async fn recover(stores: &TestStores, more: &[&str]) -> std::process::Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_usher"));
    command.arg("recover").args(more).args([
        "--redis-url",
        &stores.redis_url(),
        "--mysql-url",
        &stores.mysql_url,
    ]);
    command.args(["--partitions", &PARTITIONS.to_string(), "--key-prefix", &stores.prefix]);
    command.output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restoring_a_serving_partition_keeps_unwritten_events() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    open_sale(&world, 10).await;
    let (api, stores) = (&world.api, &world.stores);
    let first = buyer(api, 1, true).await;
    stores.audit().await;
    // With locked checkpoints no event reaches MySQL, so the following events are in the outbox
    // only.
    let mut lock = stores.mysql.begin().await.unwrap();
    sqlx::query("SELECT n FROM outbox_checkpoints FOR UPDATE").fetch_all(&mut *lock).await.unwrap();
    let second = buyer(api, 2, true).await;
    let had = generations(stores).await;
    let all = join_all((0..PARTITIONS).map(|partition| async move {
        recover(stores, &["--partition", &partition.to_string()]).await
    }));
    let release = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        lock.rollback().await.unwrap();
    };
    let (all, ()) = tokio::join!(all, release);
    assert!(all.iter().all(|done| done.status.success()), "{all:?}");
    wait_until_restored(&world, &had).await;
    let facts = stores.audit().await;
    assert_eq!((facts.sold.len(), facts.payments_that_are("confirmed")), (2, 2));
    wait_until_serving(api).await;
    assert_replays(api, &first).await;
    assert_replays(api, &second).await;
    assert!(
        !recover(stores, &["--partition", "4"]).await.status.success(),
        "the partition does not exist"
    );
}
