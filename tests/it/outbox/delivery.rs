//! Delivery from Redis to MySQL: no event twice, none lost, whichever process dies, also when Redis
//! loses data.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;
use usher::mysql::migrate::migrate;
use usher::partition::PartitionCount;

use crate::support::servers::PARTITIONS;
use crate::support::{
    ApiClient, CONCERT, SCHEDULE, TestInstance, TestStores, TestWorld, UsherProcess, eventually,
    new_key, new_user, on_one_and_two,
};

on_one_and_two!(mysql_matches_redis, scripts_may_be_flushed_at_any_time);

/// One user with every kind of call: charges, uses, holds, releases, declined and confirmed
/// payments.
async fn one_of_everything(api: &ApiClient, seat: u32) {
    let guest = api.active_user(CONCERT).await;
    let charged = i64::from(seat % 3) * 1_000 + 500;
    api.charge(&guest.user, charged).await;
    let uses = api.post("/v1/wallet/uses").user(&guest.user).key(&new_key());
    uses.json(&serde_json::json!({"amount": 500})).send().await.expect(201);
    let given_back = api.hold_seats(&guest.token, SCHEDULE, &[seat * 2 - 1]).await;
    api.delete(&format!("/v1/reservations/{given_back}"))
        .token(&guest.token)
        .send()
        .await
        .expect(204);
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[seat * 2 - 1, seat * 2]).await;
    let key = new_key();
    // A payment that is pending on a busy machine is repeated with the same key.
    let paid = eventually("the payment has an end", || async {
        Some(api.pay(&guest.token, &reservation, &key).await).filter(|answer| answer.status != 202)
    })
    .await;
    if charged - 500 < 2_000 {
        paid.problem(402, "insufficient_balance");
    } else {
        paid.expect(201);
    }
}

async fn mysql_matches_redis(world: TestWorld) {
    world.put_show(120, 1_000).await;
    join_all((1..=60).map(|seat| one_of_everything(&world.api, seat))).await;
    let facts = world.stores.audit().await;
    assert_eq!(facts.wallets.len(), 60);
    assert_eq!(
        (facts.payments_that_are("confirmed"), facts.payments_that_are("declined")),
        (20, 40)
    );
    assert_eq!(facts.sold.len(), 40);
    let released = facts.reservations.values().filter(|it| it.status == "released").count();
    assert_eq!(released, 60);
    // A stop drains the outbox, and the next start finds nothing to write.
    let stores = world.stop().await;
    assert_eq!(stores.audit().await, facts);
    let again = TestInstance::start(&stores).await;
    assert_eq!(stores.audit().await, facts);
    again.stop().await;
}

async fn scripts_may_be_flushed_at_any_time(world: TestWorld) {
    // On its own Redis: every flush makes the other instances verify again, which waits for tests
    // that lock the checkpoints.
    let instances = world.instances.len();
    world.stop().await;
    let world = TestWorld::on(TestStores::with_own_redis().await, instances).await;
    world.put_show(60, 1_000).await;
    let done = AtomicBool::new(false);
    let flushing = async {
        let mut redis = world.stores.redis().await;
        let user = new_user();
        while !done.load(Ordering::Relaxed) {
            redis.ask(&["SCRIPT", "FLUSH", "SYNC"]).await;
            // Flushes faster than a verification keep every request out.
            eventually("a request is served", || async {
                (world.api.charge_with_key(&user, 1, &new_key()).await.status == 201).then_some(())
            })
            .await;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let booking = async {
        join_all((1..=30).map(|seat| one_of_everything(&world.api, seat))).await;
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(flushing, booking);
    let facts = world.stores.audit().await;
    assert_eq!(
        (facts.payments_that_are("confirmed"), facts.payments_that_are("declined")),
        (10, 20)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeatedly_killed_writer_writes_everything_once() {
    let stores = TestStores::new().await;
    // The instance in this process takes the requests. The killed writers compete with its writer.
    let world = TestWorld::on(stores, 1).await;
    world.put_show(120, 1_000).await;
    let booking = join_all((1..=60).map(async |seat| {
        tokio::time::sleep(std::time::Duration::from_millis(u64::from(seat) * 25)).await;
        one_of_everything(&world.api, seat).await;
    }));
    let killing = async {
        for pause in [40, 90, 160] {
            let process = UsherProcess::start(&world.stores).await;
            tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
            process.kill().await;
        }
    };
    tokio::join!(booking, killing);
    let facts = world.stores.audit().await;
    assert_eq!(facts.wallets.len(), 60);
    // 60 charges, 60 uses, 20 payments.
    assert_eq!(world.stores.count("SELECT COUNT(*) FROM wallet_entries").await, 140);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outbox_of_a_killed_process_is_written_by_the_next() {
    let stores = TestStores::new().await;
    let process = UsherProcess::start(&stores).await;
    let api = ApiClient::new(vec![[process.public.clone(), process.admin.clone()]]);
    // With locked checkpoints no writer can commit, so everything is still in the outbox when the
    // process dies.
    let mut lock = stores.mysql.begin().await.unwrap();
    sqlx::query("SELECT n FROM outbox_checkpoints FOR UPDATE").fetch_all(&mut *lock).await.unwrap();
    let users: Vec<String> = (0..40).map(|_| new_user()).collect();
    join_all(users.iter().map(|user| api.charge(user, 700))).await;
    assert_eq!(
        stores.count("SELECT COUNT(*) FROM wallet_entries").await,
        0,
        "the lock holds the writer back"
    );
    process.kill().await;
    lock.rollback().await.unwrap();

    let instance = TestInstance::start(&stores).await;
    let facts = stores.audit().await;
    assert_eq!(facts.wallets.values().copied().collect::<Vec<_>>(), [700; 40]);
    assert_eq!(stores.count("SELECT COUNT(*) FROM wallet_entries").await, 40);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emptied_redis_sells_nothing() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    world.put_show(10, 1_000).await;
    let api = &world.api;
    let (owner, other) = (api.active_user(CONCERT).await, api.active_user(CONCERT).await);
    api.charge(&owner.user, 1_000).await;
    let reservation = api.hold_seats(&owner.token, SCHEDULE, &[1]).await;
    api.pay(&owner.token, &reservation, &new_key()).await.expect(201);
    let (user, money) = (new_user(), 5_000);
    api.charge(&user, money).await;
    world.stores.audit().await;

    // With locked checkpoints no instance can restore Redis.
    let mut lock = world.stores.mysql.begin().await.unwrap();
    sqlx::query("SELECT n FROM outbox_checkpoints FOR UPDATE").fetch_all(&mut *lock).await.unwrap();
    world.stores.redis().await.ask(&["FLUSHALL"]).await;
    let refuse = async |api: &ApiClient| {
        api.hold(&other.token, SCHEDULE, &[1]).await.problem(503, "recovering");
        api.join(CONCERT, &new_user()).await.problem(503, "recovering");
        api.pay(&other.token, &reservation, &new_key()).await.problem(503, "recovering");
        api.charge_with_key(&owner.user, 1_000, &new_key()).await.problem(503, "recovering");
        api.get("/v1/wallet").user(&user).send().await.problem(503, "recovering");
    };
    refuse(api).await;
    eventually("/readyz reports it", || async {
        let answer = api.get("/readyz?strict=true").send().await;
        (answer.status == 503).then(|| {
            let checks = answer.body["checks"].as_array().unwrap();
            let partitions = checks.iter().find(|check| check["name"] == "partitions").unwrap();
            assert_eq!((&partitions["ok"], checks[0]["ok"].as_bool()), (&false.into(), Some(true)));
        })
    })
    .await;
    // Once requests have met every partition, the instance leaves the load balancer.
    let report = eventually("all partitions recover", || async {
        api.get("/v1/wallet").user(&new_user()).send().await.problem(503, "recovering");
        let report = api.get("/readyz").send().await;
        (report.status == 503).then_some(report.body)
    })
    .await;
    assert_eq!(report["status"], "unavailable", "{report}");
    assert_eq!(api.get("/healthz").send().await.status, 200);

    // An instance that starts now sells nothing either, and MySQL is unchanged.
    let late = TestInstance::start(&world.stores).await;
    let api = ApiClient::new(vec![[late.public.clone(), late.admin.clone()]]);
    refuse(&api).await;
    assert_eq!(world.stores.redis().await.ask(&["KEYS", "*:seats"]).await.list(), []);
    assert_eq!(world.stores.count("SELECT COUNT(*) FROM reservation_seats").await, 1);
    assert_eq!(world.stores.count("SELECT CAST(SUM(balance) AS SIGNED) FROM wallets").await, money);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_of_another_installation_is_refused() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    let user = new_user();
    world.api.charge(&user, 5_000).await;
    world.stores.audit().await;
    let mut redis = world.stores.redis().await;
    for partition in 0..PARTITIONS {
        redis.ask(&["SET", &world.stores.key(partition, "epoch"), "4711"]).await;
    }
    world.api.get("/v1/wallet").user(&user).send().await.problem(503, "recovering");
    world.api.charge_with_key(&user, 1, &new_key()).await.problem(503, "recovering");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_migrations_run_once() {
    let stores = TestStores::without_schema().await;
    let partitions = PartitionCount::new(PARTITIONS).unwrap();
    let outcomes =
        join_all((0..4).map(|_| migrate(&stores.mysql, Some(partitions), partitions))).await;
    for outcome in outcomes {
        outcome.unwrap();
    }
    migrate(&stores.mysql, Some(partitions), partitions).await.unwrap();
    assert_eq!(
        stores.count("SELECT COUNT(*) FROM outbox_checkpoints").await,
        i64::from(PARTITIONS)
    );
    assert_eq!(
        stores.count("SELECT COUNT(*) FROM _sqlx_migrations WHERE success = FALSE").await,
        0
    );
    let others = PartitionCount::new(PARTITIONS + 1).unwrap();
    let other = migrate(&stores.mysql, Some(others), others).await;
    assert!(
        matches!(other, Err(usher::mysql::Error::OtherPartitions { recorded: PARTITIONS, .. })),
        "{other:?}"
    );
}
