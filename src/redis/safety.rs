//! What Redis must be before anything is trusted to it, and what a write must have reached before it is believed.

use fred::clients::Client;
use fred::interfaces::{ClientLike, KeysInterface, ServerInterface};
use fred::types::{ClusterHash, CustomCommand, InfoKind, Value};
use futures::future::join_all;

use super::node::RedisNode;
use super::{Error, RedisClient};
use crate::partition::Partition;

/// How long a write may take to reach what it must, in milliseconds; well below the time that a command may take.
const REACH_MS: i64 = 1_000;

/// What a write must have reached before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplicationRequirement {
    /// So many replicas.
    pub replicas: u32,
    /// The append-only file of the primary, on its disk; and of so many replicas.
    pub aof: bool,
}

/// What a Redis says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisMemoryInfo {
    /// Bytes in use.
    pub used: u64,
    /// The most that it may use; 0 is no bound.
    pub max: u64,
}

impl RedisMemoryInfo {
    /// Percent in use; 0 without a bound.
    pub fn share(self) -> u64 {
        (self.used * 100).checked_div(self.max).unwrap_or(0)
    }
}

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

    /// How much memory Redis uses, and may use; of several servers the fullest.
    ///
    /// # Errors
    /// When none of them tells.
    pub async fn memory(&self) -> Result<RedisMemoryInfo, Error> {
        let map = self.servers().map();
        let told = join_all(map.nodes().iter().map(|node| async move {
            if !self.is_worth_asking(node) {
                return Err(Error::Unavailable(format!("{} is away", node.server())));
            }
            let info: String = node.client().info(Some(InfoKind::Memory)).await?;
            let number =
                |name| field(&info, name).and_then(|number| number.parse().ok()).unwrap_or(0);
            Ok(RedisMemoryInfo { used: number("used_memory"), max: number("maxmemory") })
        }))
        .await;
        let mut why = Error::Unavailable("no server is known".into());
        let mut fullest: Option<RedisMemoryInfo> = None;
        for told in told {
            match told {
                Ok(memory) if fullest.is_none_or(|known| memory.share() > known.share()) => {
                    fullest = Some(memory)
                }
                Ok(_) => {}
                Err(error) => why = error,
            }
        }
        fullest.ok_or(why)
    }

    /// Waits until what this connection wrote of a partition has reached what it must. A connection that was made anew has written nothing, so its word is not
    /// taken, nor that of a server which does not hold the partition any more.
    pub(super) async fn reached(
        &self,
        client: &Client,
        partition: Partition,
        before: Option<u64>,
    ) -> Result<(), Error> {
        let reach = self.reach();
        let told = if reach.aof {
            let args = vec![1.into(), i64::from(reach.replicas).into(), REACH_MS.into()];
            custom::<(i64, i64)>(client, "WAITAOF", args).await
        } else {
            client
                .wait(i64::from(reach.replicas), REACH_MS)
                .await
                .map(|count| (1, count))
                .map_err(Error::from)
        };
        // Also what one says that was a primary when it wrote and is a replica by now: the write may be gone.
        let (local, replicas) = told.map_err(|error| Error::Unavailable(error.to_string()))?;
        if before.is_none() || self.session(partition) != before {
            return Err(Error::Unavailable(
                "the connection was lost before the write was known to be safe".into(),
            ));
        }
        if local < i64::from(reach.aof) || replicas < i64::from(reach.replicas) {
            let lack = format!("a write reached {replicas} of {} replicas in time", reach.replicas);
            return Err(Error::Unavailable(lack));
        }
        Ok(())
    }

    /// Waits until what was read of some partitions before this call has reached what writes must reach: everything that came before a write of our own has,
    /// once that has. Answers of each partition whether it is known to.
    ///
    /// # Errors
    /// When it is known of none.
    pub async fn reads_are_safe(&self, partitions: &[Partition]) -> Result<Vec<bool>, Error> {
        if !self.waits() {
            return Ok(vec![true; partitions.len()]);
        }
        let map = self.servers().map();
        // One write a server: a stream of replication is in order.
        let waits = map.nodes().iter().map(|node| async {
            let mut held = map.held_by(node, self.keys());
            held.retain(|partition| partitions.contains(partition));
            let Some(first) = held.first().copied() else { return Ok(held) };
            let (client, session) = (node.client(), self.session(first));
            let key = self.keys().of_partition(first, "reached");
            client
                .set::<(), _, _>(key, rand::random::<u32>().to_string(), None, None, false)
                .await?;
            self.reached(client, first, session).await?;
            Ok::<_, Error>(held)
        });
        let (mut safe, mut why) = (Vec::new(), None);
        for outcome in join_all(waits).await {
            match outcome {
                Ok(held) => safe.extend(held),
                Err(error) => why = Some(error),
            }
        }
        match why {
            Some(why) if safe.is_empty() => Err(why),
            _ => Ok(partitions.iter().map(|partition| safe.contains(partition)).collect()),
        }
    }

    /// Whether writes must reach anything at all.
    pub(super) fn waits(&self) -> bool {
        self.reach() != ReplicationRequirement::default()
    }
}

async fn custom<T: fred::types::FromValue>(
    client: &Client,
    command: &'static str,
    args: Vec<Value>,
) -> Result<T, Error> {
    let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
    Ok(client.custom(command, args).await?)
}

/// One line of INFO.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
