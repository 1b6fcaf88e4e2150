//! Laying Redis back from MySQL: whatever is lost, nothing is sold twice, no money goes astray, and it serves again by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::api::Guest;
use crate::support::audit::Facts;
use crate::support::resp::Reply;
use crate::support::servers::PARTITIONS;
use crate::support::{
    Answer, Api, Instance, NIGHT, SHOW, Stores, World, eventually, new_key, new_user,
};

const PRICE: i64 = 1_000;
const COUPON: &str = "spring";

/// A queue that lets everybody in at once, also right after a loss.
pub(crate) fn queue_without_window() -> Value {
    json!({"promote_per_interval": 10_000, "interval_ms": 100, "max_active": 10_000, "restore_seconds": 0})
}

/// [`SHOW`] through such a queue, a coupon and a reward.
pub(crate) async fn fair(world: &World, seats: u32) {
    world.queue(SHOW, queue_without_window()).await;
    world.concert(SHOW, crate::support::world::show(seats, PRICE)).await;
    world
        .api
        .put(&format!("/admin/coupons/{COUPON}"), &crate::coupons::payments::coupon(300, 0))
        .await
        .expect(200);
    world.everywhere(&format!("/v1/coupons/{COUPON}"), |_| true).await;
    let reward = json!({"title": "Hello", "starts_at": "2026-01-01T00:00:00Z", "ends_at": "2100-01-01T00:00:00Z", "active": true,
        "conditions": [{"fact": "reservations_confirmed", "op": ">=", "value": 1}], "reward": {"kind": "points", "amount": 50}});
    world.api.put("/admin/rewards/hello", &reward).await.expect(200);
    world.everywhere("/v1/rewards/hello", |_| true).await;
}

/// A buyer, and the requests that can be sent again.
#[derive(Debug)]
pub(crate) struct Buyer {
    pub(crate) guest: Guest,
    pub(crate) reservation: String,
    /// Each with its key and its first answer.
    charged: (String, Value),
    used: (String, Value),
    paid: (String, Value),
}

async fn use_of(api: &Api, user: &str, amount: i64, key: &str) -> Answer {
    api.post("/v1/wallet/uses").user(user).key(key).json(&json!({"amount": amount})).send().await
}

/// Charges, uses some, and buys a seat; with the coupon if asked.
pub(crate) async fn buyer(api: &Api, seat: u32, with_coupon: bool) -> Buyer {
    let guest = api.active_guest(SHOW).await;
    let (charge, usage, pay) = (new_key(), new_key(), new_key());
    let charged = api.charge_as(&guest.user, 5_000, &charge).await.expect(201);
    let used = use_of(api, &guest.user, 700, &usage).await.expect(201);
    let reservation = api.held(&guest.token, NIGHT, &[seat]).await;
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
    Buyer { guest, reservation, charged: (charge, charged), used: (usage, used), paid: (pay, paid) }
}

/// Waits until every partition has another generation than it had, and every instance serves it.
pub(crate) async fn laid_back(world: &World, had: &[String]) {
    eventually("everything is laid back", || async {
        let has = generations(&world.stores).await;
        has.iter().zip(had).all(|(has, had)| has.parse::<u64>().is_ok() && has != had).then_some(())
    })
    .await;
    serves_again(&world.api).await;
}

/// Waits until every instance serves every partition.
pub(crate) async fn serves_again(api: &Api) {
    for at in 0..api.instances() {
        let api = api.only(at);
        eventually("it serves again", || async {
            (api.get("/readyz").send().await.status == 200).then_some(())
        })
        .await;
    }
}

/// The generations that Redis shows.
pub(crate) async fn generations(stores: &Stores) -> Vec<String> {
    let mut redis = stores.redis().await;
    let mut all = Vec::new();
    for partition in 0..PARTITIONS {
        let found = redis.ask(&["GET", &stores.key(partition, "epoch")]).await;
        all.push(if found == Reply::Nil { String::new() } else { found.text() });
    }
    all
}

/// Everything of Redis that MySQL has to account for, key by key. Of records that Lua packs as maps, whose order is any, only which there are: the audit compares
/// payments and reservations field by field, and replays show the answers of keys.
async fn durable(stores: &Stores) -> BTreeMap<String, Vec<String>> {
    let mut redis = stores.redis().await;
    let mut all = BTreeMap::new();
    for key in redis.ask(&["KEYS", &format!("{}:*", stores.prefix)]).await.list() {
        let key = key.text();
        let word = key.rsplit(':').next().unwrap();
        let packed = ["payments", "reservations", "idempotency", "uses"].contains(&word);
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
            // Nothing: a tally taken back, the tombstone of an attempt that took nothing. And what whoever books lays.
            fields.retain(|field, value| value != b"0 0" && value != b"t" && field != b"capacity");
            if word == "facts" {
                // MySQL writes JSON with spaces.
                fields.values_mut().for_each(|value| value.retain(|byte| *byte != b' '));
            }
            let told = fields.into_iter();
            let told = told.map(|(field, value)| {
                format!("{field:?} {:?}", if packed { vec![] } else { value })
            });
            let told: Vec<_> = told.collect();
            if !told.is_empty() {
                all.insert(key, told);
            }
        }
    }
    all
}

pub(crate) async fn replays(api: &Api, buyer: &Buyer) {
    let user = &buyer.guest.user;
    let again = api.charge_as(user, 5_000, &buyer.charged.0).await;
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
async fn an_emptied_redis_is_laid_back_as_it_was() {
    let world = World::on(Stores::with_own_redis().await, 2).await;
    fair(&world, 40).await;
    let api = &world.api;
    let buyers = join_all((1..=12).map(|seat| buyer(api, seat, seat % 3 == 0))).await;
    // Cancelled, released, declined, claimed, told of.
    let (gone, cancelled) = (&buyers[0], new_key());
    let cancel = || {
        api.post(&format!("/v1/reservations/{}/cancel", gone.reservation))
            .user(&gone.guest.user)
            .key(&cancelled)
    };
    let first = cancel().send().await.expect(200);
    let claim = || api.post("/v1/rewards/hello/claims").user(&buyers[1].guest.user).send();
    claim().await.expect(201);
    let poor = api.active_guest(SHOW).await;
    let hold = api.held(&poor.token, NIGHT, &[30]).await;
    api.pay(&poor.token, &hold, &new_key()).await.problem(402, "insufficient_balance");
    api.delete(&format!("/v1/reservations/{hold}")).token(&poor.token).send().await.expect(204);
    api.put(&format!("/admin/users/{}/facts", poor.user), &json!({"login_days": 7}))
        .await
        .expect(200);
    let facts = world.stores.audit().await;
    let (before, had) = (durable(&world.stores).await, generations(&world.stores).await);

    world.stores.redis().await.ask(&["FLUSHALL"]).await;
    laid_back(&world, &had).await;
    assert_eq!(world.stores.audit().await, facts);
    assert_eq!(before, durable(&world.stores).await);

    join_all(buyers.iter().skip(1).map(|buyer| replays(api, buyer))).await;
    let again = cancel().send().await;
    assert_eq!((again.expect(200), again.header("idempotency-replayed")), (first, Some("true")));
    claim().await.problem(409, "already_claimed");
    // Seats that are sold stay sold, and that which was given back can be sold again.
    let late = api.active_guest(SHOW).await;
    api.hold(&late.token, NIGHT, &[2]).await.problem(409, "seat_taken");
    api.charge(&late.user, 5_000).await;
    let hold = api.held(&late.token, NIGHT, &[1]).await;
    api.pay(&late.token, &hold, &new_key()).await.expect(201);
    world.stores.audit().await;
}

async fn rush(api: &Api, from: u32, to: u32) -> Vec<(u32, Option<Answer>)> {
    join_all((from..=to).map(async |seat| {
        let call = async {
            let joined = api.join(SHOW, &new_user()).await;
            let (user, token) = (
                joined.body["user_id"].as_str()?.to_owned(),
                joined.body["token"].as_str()?.to_owned(),
            );
            let charged = api.charge_as(&user, 5_000, &new_key()).await;
            if charged.status != 201 {
                return None;
            }
            let held = api.hold(&token, NIGHT, &[seat]).await;
            Some(api.pay(&token, held.body["id"].as_str()?, &new_key()).await)
        };
        (seat, call.await)
    }))
    .await
}

fn check(facts: &Facts) {
    let confirmed = i64::try_from(facts.payments_that_are("confirmed")).unwrap();
    assert_eq!(facts.sold.len() as i64, confirmed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_emptied_again_and_again_under_load() {
    let world = World::on(Stores::with_own_redis().await, 2).await;
    fair(&world, 400).await;
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
    serves_again(api).await;
    settled(stores).await;
    check(&stores.audit().await);
}

/// Waits until what crossed partitions is settled.
pub(crate) async fn settled(stores: &Stores) {
    eventually("everything is settled", || async {
        (stores.count("SELECT COUNT(*) FROM recoveries WHERE settled_at IS NULL").await == 0)
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_redis_is_left_alone_until_somebody_says_otherwise() {
    let world = World::on(Stores::with_own_redis().await, 1).await;
    fair(&world, 10).await;
    buyer(&world.api, 1, false).await;
    world.stores.audit().await;
    let stores = world.stop().await;
    let mut redis = stores.redis().await;
    for partition in 0..PARTITIONS {
        redis.ask(&["SET", &stores.key(partition, "epoch"), "4711"]).await;
        // It goes on where ours ended, as far as numbers tell.
        let next = redis.ask(&["INCR", &stores.key(partition, "seq")]).await.int();
        let add = "return redis.call('XADD', KEYS[1], ARGV[1], 'v1', cmsgpack.pack({}))";
        redis
            .ask(&["EVAL", add, "1", &stores.key(partition, "outbox"), &format!("{next}-0")])
            .await;
    }
    let written = stores.count("SELECT CAST(SUM(n) AS SIGNED) FROM outbox_checkpoints").await;
    let before = redis.everything(&stores.prefix).await;
    let instance = Instance::start(&stores).await;
    let api = Api::new(vec![[instance.public.clone(), instance.admin.clone()]]);
    api.charge_as(&new_user(), 1, &new_key()).await.problem(503, "recovering");
    eventually("readyz says so", || async {
        (api.get("/readyz").send().await.status == 503).then_some(())
    })
    .await;
    assert_eq!(redis.everything(&stores.prefix).await, before);
    let now = stores.count("SELECT CAST(SUM(n) AS SIGNED) FROM outbox_checkpoints").await;
    assert_eq!(now, written, "MySQL takes nothing of another's outbox");
    let done = recover(&stores, &[]).await;
    assert!(done.status.success(), "{done:?}");
    assert_eq!(String::from_utf8(done.stdout).unwrap().lines().count(), 1);
    serves_again(&api).await;
    let facts = stores.audit().await;
    assert_eq!((facts.sold.len(), facts.payments_that_are("confirmed")), (1, 1));
    instance.stop().await;
}

/// Runs `usher recover`.
pub(crate) async fn recover(stores: &Stores, more: &[&str]) -> std::process::Output {
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
async fn a_partition_that_serves_is_laid_back_without_losing_what_mysql_lacks() {
    let world = World::on(Stores::with_own_redis().await, 1).await;
    fair(&world, 10).await;
    let (api, stores) = (&world.api, &world.stores);
    let first = buyer(api, 1, true).await;
    stores.audit().await;
    // With the checkpoints locked nothing comes to MySQL, so that everything that follows is in the outbox alone.
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
    laid_back(&world, &had).await;
    let facts = stores.audit().await;
    assert_eq!((facts.sold.len(), facts.payments_that_are("confirmed")), (2, 2));
    replays(api, &first).await;
    replays(api, &second).await;
    assert!(
        !recover(stores, &["--partition", "4"]).await.status.success(),
        "there is no such partition"
    );
}
