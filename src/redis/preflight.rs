//! The preflight check: how a Redis server must be configured before it is used.

use fred::interfaces::ClientLike;
use fred::types::{InfoKind, Value};

use super::cluster::RedisNode;
use super::memory::field;
use super::replication::custom;
use super::{Error, RedisClient};

impl RedisClient {
    /// Refuses a server that evicts keys (a lost seat is a seat sold twice), keeps no append-only
    /// file, lacks WAITAOF where it is required, or is a node of a cluster that is not addressed as
    /// one.
    pub(super) async fn check_server(&self, node: &RedisNode) -> Result<(), Error> {
        let client = node.client();
        // One section per command: Redis 6.2 accepts only one.
        let mut info = String::new();
        for section in
            [InfoKind::Memory, InfoKind::Persistence, InfoKind::Replication, InfoKind::Cluster]
        {
            info.push_str(&client.info::<String>(Some(section)).await?);
        }
        let server = node.server();
        if field(&info, "cluster_enabled") == Some("1") && !self.topology().is_cluster() {
            let cause = format!(
                "{server} is a node of a cluster; USHER_REDIS_URL must start with redis-cluster://"
            );
            return Err(Error::Unavailable(cause));
        }
        let mut violations = Vec::new();
        if let Some(policy) =
            field(&info, "maxmemory_policy").filter(|policy| *policy != "noeviction")
        {
            violations.push(format!("maxmemory-policy is {policy}; Usher needs noeviction"));
        }
        if field(&info, "aof_enabled") == Some("0") {
            violations.push("appendonly is off; Usher needs an append-only file".to_owned());
        }
        if self.may_forget() {
            for violation in &violations {
                tracing::warn!(%server, "{violation}; USHER_REDIS_MAY_FORGET allows it");
            }
        } else if !violations.is_empty() {
            let violations = violations.join("; ");
            return Err(Error::Unavailable(format!(
                "{violations} (USHER_REDIS_MAY_FORGET=true allows it)"
            )));
        }
        // INFO shows this line only where min-replicas-to-write is not 0.
        let has_min_replicas =
            field(&info, "min_slaves_good_slaves").is_some() || self.replication().replicas > 0;
        if self.topology().may_move() && !has_min_replicas {
            tracing::warn!(
                %server,
                "a failover may lose answered writes, and an old primary may keep answering for a \
                 while; set min-replicas-to-write in Redis, or USHER_REDIS_WAIT_REPLICAS"
            );
        }
        if self.replication().aof {
            let info: Vec<Value> =
                custom(client, "COMMAND", vec!["INFO".into(), "WAITAOF".into()]).await?;
            if info.iter().all(Value::is_null) {
                let cause = "USHER_REDIS_WAIT_AOF needs the command WAITAOF, which requires Redis \
                             7.2 or newer";
                return Err(Error::Unavailable(cause.into()));
            }
        }
        Ok(())
    }
}
