//! The system under measurement: one instance of the service with a private Redis and a private
//! MariaDB. Dropping the stack stops all three.

use std::path::PathBuf;
use std::time::Duration;

use usher::dev::{MysqlDurability, PrivateMysql, PrivateRedis, TempDir};
use usher::partition::PartitionCount;

use crate::redis_connection::RedisConnection;
use crate::usher_process::{ServiceAddresses, UsherInstallation, UsherProcess};
use crate::{BoxError, log_progress};

/// How long the writer may take to write all events of one scenario to MySQL.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Fields are in the order in which they must stop.
pub(crate) struct ServiceStack {
    service: UsherProcess,
    redis: PrivateRedis,
    mysql: PrivateMysql,
    _dir: TempDir,
}

impl ServiceStack {
    /// `usher` is the service binary; the default is the one in the directory of this binary.
    pub(crate) async fn start(usher: Option<PathBuf>) -> Result<Self, BoxError> {
        let dir = TempDir::new("rush")?;
        log_progress("starting Redis and MariaDB");
        let redis = PrivateRedis::start(&dir.path().join("redis")).await?;
        let mysql = PrivateMysql::start(&dir.path().join("mysql"), MysqlDurability::Keep).await?;
        log_progress("starting the service");
        let installation = UsherInstallation::migrate(usher, redis.url(), mysql.url()).await?;
        let service = installation.start_instance().await?;
        Ok(Self { service, redis, mysql, _dir: dir })
    }

    pub(crate) fn addresses(&self) -> &ServiceAddresses {
        &self.service.addresses
    }

    pub(crate) fn service_pid(&self) -> u32 {
        self.service.pid
    }

    pub(crate) fn redis_pid(&self) -> u32 {
        self.redis.pid()
    }

    pub(crate) fn mysql_pid(&self) -> u32 {
        self.mysql.pid()
    }

    pub(crate) fn redis_port(&self) -> u16 {
        self.redis.port()
    }

    pub(crate) fn mysql_url(&self) -> String {
        self.mysql.url()
    }

    /// Waits until MySQL has every event and returns how long that took.
    pub(crate) async fn wait_until_drained(
        &self,
        redis: &mut RedisConnection,
    ) -> Result<Duration, BoxError> {
        let started = tokio::time::Instant::now();
        while unwritten_events(redis)? > 0 {
            if started.elapsed() > DRAIN_TIMEOUT {
                return Err("the writer did not drain the outbox in time".into());
            }
            tokio::time::sleep(DRAIN_POLL_INTERVAL).await;
        }
        Ok(started.elapsed())
    }

    pub(crate) async fn stop(self) -> Result<(), BoxError> {
        log_progress("stopping all processes");
        self.service.kill().await?;
        let (redis, mysql) = tokio::join!(self.redis.stop(), self.mysql.stop());
        redis?;
        Ok(mysql?)
    }
}

/// Events of all partitions that MySQL does not have yet.
fn unwritten_events(redis: &mut RedisConnection) -> Result<u64, BoxError> {
    let mut sum = 0;
    // Builds with other defaults have fewer.
    for partition in PartitionCount::CLUSTER_DEFAULT.all() {
        let newest = redis.number(&format!("usher:{{{partition}}}:seq"))?;
        let written = redis.number(&format!("usher:{{{partition}}}:written"))?;
        sum += newest.saturating_sub(written);
    }
    Ok(sum)
}
