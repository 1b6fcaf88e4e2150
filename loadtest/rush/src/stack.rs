//! What is measured: one instance of the service in a process of its own, with a private Redis and a private MariaDB, and a bare axum
//! server beside it. Everything stops when the stack is dropped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use usher::dev::{Durability, PrivateMysql, PrivateRedis, TempDir};
use usher::partition::Partitions;
use uuid::Uuid;

use crate::redis::Redis;
use crate::{Failure, progress};

/// How long the service may take to serve.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long the writer may take to bring what a scenario left in the outbox to MySQL.
const DRAIN_WITHIN: Duration = Duration::from_secs(120);
/// The pause between two looks at the outbox.
const LOOK: Duration = Duration::from_millis(50);

/// The processes of a run. The order of the fields is that in which they are stopped.
pub(crate) struct Stack {
    service: Child,
    bare: Child,
    /// One, or the nodes of a cluster.
    redis: Vec<PrivateRedis>,
    mysql: PrivateMysql,
    _dirs: [TempDir; 2],
    service_pid: u32,
    /// Where the service is asked.
    pub(crate) target: Target,
    /// The bare server, by `axum::serve` and by our own listener.
    pub(crate) bare_addresses: [SocketAddr; 2],
}

/// Where a service is asked.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The public listener.
    pub(crate) public: SocketAddr,
    /// The admin listener.
    pub(crate) admin: SocketAddr,
    /// The value of `Authorization` on the admin listener.
    pub(crate) admin_authorization: String,
}

impl Target {
    /// A service that runs already.
    pub(crate) fn new(public: SocketAddr, admin: SocketAddr, admin_key: &str) -> Self {
        Self { public, admin, admin_authorization: format!("Bearer {admin_key}") }
    }
}

impl Stack {
    /// Starts everything.
    pub(crate) async fn start(usher: Option<PathBuf>) -> Result<Self, Failure> {
        Self::start_with(usher, &[]).await
    }

    /// The same with settings of the service's that differ from the usual ones.
    pub(crate) async fn start_with(
        usher: Option<PathBuf>,
        settings: &[(&str, String)],
    ) -> Result<Self, Failure> {
        let dir = TempDir::new("rush-redis")?;
        progress("starting Redis");
        let redis = PrivateRedis::start(dir.path()).await?;
        let url = redis.url();
        Self::on(vec![redis], dir, url, usher, settings).await
    }

    /// The same on servers that run already with their data in `redis_dir`.
    pub(crate) async fn on(
        redis: Vec<PrivateRedis>,
        redis_dir: TempDir,
        redis_url: String,
        usher: Option<PathBuf>,
        settings: &[(&str, String)],
    ) -> Result<Self, Failure> {
        let own = std::env::current_exe()?;
        let usher = usher.unwrap_or_else(|| own.with_file_name("usher"));
        if !usher.is_file() {
            return Err(format!("{} is missing: build the whole workspace", usher.display()).into());
        }
        let dir = TempDir::new("rush")?;
        progress("starting MariaDB");
        let mysql = PrivateMysql::start(&dir.path().join("mysql"), Durability::Keep).await?;
        progress("starting the service");
        let admin_key = Uuid::new_v4().simple().to_string();
        let command = |word: &str| {
            let mut command = Command::new(&usher);
            command.arg(word).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null());
            command.env("USHER_MYSQL_URL", mysql.url());
            command
        };
        if !command("migrate").status().await?.success() {
            return Err("`usher migrate` failed".into());
        }
        let mut service = command("serve")
            .env("USHER_REDIS_URL", redis_url)
            .env("USHER_LISTEN", "127.0.0.1:0")
            .env("USHER_ADMIN_LISTEN", "127.0.0.1:0")
            .env("USHER_AUTH", "header")
            .env("USHER_ADMIN_KEY", &admin_key)
            .env("USHER_TOKEN_KEYS", format!("k1:{}", Uuid::new_v4().simple()))
            .env("USHER_LIMIT_USER_PER_SECOND", "0")
            .env("USHER_LOG", "json")
            .env("RUST_LOG", "info")
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stderr(Stdio::piped())
            .spawn()?;
        let log = service.stderr.take().ok_or("the service has no log")?;
        let (public, admin) = timeout(READY_WITHIN, addresses(log)).await??;
        let service_pid = service.id().ok_or("the service ended")?;
        let (bare, bare_addresses) = start_bare(&own).await?;
        Ok(Self {
            service,
            bare,
            redis,
            mysql,
            _dirs: [redis_dir, dir],
            service_pid,
            target: Target::new(public, admin, &admin_key),
            bare_addresses,
        })
    }

    /// The service's process.
    pub(crate) fn service_pid(&self) -> u32 {
        self.service_pid
    }

    /// The processes of Redis.
    pub(crate) fn redis_pids(&self) -> impl Iterator<Item = u32> {
        self.redis.iter().map(PrivateRedis::pid)
    }

    /// The port of the first Redis.
    pub(crate) fn redis_port(&self) -> u16 {
        self.redis[0].port()
    }

    /// MariaDB's process.
    pub(crate) fn mysql_pid(&self) -> u32 {
        self.mysql.pid()
    }

    /// MariaDB's database of the service.
    pub(crate) fn mysql_url(&self) -> String {
        self.mysql.url()
    }

    /// Waits until MySQL has everything, and says how long that took.
    pub(crate) async fn drained(&self, redis: &mut Redis) -> Result<Duration, Failure> {
        let started = tokio::time::Instant::now();
        while backlog(redis)? > 0 {
            if started.elapsed() > DRAIN_WITHIN {
                return Err("the outbox is not written to MySQL".into());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(started.elapsed())
    }

    /// Stops everything. The data is thrown away, so the service need not end gently.
    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        progress("stopping everything");
        self.service.kill().await?;
        self.bare.kill().await?;
        let redis = futures::future::try_join_all(self.redis.into_iter().map(PrivateRedis::stop));
        let (redis, mysql) = tokio::join!(redis, self.mysql.stop());
        redis?;
        Ok(mysql?)
    }
}

/// Entries that stand in the outboxes of all partitions.
fn backlog(redis: &mut Redis) -> Result<u64, Failure> {
    let mut sum = 0;
    for partition in Partitions::default().all() {
        sum += redis.text(&["XLEN", &format!("usher:{{{partition}}}:outbox")])?.parse::<u64>()?;
    }
    Ok(sum)
}

/// The addresses from the line of the log that tells them; the rest of the log goes on to standard error.
async fn addresses(
    log: impl AsyncRead + Unpin + Send + 'static,
) -> Result<(SocketAddr, SocketAddr), Failure> {
    let mut lines = BufReader::new(log).lines();
    while let Some(line) = lines.next_line().await? {
        let Some(found) = serving(&line) else {
            eprintln!("{line}");
            continue;
        };
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                eprintln!("{line}");
            }
        });
        return Ok(found);
    }
    Err("the service ended before it served".into())
}

fn serving(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let address = |name: &str| line[name].as_str()?.parse().ok();
    (line["message"] == "serving").then_some(())?;
    Some((address("public")?, address("admin")?))
}

async fn start_bare(own: &Path) -> Result<(Child, [SocketAddr; 2]), Failure> {
    let mut bare = Command::new(own)
        .arg("bare")
        .kill_on_drop(true)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = bare.stdout.take().ok_or("the bare server says nothing")?;
    let mut lines = BufReader::new(output).lines();
    let mut address = async || -> Result<SocketAddr, Failure> {
        Ok(lines.next_line().await?.ok_or("the bare server ended")?.parse()?)
    };
    let addresses = [address().await?, address().await?];
    Ok((bare, addresses))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_with_the_addresses_is_known() {
        let line = r#"{"level":"INFO","message":"serving","public":"127.0.0.1:1","admin":"127.0.0.1:2"}"#;
        let found = serving(line).unwrap();
        assert_eq!((found.0.port(), found.1.port()), (1, 2));
        assert_eq!(serving(r#"{"message":"stopped"}"#), None);
        assert_eq!(serving("text"), None);
    }
}
