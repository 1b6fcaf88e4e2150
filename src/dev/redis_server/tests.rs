//! Tests with a real Redis: persistence and the end of the server.

use std::process::Stdio;
use std::time::Instant;

use tokio::process::Command;
use tokio::time::sleep;

use super::super::TempDir;
use super::*;

/// Names the directory when this program starts itself as an owner that is killed.
const OWNER_DIR: &str = "USHER_TEST_OWNER_DIR";

async fn ask(redis: &PrivateRedis, commands: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, redis.port())).await.unwrap();
    stream.write_all(format!("{commands}\r\nQUIT\r\n").as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

/// Sends a signal with the `kill` of the shell. Returns false when there is no such process.
fn signal(signal: &str, pid: u32) -> bool {
    let kill = format!("kill {signal} {pid} 2>/dev/null");
    std::process::Command::new("/bin/sh").args(["-c", &kill]).status().unwrap().success()
}

async fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !happened() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn data_survives_a_restart() {
    let dir = TempDir::new("redis").unwrap();
    let redis = PrivateRedis::start(dir.path()).await.unwrap();
    assert!(ask(&redis, "SET seat taken").await.starts_with("+OK"));
    redis.stop().await.unwrap();

    let redis = PrivateRedis::start(dir.path()).await.unwrap();
    assert!(ask(&redis, "GET seat").await.contains("taken"));
    redis.stop().await.unwrap();
}

#[tokio::test]
async fn append_only_file_is_synced_every_second_and_nothing_is_evicted() {
    let dir = TempDir::new("redis").unwrap();
    let redis = PrivateRedis::start(dir.path()).await.unwrap();
    let settings =
        ask(&redis, "CONFIG GET appendonly appendfsync maxmemory-policy save bind").await;
    for expected in
        ["appendonly\r\n$3\r\nyes", "everysec", "noeviction", "save\r\n$0\r\n", "127.0.0.1"]
    {
        assert!(settings.contains(expected), "{expected} is not in {settings}");
    }
    redis.stop().await.unwrap();
}

#[tokio::test]
async fn killed_server_is_noticed_and_restarts_on_its_port() {
    let dir = TempDir::new("redis").unwrap();
    let mut redis = PrivateRedis::start(dir.path()).await.unwrap();
    ask(&redis, "SET seat taken").await;
    assert!(signal("-KILL", redis.pid()));
    let error = redis.ended().await.to_string();
    assert!(error.contains("Redis ended unexpectedly") && error.contains("redis.log"), "{error}");

    let again = PrivateRedis::start_on(dir.path(), redis.port()).await.unwrap();
    assert_eq!(again.url(), redis.url());
    assert!(ask(&again, "GET seat").await.contains("taken"));
    again.stop().await.unwrap();
}

#[tokio::test]
async fn port_in_use_is_reported() {
    let (one, two) = (TempDir::new("redis").unwrap(), TempDir::new("redis").unwrap());
    let first = PrivateRedis::start(one.path()).await.unwrap();
    let second = PrivateRedis::start_on(two.path(), first.port()).await;
    assert!(matches!(second, Err(Error::PortTaken { port, .. }) if port == first.port()));
    first.stop().await.unwrap();
}

#[tokio::test]
async fn dropped_handle_stops_its_server() {
    let dir = TempDir::new("redis").unwrap();
    let redis = PrivateRedis::start(dir.path()).await.unwrap();
    let pid = redis.pid();
    drop(redis);
    wait_until("the end of the server", || !signal("-0", pid)).await;
}

/// Starts itself as another process, which starts a server and is then killed with -9.
#[tokio::test]
async fn server_ends_when_its_owner_is_killed() {
    if let Some(dir) = std::env::var_os(OWNER_DIR) {
        let redis = PrivateRedis::start(&Path::new(&dir).join("redis")).await.unwrap();
        ask(&redis, "SET seat taken").await;
        std::fs::write(Path::new(&dir).join("pid.new"), redis.pid().to_string()).unwrap();
        std::fs::rename(Path::new(&dir).join("pid.new"), Path::new(&dir).join("pid")).unwrap();
        return std::future::pending().await;
    }
    let dir = TempDir::new("owner").unwrap();
    let pid_file = dir.path().join("pid");
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "dev::redis_server::tests::server_ends_when_its_owner_is_killed"])
        .env(OWNER_DIR, dir.path())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    wait_until("the start of the server", || pid_file.exists()).await;
    let pid = std::fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    assert!(signal("-0", pid));
    owner.kill().await.unwrap();
    wait_until("the end of the server", || !signal("-0", pid)).await;

    let redis = PrivateRedis::start(&dir.path().join("redis")).await.unwrap();
    assert!(
        ask(&redis, "GET seat").await.contains("taken"),
        "the server ended without a sync of its last second"
    );
    redis.stop().await.unwrap();
}
