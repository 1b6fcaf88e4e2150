//! Tests with a real MariaDB: persistence, logins and restarts.

use sqlx::{Connection, Executor, MySqlConnection, Row};

use super::super::TempDir;
use super::*;

async fn text(connection: &mut MySqlConnection, query: &'static str) -> String {
    connection.fetch_one(query).await.unwrap().get(0)
}

#[tokio::test]
async fn rows_and_password_survive_a_restart() {
    let dir = TempDir::new("mysql").unwrap();
    let mysql = PrivateMysql::start(dir.path(), MysqlDurability::Test).await.unwrap();
    let mut connection = MySqlConnection::connect(&mysql.url()).await.unwrap();
    connection.execute("CREATE TABLE seats (owner VARCHAR(9))").await.unwrap();
    connection.execute("INSERT INTO seats VALUES ('잠실')").await.unwrap();
    drop(connection);
    let (port, url) = (mysql.port(), mysql.url());
    mysql.stop().await.unwrap();

    let mysql = PrivateMysql::start_on(dir.path(), MysqlDurability::Test, port).await.unwrap();
    assert_eq!(mysql.url(), url);
    let mut connection = MySqlConnection::connect(&url).await.unwrap();
    assert_eq!(text(&mut connection, "SELECT owner FROM seats").await, "잠실");
    drop(connection);
    mysql.stop().await.unwrap();
}

#[tokio::test]
async fn settings_match_production() {
    let dir = TempDir::new("mysql").unwrap();
    let mysql = PrivateMysql::start(dir.path(), MysqlDurability::Keep).await.unwrap();
    let mut connection = MySqlConnection::connect(&mysql.url()).await.unwrap();
    // MySQL and MariaDB name the variable differently.
    let isolation = connection.fetch_one("SHOW VARIABLES LIKE 't%_isolation'").await.unwrap();
    assert_eq!(isolation.get::<String, _>(1), "READ-COMMITTED");
    assert_eq!(text(&mut connection, "SELECT @@character_set_server").await, "utf8mb4");
    assert_eq!(
        text(&mut connection, "SELECT CAST(@@innodb_flush_log_at_trx_commit AS CHAR)").await,
        "1"
    );
    connection.execute("CREATE DATABASE another").await.unwrap();
    MySqlConnection::connect(&mysql.url_of("another")).await.unwrap();
    drop(connection);
    mysql.stop().await.unwrap();
}

#[tokio::test]
async fn wrong_password_is_refused() {
    let dir = TempDir::new("mysql").unwrap();
    let mysql = PrivateMysql::start(dir.path(), MysqlDurability::Test).await.unwrap();
    for credentials in ["usher:guess", "usher", "root", "guest"] {
        let url = format!("mysql://{credentials}@127.0.0.1:{}/usher", mysql.port());
        assert!(MySqlConnection::connect(&url).await.is_err(), "{credentials} logged in");
    }
    mysql.stop().await.unwrap();
}

#[tokio::test]
async fn directory_with_a_long_path_works() {
    let dir = TempDir::new("mysql").unwrap();
    let deep = dir.path().join("d".repeat(MAX_SOCKET_PATH_LENGTH));
    let mysql = PrivateMysql::start(&deep, MysqlDurability::Test).await.unwrap();
    MySqlConnection::connect(&mysql.url()).await.unwrap();
    mysql.stop().await.unwrap();
}

#[tokio::test]
async fn port_in_use_is_reported() {
    let dir = TempDir::new("mysql").unwrap();
    let squatter = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = squatter.local_addr().unwrap().port();
    let outcome = PrivateMysql::start_on(dir.path(), MysqlDurability::Test, port).await;
    assert!(matches!(outcome, Err(Error::PortTaken { .. })), "{:?}", outcome.err());
}

#[tokio::test]
async fn incomplete_installation_is_restarted() {
    let dir = TempDir::new("mysql").unwrap();
    fs::create_dir(dir.path().join("data.new")).unwrap();
    fs::write(dir.path().join("data.new/ibdata1"), b"half").unwrap();
    let mysql = PrivateMysql::start(dir.path(), MysqlDurability::Test).await.unwrap();
    mysql.stop().await.unwrap();
}
