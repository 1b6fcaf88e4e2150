//! MariaDB, for real: what it keeps, who gets in, and what it survives.

use sqlx::{Connection, Executor, MySqlConnection, Row};

use super::super::TempDir;
use super::*;

async fn text(connection: &mut MySqlConnection, query: &'static str) -> String {
    connection.fetch_one(query).await.unwrap().get(0)
}

#[tokio::test]
async fn it_keeps_its_rows_and_its_password_between_starts() {
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
async fn it_is_set_up_as_production_is() {
    let dir = TempDir::new("mysql").unwrap();
    let mysql = PrivateMysql::start(dir.path(), MysqlDurability::Keep).await.unwrap();
    let mut connection = MySqlConnection::connect(&mysql.url()).await.unwrap();
    // The variable has another name in MySQL.
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
async fn a_wrong_password_is_refused() {
    let dir = TempDir::new("mysql").unwrap();
    let mysql = PrivateMysql::start(dir.path(), MysqlDurability::Test).await.unwrap();
    for stranger in ["usher:guess", "usher", "root", "nobody"] {
        let url = format!("mysql://{stranger}@127.0.0.1:{}/usher", mysql.port());
        assert!(MySqlConnection::connect(&url).await.is_err(), "{stranger} got in");
    }
    mysql.stop().await.unwrap();
}

#[tokio::test]
async fn a_directory_too_deep_for_a_socket_is_fine() {
    let dir = TempDir::new("mysql").unwrap();
    let deep = dir.path().join("d".repeat(SOCKET_PATH_MAX));
    let mysql = PrivateMysql::start(&deep, MysqlDurability::Test).await.unwrap();
    MySqlConnection::connect(&mysql.url()).await.unwrap();
    mysql.stop().await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_said_to_be_taken() {
    let dir = TempDir::new("mysql").unwrap();
    let squatter = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = squatter.local_addr().unwrap().port();
    let outcome = PrivateMysql::start_on(dir.path(), MysqlDurability::Test, port).await;
    assert!(matches!(outcome, Err(Error::PortTaken { .. })), "{:?}", outcome.err());
}

#[tokio::test]
async fn an_unfinished_installation_is_begun_anew() {
    let dir = TempDir::new("mysql").unwrap();
    fs::create_dir(dir.path().join("data.new")).unwrap();
    fs::write(dir.path().join("data.new/ibdata1"), b"half").unwrap();
    let mysql = PrivateMysql::start(dir.path(), MysqlDurability::Test).await.unwrap();
    mysql.stop().await.unwrap();
}
