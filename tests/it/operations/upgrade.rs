//! Upgrades and a step back: old schemas and records under this release, and newer ones.

use sqlx::AssertSqlSafe;
use tokio::process::Command;

use crate::recovery::restore::{assert_replays, buyer, open_sale};
use crate::support::servers::PARTITIONS;
use crate::support::{CONCERT, SCHEDULE, TestStores, TestWorld, UsherProcess};

/// What the release before the first declared migration did not have.
const UNDO: [&str; 3] = [
    "DROP TABLE compatible_migrations",
    "ALTER TABLE reservations DROP KEY reservations_of_slot, DROP COLUMN slot",
    "DELETE FROM _sqlx_migrations WHERE version IN (48, 49)",
];

/// Runs a command on the stores. Returns whether it succeeded, and its output.
async fn usher(stores: &TestStores, words: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_usher"))
        .args(words)
        .env("USHER_REDIS_URL", stores.redis_url())
        .env("USHER_MYSQL_URL", &stores.mysql_url)
        .env("USHER_PARTITIONS", PARTITIONS.to_string())
        .env("USHER_KEY_PREFIX", &stores.prefix)
        .output()
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// The log of an instance that refuses to start.
async fn refusal(stores: &TestStores) -> String {
    let mut process = UsherProcess::spawn(stores, &[]).await;
    assert!(!process.becomes_ready().await, "the instance must not start");
    process.log()
}

async fn execute(stores: &TestStores, statement: &str) {
    sqlx::query(AssertSqlSafe(statement)).execute(&stores.mysql).await.unwrap();
}

/// Records a migration that this release does not know.
async fn add_newer_migration(stores: &TestStores, version: i64, description: &str) {
    let insert = "INSERT INTO _sqlx_migrations (version, description, installed_on, success, \
                  checksum, execution_time) VALUES (?, ?, NOW(), TRUE, X'00', 1)";
    sqlx::query(insert).bind(version).bind(description).execute(&stores.mysql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_schema_and_records_serve_after_the_migration() {
    let world = TestWorld::start(1).await;
    open_sale(&world, 10).await;
    let first = buyer(&world.api, 1, true).await;
    let facts = world.stores.audit().await;
    let stores = world.stop().await;
    for statement in UNDO {
        execute(&stores, statement).await;
    }
    let mut redis = stores.redis().await;
    for partition in 0..PARTITIONS {
        redis.ask(&["DEL", &stores.key(partition, "records")]).await;
    }

    let said = refusal(&stores).await;
    assert!(said.contains("0048 reservation slots") && said.contains("usher migrate"), "{said}");
    for _ in 0..2 {
        let (migrated, said) = usher(&stores, &["migrate"]).await;
        assert!(migrated, "{said}");
    }
    let process = UsherProcess::start(&stores).await;
    assert_eq!(stores.audit().await, facts);
    assert_replays(&process.api(), &first).await;
    buyer(&process.api(), 2, true).await;
    let expected = format!("1 {}", env!("CARGO_PKG_VERSION"));
    for partition in 0..PARTITIONS {
        let stored = redis.ask(&["GET", &stores.key(partition, "records")]).await.text();
        assert_eq!(stored, expected);
    }
    stores.audit().await;
    process.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compatible_migrations_of_a_newer_release_allow_a_step_back() {
    let world = TestWorld::start(1).await;
    open_sale(&world, 10).await;
    let first = buyer(&world.api, 1, false).await;
    world.stores.audit().await;
    let stores = world.stop().await;
    add_newer_migration(&stores, 9001, "reservation notes").await;
    execute(&stores, "ALTER TABLE reservations ADD COLUMN note VARCHAR(10) NULL").await;
    execute(&stores, "INSERT INTO compatible_migrations (version) VALUES (9001)").await;
    for _ in 0..2 {
        let (migrated, said) = usher(&stores, &["migrate"]).await;
        assert!(migrated, "{said}");
    }
    let process = UsherProcess::start(&stores).await;
    assert_replays(&process.api(), &first).await;
    buyer(&process.api(), 2, false).await;
    stores.audit().await;
    process.kill().await;

    add_newer_migration(&stores, 9002, "rename amounts").await;
    let (migrated, said) = usher(&stores, &["migrate"]).await;
    assert!(!migrated && said.contains("9002 rename amounts") && !said.contains("9001"), "{said}");
    let said = refusal(&stores).await;
    assert!(said.contains("9002 rename amounts") && !said.contains("9001"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_a_newer_release_are_refused_until_they_are_rebuilt() {
    let world = TestWorld::start(1).await;
    open_sale(&world, 10).await;
    let first = buyer(&world.api, 1, true).await;
    let facts = world.stores.audit().await;
    let stores = world.stop().await;
    let mut redis = stores.redis().await;
    let key = stores.key(stores.partition_of(CONCERT), "records");
    redis.ask(&["SET", &key, "2 9.9.9"]).await;
    let said = refusal(&stores).await;
    assert!(said.contains("version 2 (usher 9.9.9)") && said.contains("usher recover"), "{said}");
    let (audited, said) = usher(&stores, &["audit"]).await;
    assert!(!audited && said.contains("9.9.9"), "{said}");

    let (recovered, said) = usher(&stores, &["recover"]).await;
    assert!(recovered && said.contains("1 of 1 partitions"), "{said}");
    let process = UsherProcess::start(&stores).await;
    assert_eq!(stores.audit().await, facts);
    let api = process.api();
    assert_replays(&api, &first).await;
    let late = api.active_user(CONCERT).await;
    api.hold(&late.token, SCHEDULE, &[1]).await.problem(409, "seat_taken");
    assert!(redis.ask(&["GET", &key]).await.text().starts_with("1 "));
    process.kill().await;
}
