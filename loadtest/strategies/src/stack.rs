//! The servers of a run: one MariaDB for everybody, three Redis for locks, a Redis and two processes for Usher, two brokers. All are private, on
//! free ports, with temporary data, and stop when the stack is dropped.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use usher::dev::{Durability, PrivateMysql, PrivateRedis, PrivateServer, TempDir};
use uuid::Uuid;

use crate::brokers::{self, RabbitMq};
use crate::{Failure, progress};

/// Redis that Redlock asks; the first of them keeps the other strategies' locks too.
const LOCKS: usize = 3;
/// Instances of everything that can have more than one.
pub(crate) const INSTANCES: usize = 2;
/// How long a service may take to serve.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// One instance of Usher.
pub(crate) struct Service {
    child: Child,
    /// The public listener.
    pub(crate) public: SocketAddr,
    /// The admin listener.
    pub(crate) admin: SocketAddr,
}

/// The servers. The order of the fields is that in which they are stopped.
pub(crate) struct Stack {
    pub(crate) services: Vec<Service>,
    pub(crate) rabbitmq: Option<RabbitMq>,
    pub(crate) kafka: Option<PrivateServer>,
    pub(crate) redis: PrivateRedis,
    pub(crate) locks: Vec<PrivateRedis>,
    pub(crate) mysql: PrivateMysql,
    _dir: TempDir,
    /// The value of `Authorization` on the admin listeners.
    pub(crate) authorization: String,
}

impl Stack {
    /// Starts everything.
    pub(crate) async fn start() -> Result<Self, Failure> {
        let dir = TempDir::new("strategies")?;
        progress("starting MariaDB, four Redis, RabbitMQ and Kafka");
        let mysql = PrivateMysql::start(&dir.path().join("mysql"), Durability::Keep).await?;
        let redis = PrivateRedis::start(&dir.path().join("redis")).await?;
        let mut locks = Vec::new();
        for number in 0..LOCKS {
            locks.push(PrivateRedis::start(&dir.path().join(format!("locks{number}"))).await?);
        }
        let rabbitmq = RabbitMq::start(dir.path()).await?;
        let kafka = brokers::kafka(dir.path()).await?;
        progress("starting two instances of Usher");
        let admin_key = Uuid::new_v4().simple().to_string();
        let mut services = Vec::new();
        if !usher("migrate", &mysql)?.status().await?.success() {
            return Err("`usher migrate` failed".into());
        }
        let token_keys = format!("k1:{}", Uuid::new_v4().simple());
        for _ in 0..INSTANCES {
            services.push(serve(usher("serve", &mysql)?, &redis, &admin_key, &token_keys).await?);
        }
        let authorization = format!("Bearer {admin_key}");
        Ok(Self { services, rabbitmq, kafka, redis, locks, mysql, _dir: dir, authorization })
    }

    /// Stops everything. The data is thrown away, so the services need not end gently.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        progress("stopping everything");
        for mut service in self.services {
            service.child.kill().await?;
        }
        if let Some(rabbitmq) = self.rabbitmq {
            rabbitmq.stop().await?;
        }
        if let Some(kafka) = self.kafka {
            // It ends by the signal that asks it to.
            let _ = kafka.stop().await;
        }
        for redis in self.locks.into_iter().chain([self.redis]) {
            redis.stop().await?;
        }
        Ok(self.mysql.stop().await?)
    }
}

fn usher(word: &str, mysql: &PrivateMysql) -> Result<Command, Failure> {
    let program = std::env::current_exe()?.with_file_name("usher");
    if !program.is_file() {
        return Err(format!("{} is missing: build the whole workspace", program.display()).into());
    }
    let mut command = Command::new(program);
    command.arg(word).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null());
    command.env("USHER_MYSQL_URL", mysql.url());
    Ok(command)
}

async fn serve(
    mut command: Command,
    redis: &PrivateRedis,
    admin_key: &str,
    token_keys: &str,
) -> Result<Service, Failure> {
    let mut child = command
        .env("USHER_REDIS_URL", redis.url())
        .env("USHER_LISTEN", "127.0.0.1:0")
        .env("USHER_ADMIN_LISTEN", "127.0.0.1:0")
        .env("USHER_AUTH", "header")
        .env("USHER_ADMIN_KEY", admin_key)
        .env("USHER_TOKEN_KEYS", token_keys)
        .env("USHER_LIMIT_USER_PER_SECOND", "0")
        .env("USHER_LOG", "json")
        .env("RUST_LOG", "info")
        .stderr(Stdio::piped())
        .spawn()?;
    let log = child.stderr.take().ok_or("the service has no log")?;
    let (public, admin) = timeout(READY_WITHIN, addresses(log)).await??;
    Ok(Service { child, public, admin })
}

/// The addresses from the line of the log that tells them; warnings after it go on to standard error.
async fn addresses(
    log: impl AsyncRead + Unpin + Send + 'static,
) -> Result<(SocketAddr, SocketAddr), Failure> {
    let mut lines = BufReader::new(log).lines();
    while let Some(line) = lines.next_line().await? {
        let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        if said["message"] != "serving" {
            continue;
        }
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if !line.contains("\"INFO\"") {
                    eprintln!("{line}");
                }
            }
        });
        let address =
            |name: &str| said[name].as_str().ok_or("an address is missing")?.parse().map_err(Failure::from);
        return Ok((address("public")?, address("admin")?));
    }
    Err("the service ended before it served".into())
}
