//! The backup of docs/operate.md and its restore: a dump of MySQL in another database, and Redis
//! restored from it.

use std::path::Path;
use std::process::{Command, Stdio};

use futures::future::join_all;
use sqlx::mysql::MySqlPoolOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection};

use crate::recovery::restore::{assert_replays, buyer, open_sale, wait_until_serving};
use crate::support::{
    ApiClient, CONCERT, SCHEDULE, TempDir, TestInstance, TestStores, TestWorld, new_key, skipped,
};

/// The first of these programs on the `PATH`.
fn program(names: &[&'static str]) -> Option<&'static str> {
    let there = |name: &&'static str| {
        Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok()
    };
    names.iter().copied().find(there)
}

/// Whether the dump program and the server are of one vendor: MariaDB's program writes generated
/// columns in its own syntax.
async fn can_dump(program: &str, stores: &TestStores) -> bool {
    let reported = Command::new(program).arg("--version").output().unwrap().stdout;
    let server: String =
        sqlx::query_scalar("SELECT VERSION()").fetch_one(&stores.mysql).await.unwrap();
    server.contains("MariaDB") == String::from_utf8_lossy(&reported).contains("MariaDB")
}

/// A client program for a database of the test's server. The password is in the environment,
/// because arguments are visible to all users.
fn client(program: &str, stores: &TestStores, database: &str) -> Command {
    let password = stores.mysql_url.split([':', '@']).nth(2).unwrap();
    let mut command = Command::new(program);
    command.env("MYSQL_PWD", password).arg("--no-defaults").arg("--host=127.0.0.1");
    command.args([&format!("--port={}", stores.mysql_port), "--user=usher"]);
    if program.starts_with("mariadb") {
        command.arg("--skip-ssl");
    }
    command.arg(database);
    command
}

fn dump(program: &str, stores: &TestStores, into: &Path) {
    let mut command = client(program, stores, &stores.prefix);
    // A consistent snapshot of all tables, without locks.
    command.args([
        "--single-transaction",
        "--quick",
        "--skip-lock-tables",
        "--hex-blob",
        "--no-tablespaces",
    ]);
    let done = command.stdout(std::fs::File::create(into).unwrap()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dump_is_restored_into_another_database_and_redis_from_it() {
    let tools = (program(&["mariadb-dump", "mysqldump"]), program(&["mariadb", "mysql"]));
    let (Some(dumper), Some(shell)) = tools else {
        return skipped("neither mariadb-dump nor mysqldump is here (package mariadb-client)");
    };
    let stores = TestStores::with_own_redis().await;
    if !can_dump(dumper, &stores).await {
        return skipped(&format!("{dumper} cannot restore its own dumps of this server"));
    }
    let world = TestWorld::on(stores, 1).await;
    open_sale(&world, 40).await;
    let before = join_all((1..=6).map(|seat| buyer(&world.api, seat, seat % 3 == 0))).await;
    let facts = world.stores.audit().await;
    let dir = TempDir::new("it-backup").unwrap();
    let file = dir.path().join("usher.sql");
    // While the service runs.
    dump(dumper, &world.stores, &file);
    // Changes after the dump are lost.
    buyer(&world.api, 7, false).await;
    let mut stores = world.stop().await;

    let copy = format!("{}_copy", stores.prefix);
    let mut connection = MySqlConnection::connect(&stores.mysql_url).await.unwrap();
    connection.execute(AssertSqlSafe(format!("CREATE DATABASE {copy}"))).await.unwrap();
    connection.close().await.unwrap();
    let loaded =
        client(shell, &stores, &copy).stdin(std::fs::File::open(&file).unwrap()).output().unwrap();
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    stores.mysql_url =
        stores.mysql_url.replace(&format!("/{}?", stores.prefix), &format!("/{copy}?"));
    stores.mysql =
        MySqlPoolOptions::new().max_connections(4).connect_lazy(&stores.mysql_url).unwrap();
    // Redis is newer than the dump and must be emptied: MySQL would not know what Redis has sold.
    stores.redis().await.ask(&["FLUSHALL"]).await;
    let recovered = crate::recovery::restore::recover(&stores, &[]).await;
    assert!(recovered.status.success(), "{recovered:?}");

    let instance = TestInstance::start(&stores).await;
    let api = ApiClient::new(vec![[instance.public.clone(), instance.admin.clone()]]);
    wait_until_serving(&api).await;
    assert_eq!(stores.audit().await, facts);
    join_all(before.iter().map(|buyer| assert_replays(&api, buyer))).await;
    let late = api.active_user(CONCERT).await;
    api.charge(&late.user, 5_000).await;
    api.hold(&late.token, SCHEDULE, &[1]).await.problem(409, "seat_taken");
    let hold = api.hold_seats(&late.token, SCHEDULE, &[7]).await;
    api.pay(&late.token, &hold, &new_key()).await.expect(201);
    stores.audit().await;
    instance.stop().await;
}
