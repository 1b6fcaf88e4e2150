//! What a Redis must be configured for before the service uses it.

use fred::interfaces::ClientLike;
use fred::types::{InfoKind, Value};

use super::cluster::RedisNode;
use super::memory::field;
use super::replication::custom;
use super::{Error, RedisClient};

impl RedisClient {
    /// Refuses a server that may forget: one that evicts (a lost seat is a seat sold twice) or keeps no append-only file. And one that lacks what
    /// writes are to reach, or is part of a cluster that is not asked as one.
    pub(super) async fn refuse_unsafe(&self, node: &RedisNode) -> Result<(), Error> {
        let client = node.client();
        // One section at a time, as 6.2 knows it.
        let mut info = String::new();
        for section in
            [InfoKind::Memory, InfoKind::Persistence, InfoKind::Replication, InfoKind::Cluster]
        {
            info.push_str(&client.info::<String>(Some(section)).await?);
        }
        let server = node.server();
        if field(&info, "cluster_enabled") == Some("1") && !self.servers().is_cluster() {
            let why = format!(
                "{server} is a node of a cluster: USHER_REDIS_URL must be redis-cluster://…"
            );
            return Err(Error::Unavailable(why));
        }
        let mut flaws = Vec::new();
        if let Some(policy) =
            field(&info, "maxmemory_policy").filter(|policy| *policy != "noeviction")
        {
            flaws.push(format!("maxmemory-policy is {policy}; Usher needs noeviction"));
        }
        if field(&info, "aof_enabled") == Some("0") {
            flaws.push("appendonly is off; Usher needs an append-only file".to_owned());
        }
        if self.may_forget() {
            for flaw in &flaws {
                tracing::warn!(%server, "{flaw}; USHER_REDIS_MAY_FORGET allows it");
            }
        } else if !flaws.is_empty() {
            let flaws = flaws.join("; ");
            return Err(Error::Unavailable(format!(
                "{flaws} (USHER_REDIS_MAY_FORGET=true allows it)"
            )));
        }
        // Only told where the setting is not 0.
        let guarded = field(&info, "min_slaves_good_slaves").is_some() || self.reach().replicas > 0;
        if self.servers().may_move() && !guarded {
            tracing::warn!(
                %server,
                "a failover may lose what was answered, and an old primary goes on answering for a while: set min-replicas-to-write in Redis, or USHER_REDIS_WAIT_REPLICAS"
            );
        }
        if self.reach().aof {
            let info: Vec<Value> =
                custom(client, "COMMAND", vec!["INFO".into(), "WAITAOF".into()]).await?;
            if info.iter().all(Value::is_null) {
                let why = "USHER_REDIS_WAIT_AOF needs WAITAOF, which Redis has from 7.2 on and this one lacks";
                return Err(Error::Unavailable(why.into()));
            }
        }
        Ok(())
    }
}
