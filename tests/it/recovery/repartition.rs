//! Another count of partitions: everything stays as it was, killed anywhere it goes on, and no instance of the old count does harm.

use std::process::Output;
use std::time::Duration;

use futures::future::join_all;
use sqlx::mysql::MySqlPoolOptions;
use usher::config::AckSettings;
use usher::outbox::{DurabilitySettings, OutboxWriter};
use usher::partition::PartitionCount;
use usher::recovery::PartitionRecovery;
use usher::redis::{KeyBuilder, RedisClient, RedisClientSettings, ReplicationRequirement};

use crate::recovery::restore::{Buyer, buyer, fair, replays, serves_again};
use crate::support::servers::PARTITIONS;
use crate::support::{Api, Instance, NIGHT, SHOW, Stores, World, eventually, new_key, new_user};

/// Neither a multiple nor a divisor of the usual count.
const OTHER: u16 = 7;

/// Runs `usher repartition` while this test has no connection to the database.
async fn repartition(stores: &mut Stores, to: u16, failpoints: &str) -> Output {
    stores.mysql.close().await;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_usher"));
    command.args(["repartition", "--partitions", &to.to_string(), "--key-prefix", &stores.prefix]);
    command.args(["--redis-url", &stores.redis_url(), "--mysql-url", &stores.mysql_url]);
    let done = command.env("FAILPOINTS", failpoints).output().await.unwrap();
    stores.mysql =
        MySqlPoolOptions::new().max_connections(4).connect_lazy(&stores.mysql_url).unwrap();
    done
}

fn said(done: &Output) -> String {
    [&done.stdout, &done.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

fn succeeded(done: &Output) {
    assert!(done.status.success(), "{}", said(done));
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    // Where the count is changed it is audited before that as well.
    assert_eq!(
        said.matches("\nconsistent\n").count(),
        1 + usize::from(said.starts_with("from ")),
        "{said}"
    );
}

/// An instance of some count of partitions.
async fn instance(stores: &Stores, partitions: u16) -> (Instance, Api) {
    let mut args = stores.args();
    args.stores.partitions = Some(partitions.to_string());
    let instance = Instance::start_with(&args).await;
    let api = Api::new(vec![[instance.public.clone(), instance.admin.clone()]]);
    serves_again(&api).await;
    (instance, api)
}

async fn buyers(api: &Api, seats: std::ops::RangeInclusive<u32>) -> Vec<Buyer> {
    join_all(seats.map(|seat| buyer(api, seat, seat % 3 == 0))).await
}

/// Sold seats stay sold, and others can be bought.
async fn sells(api: &Api, sold: u32, free: u32) {
    let late = api.active_guest(SHOW).await;
    api.hold(&late.token, NIGHT, &[sold]).await.problem(409, "seat_taken");
    api.charge(&late.user, 5_000).await;
    let hold = api.held(&late.token, NIGHT, &[free]).await;
    api.pay(&late.token, &hold, &new_key()).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_as_it_was_under_another_count_and_back() {
    let world = World::on(Stores::with_own_redis().await, 1).await;
    fair(&world, 40).await;
    let mut all = buyers(&world.api, 1..=6).await;
    let waiting = world.api.active_guest(SHOW).await;
    let facts = world.stores.audit().await;
    let mut stores = world.stop().await;

    let done = repartition(&mut stores, OTHER, "").await;
    succeeded(&done);
    assert_eq!(
        stores.count("SELECT CAST(partitions AS SIGNED) FROM usher").await,
        i64::from(OTHER)
    );
    let (instance, api) = self::instance(&stores, OTHER).await;
    join_all(all.iter().map(|buyer| replays(&api, buyer))).await;
    sells(&api, 1, 20).await;
    all.extend(buyers(&api, 7..=12).await);
    // Whoever shows a token from before still has the place.
    api.join(SHOW, &waiting.user).await;
    instance.stop().await;

    // The setting of before is refused by its name, and everything comes back.
    let old = usher::config::UsherConfig::new(&stores.args()).unwrap();
    let refused = usher::app::UsherApp::build(old, usher::shutdown::ShutdownSignal::new())
        .await
        .err()
        .unwrap();
    assert!(refused.to_string().contains("USHER_PARTITIONS"), "{refused}");
    let done = repartition(&mut stores, PARTITIONS, "").await;
    succeeded(&done);
    // What the partitions beyond have left is gone.
    let mut redis = stores.redis().await;
    for partition in PARTITIONS..OTHER {
        let left = redis.ask(&["KEYS", &stores.key(partition, "*")]).await.list();
        assert_eq!(left.len(), 1, "only its bar: {left:?}");
    }
    let (instance, api) = self::instance(&stores, PARTITIONS).await;
    join_all(all.iter().map(|buyer| replays(&api, buyer))).await;
    sells(&api, 20, 21).await;
    let after = stores.audit().await;
    assert_eq!(after.sold.len(), facts.sold.len() + 6 + 2);
    for (seat, owner) in &facts.sold {
        assert_eq!(after.sold.get(seat), Some(owner));
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_anywhere_it_goes_on() {
    let world = World::on(Stores::with_own_redis().await, 1).await;
    fair(&world, 20).await;
    let all = buyers(&world.api, 1..=4).await;
    let facts = world.stores.audit().await;
    let mut stores = world.stop().await;
    for to in [OTHER, PARTITIONS] {
        for (point, count) in [
            (
                "repartition.before_commit=1*return(kill)",
                if to == OTHER { PARTITIONS } else { OTHER },
            ),
            ("repartition.after_commit=1*return(kill)", to),
            ("recovery.before_commit=2*off->1*return(kill)", to),
        ] {
            let done = repartition(&mut stores, to, point).await;
            assert!(!done.status.success(), "{point}: {}", said(&done));
            let recorded = stores.count("SELECT CAST(partitions AS SIGNED) FROM usher").await;
            assert_eq!(recorded, i64::from(count), "{point}");
        }
        succeeded(&repartition(&mut stores, to, "").await);
    }
    let (instance, api) = instance(&stores, PARTITIONS).await;
    assert_eq!(stores.audit().await, facts);
    join_all(all.iter().map(|buyer| replays(&api, buyer))).await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_refuses_what_it_must_not_do() {
    let world = World::on(Stores::with_own_redis().await, 1).await;
    fair(&world, 20).await;
    buyers(&world.api, 1..=2).await;
    let mut stores = world.stores;
    let done = repartition(&mut stores, OTHER, "").await;
    assert!(
        !done.status.success() && said(&done).contains("stop every instance"),
        "{}",
        said(&done)
    );
    for instance in world.instances {
        instance.stop().await;
    }
    let letter = "INSERT INTO dead_letters (partition_id, n, version, payload, cause, buried_at) VALUES (0, 1, 'v1', '', 'x', UTC_TIMESTAMP(3))";
    sqlx::query(letter).execute(&stores.mysql).await.unwrap();
    let done = repartition(&mut stores, OTHER, "").await;
    assert!(
        !done.status.success() && said(&done).contains("dead-letters retry"),
        "{}",
        said(&done)
    );
    sqlx::query("DELETE FROM dead_letters").execute(&stores.mysql).await.unwrap();
    // A fault in the data: money that nobody charged.
    sqlx::query("UPDATE wallets SET balance = balance + 1").execute(&stores.mysql).await.unwrap();
    let done = repartition(&mut stores, OTHER, "").await;
    assert!(!done.status.success() && said(&done).contains("not consistent"), "{}", said(&done));
    sqlx::query("UPDATE wallets SET balance = balance - 1").execute(&stores.mysql).await.unwrap();
    assert_eq!(
        stores.count("SELECT CAST(partitions AS SIGNED) FROM usher").await,
        i64::from(PARTITIONS)
    );
    let (instance, api) = instance(&stores, PARTITIONS).await;
    sells(&api, 1, 3).await;
    stores.audit().await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_was_forgotten_does_no_harm() {
    let world = World::on(Stores::with_own_redis().await, 1).await;
    fair(&world, 40).await;
    let all = buyers(&world.api, 1..=4).await;
    let facts = world.stores.audit().await;
    let stores = &world.stores;
    let keys = KeyBuilder::new(&stores.prefix, PartitionCount::new(PARTITIONS).unwrap());
    let settings = RedisClientSettings {
        url: stores.redis_url().into(),
        ca_file: None,
        command_timeout: Duration::from_secs(5),
        may_forget: false,
        reach: ReplicationRequirement::default(),
    };
    let redis = RedisClient::connect(&settings, keys).await.unwrap();
    let ack = AckSettings::default();
    let ack = DurabilitySettings { durable: ack.durable, patience: ack.patience };
    let writer = OutboxWriter::new(redis.clone(), stores.mysql.clone(), ack);
    let recovery = PartitionRecovery::new(redis.clone(), stores.mysql.clone(), writer.nudge());
    // The instance lays back what is barred, and may be quicker; and while it is asked, it is at work.
    eventually("the count is changed under a running instance", || async {
        world.api.charge_as(&new_user(), 10, &new_key()).await;
        recovery.repartition(PartitionCount::new(OTHER).unwrap(), &|| ()).await.ok()
    })
    .await;
    redis.close().await;
    let (instance, api) = instance(stores, OTHER).await;
    for _ in 0..20 {
        let late = world.api.charge_as(&new_user(), 10, &new_key()).await;
        assert!(late.status == 503, "{late:?}");
        api.charge_as(&new_user(), 10, &new_key()).await.expect(201);
        // Longer than a verifier's pause.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    join_all(all.iter().map(|buyer| replays(&api, buyer))).await;
    sells(&api, 1, 20).await;
    assert_eq!(facts.sold.len(), 4);
    let mut stores = world.stop().await;
    instance.stop().await;
    succeeded(&repartition(&mut stores, PARTITIONS, "").await);
}
