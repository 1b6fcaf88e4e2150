//! Changing the number of partitions: all state is kept, a killed run continues, and instances with
//! the old number are fenced.

use std::process::Output;
use std::time::Duration;

use futures::future::join_all;
use sqlx::mysql::MySqlPoolOptions;
use usher::config::AckSettings;
use usher::outbox::{DurabilitySettings, OutboxWriter};
use usher::partition::PartitionCount;
use usher::recovery::PartitionRecovery;
use usher::redis::{KeyBuilder, RedisClient, RedisClientSettings, ReplicationRequirement};

use crate::recovery::restore::{TestBuyer, assert_replays, buyer, open_sale, wait_until_serving};
use crate::support::servers::PARTITIONS;
use crate::support::{
    ApiClient, CONCERT, SCHEDULE, TestInstance, TestStores, TestWorld, eventually, new_key,
    new_user,
};

/// Neither a multiple nor a divisor of the usual number.
const OTHER_COUNT: u16 = 7;

/// Runs `usher repartition` while this test has no connection to the database.
async fn repartition(stores: &mut TestStores, to: u16, failpoints: &str) -> Output {
    stores.mysql.close().await;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_usher"));
    command.args(["repartition", "--partitions", &to.to_string(), "--key-prefix", &stores.prefix]);
    command.args(["--redis-url", &stores.redis_url(), "--mysql-url", &stores.mysql_url]);
    let done = command.env("FAILPOINTS", failpoints).output().await.unwrap();
    stores.mysql =
        MySqlPoolOptions::new().max_connections(4).connect_lazy(&stores.mysql_url).unwrap();
    done
}

fn output_text(done: &Output) -> String {
    [&done.stdout, &done.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

fn succeeded(done: &Output) {
    assert!(done.status.success(), "{}", output_text(done));
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    // A run that changes the number audits before that, too.
    assert_eq!(
        said.matches("\nconsistent\n").count(),
        1 + usize::from(said.starts_with("from ")),
        "{said}"
    );
}

/// An instance with a number of partitions.
async fn instance(stores: &TestStores, partitions: u16) -> (TestInstance, ApiClient) {
    let mut args = stores.args();
    args.stores.partitions = Some(partitions.to_string());
    let instance = TestInstance::start_with(&args).await;
    let api = ApiClient::new(vec![[instance.public.clone(), instance.admin.clone()]]);
    wait_until_serving(&api).await;
    (instance, api)
}

async fn buyers(api: &ApiClient, seats: std::ops::RangeInclusive<u32>) -> Vec<TestBuyer> {
    join_all(seats.map(|seat| buyer(api, seat, seat % 3 == 0))).await
}

/// Sold seats stay sold, and free seats can be bought.
async fn assert_sells(api: &ApiClient, sold: u32, free: u32) {
    let late = api.active_user(CONCERT).await;
    api.hold(&late.token, SCHEDULE, &[sold]).await.problem(409, "seat_taken");
    api.charge(&late.user, 5_000).await;
    let hold = api.hold_seats(&late.token, SCHEDULE, &[free]).await;
    api.pay(&late.token, &hold, &new_key()).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_the_count_and_back_keeps_everything() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    open_sale(&world, 40).await;
    let mut all = buyers(&world.api, 1..=6).await;
    let waiting = world.api.active_user(CONCERT).await;
    let facts = world.stores.audit().await;
    let mut stores = world.stop().await;

    let done = repartition(&mut stores, OTHER_COUNT, "").await;
    succeeded(&done);
    assert_eq!(
        stores.count("SELECT CAST(partitions AS SIGNED) FROM usher").await,
        i64::from(OTHER_COUNT)
    );
    let (instance, api) = self::instance(&stores, OTHER_COUNT).await;
    join_all(all.iter().map(|buyer| assert_replays(&api, buyer))).await;
    assert_sells(&api, 1, 20).await;
    all.extend(buyers(&api, 7..=12).await);
    // Tokens from before keep their place.
    api.join(CONCERT, &waiting.user).await;
    instance.stop().await;

    // The old setting is refused by name, and the change back restores everything.
    let old = usher::config::UsherConfig::new(&stores.args()).unwrap();
    let refused = usher::app::UsherApp::build(old, usher::shutdown::ShutdownSignal::new())
        .await
        .err()
        .unwrap();
    assert!(refused.to_string().contains("USHER_PARTITIONS"), "{refused}");
    let done = repartition(&mut stores, PARTITIONS, "").await;
    succeeded(&done);
    // The partitions above the smaller number are deleted.
    let mut redis = stores.redis().await;
    for partition in PARTITIONS..OTHER_COUNT {
        let left = redis.ask(&["KEYS", &stores.key(partition, "*")]).await.list();
        assert_eq!(left.len(), 1, "only its fence: {left:?}");
    }
    let (instance, api) = self::instance(&stores, PARTITIONS).await;
    join_all(all.iter().map(|buyer| assert_replays(&api, buyer))).await;
    assert_sells(&api, 20, 21).await;
    let after = stores.audit().await;
    assert_eq!(after.sold.len(), facts.sold.len() + 6 + 2);
    for (seat, owner) in &facts.sold {
        assert_eq!(after.sold.get(seat), Some(owner));
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repartition_killed_at_any_step_continues() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    open_sale(&world, 20).await;
    let all = buyers(&world.api, 1..=4).await;
    let facts = world.stores.audit().await;
    let mut stores = world.stop().await;
    for to in [OTHER_COUNT, PARTITIONS] {
        for (point, count) in [
            (
                "repartition.before_commit=1*return(kill)",
                if to == OTHER_COUNT { PARTITIONS } else { OTHER_COUNT },
            ),
            ("repartition.after_commit=1*return(kill)", to),
            ("recovery.before_commit=2*off->1*return(kill)", to),
        ] {
            let done = repartition(&mut stores, to, point).await;
            assert!(!done.status.success(), "{point}: {}", output_text(&done));
            let recorded = stores.count("SELECT CAST(partitions AS SIGNED) FROM usher").await;
            assert_eq!(recorded, i64::from(count), "{point}");
        }
        succeeded(&repartition(&mut stores, to, "").await);
    }
    let (instance, api) = instance(&stores, PARTITIONS).await;
    assert_eq!(stores.audit().await, facts);
    join_all(all.iter().map(|buyer| assert_replays(&api, buyer))).await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repartition_refuses_unsafe_conditions() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    open_sale(&world, 20).await;
    buyers(&world.api, 1..=2).await;
    let mut stores = world.stores;
    let done = repartition(&mut stores, OTHER_COUNT, "").await;
    assert!(
        !done.status.success() && output_text(&done).contains("stop every instance"),
        "{}",
        output_text(&done)
    );
    for instance in world.instances {
        instance.stop().await;
    }
    let letter = "INSERT INTO dead_letters (partition_id, n, version, payload, cause, buried_at) \
         VALUES (0, 1, 'v1', '', 'x', UTC_TIMESTAMP(3))";
    sqlx::query(letter).execute(&stores.mysql).await.unwrap();
    let done = repartition(&mut stores, OTHER_COUNT, "").await;
    assert!(
        !done.status.success() && output_text(&done).contains("dead-letters retry"),
        "{}",
        output_text(&done)
    );
    sqlx::query("DELETE FROM dead_letters").execute(&stores.mysql).await.unwrap();
    // Corrupt data: money that no charge explains.
    sqlx::query("UPDATE wallets SET balance = balance + 1").execute(&stores.mysql).await.unwrap();
    let done = repartition(&mut stores, OTHER_COUNT, "").await;
    assert!(
        !done.status.success() && output_text(&done).contains("not consistent"),
        "{}",
        output_text(&done)
    );
    sqlx::query("UPDATE wallets SET balance = balance - 1").execute(&stores.mysql).await.unwrap();
    assert_eq!(
        stores.count("SELECT CAST(partitions AS SIGNED) FROM usher").await,
        i64::from(PARTITIONS)
    );
    let (instance, api) = instance(&stores, PARTITIONS).await;
    assert_sells(&api, 1, 3).await;
    stores.audit().await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_instance_is_fenced_by_a_repartition() {
    let world = TestWorld::on(TestStores::with_own_redis().await, 1).await;
    open_sale(&world, 40).await;
    let all = buyers(&world.api, 1..=4).await;
    let facts = world.stores.audit().await;
    let stores = &world.stores;
    let keys = KeyBuilder::new(&stores.prefix, PartitionCount::new(PARTITIONS).unwrap());
    let settings = RedisClientSettings {
        url: stores.redis_url().into(),
        ca_file: None,
        command_timeout: Duration::from_secs(5),
        may_forget: false,
        replication: ReplicationRequirement::default(),
        kept_entries: usher::redis::KeptEntries::default(),
    };
    let redis = RedisClient::connect(&settings, keys).await.unwrap();
    let ack = AckSettings::default();
    let ack = DurabilitySettings { durable: ack.durable, patience: ack.timeout };
    let writer = OutboxWriter::new(redis.clone(), stores.mysql.clone(), ack);
    let recovery = PartitionRecovery::new(redis.clone(), stores.mysql.clone(), writer.handle());
    // The instance restores fenced partitions, and may be quicker. While it is asked, it is
    // running.
    eventually("the number is changed under a running instance", || async {
        world.api.charge_with_key(&new_user(), 10, &new_key()).await;
        recovery.repartition(PartitionCount::new(OTHER_COUNT).unwrap(), &|| ()).await.ok()
    })
    .await;
    redis.close().await;
    let (instance, api) = instance(stores, OTHER_COUNT).await;
    for _ in 0..20 {
        let late = world.api.charge_with_key(&new_user(), 10, &new_key()).await;
        assert!(late.status == 503, "{late:?}");
        api.charge_with_key(&new_user(), 10, &new_key()).await.expect(201);
        // Longer than the pause of a verifier.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    join_all(all.iter().map(|buyer| assert_replays(&api, buyer))).await;
    assert_sells(&api, 1, 20).await;
    assert_eq!(facts.sold.len(), 4);
    let mut stores = world.stop().await;
    instance.stop().await;
    succeeded(&repartition(&mut stores, PARTITIONS, "").await);
}
