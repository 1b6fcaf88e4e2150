//! The servers of a run: one MariaDB, three Redis servers for locks, one Redis and two instances
//! for Usher, two brokers. All are private, on free ports, with temporary data.

use usher::dev::{MysqlDurability, PrivateMysql, PrivateRedis, PrivateServer, TempDir};

use crate::brokers::{self, RabbitMqServer};
use crate::usher_process::{UsherInstallation, UsherProcess};
use crate::{BoxError, log_progress};

/// Servers that Redlock uses. The other Redis locks use the first one.
const LOCK_SERVER_COUNT: usize = 3;
/// Instances per strategy, unless a strategy allows one only.
pub(crate) const INSTANCE_COUNT: usize = 2;

/// Fields are in the order in which they must stop.
pub(crate) struct StrategyServers {
    pub(crate) services: Vec<UsherProcess>,
    pub(crate) rabbitmq: Option<RabbitMqServer>,
    pub(crate) kafka: Option<PrivateServer>,
    redis: PrivateRedis,
    pub(crate) locks: Vec<PrivateRedis>,
    pub(crate) mysql: PrivateMysql,
    _dir: TempDir,
}

impl StrategyServers {
    pub(crate) async fn start() -> Result<Self, BoxError> {
        let dir = TempDir::new("strategies")?;
        log_progress("starting MariaDB, four Redis servers, RabbitMQ and Kafka");
        let mysql = PrivateMysql::start(&dir.path().join("mysql"), MysqlDurability::Keep).await?;
        let redis = PrivateRedis::start(&dir.path().join("redis")).await?;
        let mut locks = Vec::new();
        for number in 0..LOCK_SERVER_COUNT {
            locks.push(PrivateRedis::start(&dir.path().join(format!("locks{number}"))).await?);
        }
        let rabbitmq = RabbitMqServer::start(dir.path()).await?;
        let kafka = brokers::start_kafka(dir.path()).await?;
        log_progress("starting two instances of Usher");
        let installation = UsherInstallation::migrate(None, redis.url(), mysql.url()).await?;
        let mut services = Vec::new();
        for _ in 0..INSTANCE_COUNT {
            services.push(installation.start_instance().await?);
        }
        Ok(Self { services, rabbitmq, kafka, redis, locks, mysql, _dir: dir })
    }

    pub(crate) async fn stop(self) -> Result<(), BoxError> {
        log_progress("stopping all processes");
        for service in self.services {
            service.kill().await?;
        }
        if let Some(rabbitmq) = self.rabbitmq {
            rabbitmq.stop().await?;
        }
        if let Some(kafka) = self.kafka {
            // The broker exits by the signal, which counts as a failure.
            let _ = kafka.stop().await;
        }
        for redis in self.locks.into_iter().chain([self.redis]) {
            redis.stop().await?;
        }
        Ok(self.mysql.stop().await?)
    }
}
