//! A backup as docs/operate.md makes it, and the way back: MySQL's dump in another database, and Redis laid anew from it.

use std::path::Path;
use std::process::{Command, Stdio};

use futures::future::join_all;
use sqlx::mysql::MySqlPoolOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection};

use crate::recovery::restore::{buyer, fair, replays, serves_again};
use crate::support::{Api, Instance, NIGHT, SHOW, Stores, TempDir, World, new_key, skipped};

/// The first of some programs that is on the `PATH`.
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

/// Whether a program that makes dumps and the server are of one house: MariaDB's spells columns out that MySQL computes by itself.
async fn of_one_house(program: &str, stores: &Stores) -> bool {
    let told = Command::new(program).arg("--version").output().unwrap().stdout;
    let server: String =
        sqlx::query_scalar("SELECT VERSION()").fetch_one(&stores.mysql).await.unwrap();
    server.contains("MariaDB") == String::from_utf8_lossy(&told).contains("MariaDB")
}

/// A client's program for a database of the test's server. The password goes by the environment, as everybody can read arguments.
fn client(program: &str, stores: &Stores, database: &str) -> Command {
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

fn dump(program: &str, stores: &Stores, into: &Path) {
    let mut command = client(program, stores, &stores.prefix);
    // One moment of all tables, without holding anybody up.
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
async fn a_dump_is_restored_into_another_database_and_redis_laid_back_from_it() {
    let tools = (program(&["mariadb-dump", "mysqldump"]), program(&["mariadb", "mysql"]));
    let (Some(dumper), Some(shell)) = tools else {
        return skipped("neither mariadb-dump nor mysqldump is here (package mariadb-client)");
    };
    let stores = Stores::with_own_redis().await;
    if !of_one_house(dumper, &stores).await {
        return skipped(&format!("{dumper} makes no dumps of this server that it takes back"));
    }
    let world = World::on(stores, 1).await;
    fair(&world, 40).await;
    let before = join_all((1..=6).map(|seat| buyer(&world.api, seat, seat % 3 == 0))).await;
    let facts = world.stores.audit().await;
    let dir = TempDir::new("it-backup").unwrap();
    let file = dir.path().join("usher.sql");
    // While it serves.
    dump(dumper, &world.stores, &file);
    // What comes after the dump is lost with it.
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
    // Redis is newer than the dump, so it is emptied: nothing may be sold that MySQL does not know.
    stores.redis().await.ask(&["FLUSHALL"]).await;
    let recovered = crate::recovery::restore::recover(&stores, &[]).await;
    assert!(recovered.status.success(), "{recovered:?}");

    let instance = Instance::start(&stores).await;
    let api = Api::new(vec![[instance.public.clone(), instance.admin.clone()]]);
    serves_again(&api).await;
    assert_eq!(stores.audit().await, facts);
    join_all(before.iter().map(|buyer| replays(&api, buyer))).await;
    let late = api.active_guest(SHOW).await;
    api.charge(&late.user, 5_000).await;
    api.hold(&late.token, NIGHT, &[1]).await.problem(409, "seat_taken");
    let hold = api.held(&late.token, NIGHT, &[7]).await;
    api.pay(&late.token, &hold, &new_key()).await.expect(201);
    stores.audit().await;
    instance.stop().await;
}
