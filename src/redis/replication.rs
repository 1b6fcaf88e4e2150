//! Replication: what a write must reach before it is answered (`USHER_REDIS_WAIT_REPLICAS`,
//! `USHER_REDIS_WAIT_AOF`).

use fred::clients::Client;
use fred::interfaces::{ClientLike, KeysInterface, ServerInterface};
use fred::types::{ClusterHash, CustomCommand, Value};
use futures::future::join_all;

use super::{Error, RedisClient, ReplicationRequirement};
use crate::partition::Partition;

/// How long a write may take to reach its replicas, in milliseconds. Well below the command
/// timeout.
const REPLICATION_TIMEOUT_MS: i64 = 1_000;

/// The partitions whose reads are replicated as required.
#[must_use = "MySQL must not take an entry that a failover may lose"]
#[derive(Debug)]
pub struct ReplicatedPartitions(Vec<Partition>);

impl ReplicatedPartitions {
    pub fn contains(&self, partition: Partition) -> bool {
        self.0.contains(&partition)
    }
}

impl RedisClient {
    /// Waits until what this connection wrote is replicated as required. `before` is the session in
    /// which the write was made: after a reconnection or a move the reply says nothing about that
    /// write.
    pub(super) async fn wait_for_replication(
        &self,
        client: &Client,
        partition: Partition,
        before: Option<u64>,
    ) -> Result<(), Error> {
        let required = self.replication();
        let reply = if required.aof {
            let args =
                vec![1.into(), i64::from(required.replicas).into(), REPLICATION_TIMEOUT_MS.into()];
            custom::<(i64, i64)>(client, "WAITAOF", args).await
        } else {
            client
                .wait(i64::from(required.replicas), REPLICATION_TIMEOUT_MS)
                .await
                .map(|count| (1, count))
                .map_err(Error::from)
        };
        // Any error, also that of a server that became a replica meanwhile: the write may be lost.
        let (local, replicas) = reply.map_err(|error| Error::Unavailable(error.to_string()))?;
        if before.is_none() || self.session(partition) != before {
            return Err(Error::Unavailable(
                "the connection was lost before the write was replicated".into(),
            ));
        }
        if local < i64::from(required.aof) || replicas < i64::from(required.replicas) {
            let cause =
                format!("a write reached {replicas} of {} replicas in time", required.replicas);
            return Err(Error::Unavailable(cause));
        }
        Ok(())
    }

    /// Waits until everything that was read from some partitions before this call is replicated as
    /// required. To find out, it writes one more key: replication is in order, so what came
    /// before that write is replicated once it is. Returns the
    /// partitions of which that is known.
    ///
    /// # Errors
    /// When it is known of no partition.
    pub async fn reads_are_replicated(
        &self,
        partitions: &[Partition],
    ) -> Result<ReplicatedPartitions, Error> {
        if !self.requires_replication() {
            return Ok(ReplicatedPartitions(partitions.to_vec()));
        }
        let table = self.topology().table();
        // One write per server is enough.
        let waits = table.nodes().iter().map(|node| async {
            let mut owned = table.partitions_of(node, self.keys());
            owned.retain(|partition| partitions.contains(partition));
            let Some(first) = owned.first().copied() else { return Ok(owned) };
            let (client, session) = (node.client(), self.session(first));
            let key = self.keys().of_partition(first, "reached");
            client
                .set::<(), _, _>(key, rand::random::<u32>().to_string(), None, None, false)
                .await?;
            self.wait_for_replication(client, first, session).await?;
            Ok::<_, Error>(owned)
        });
        let (mut replicated, mut cause) = (Vec::new(), None);
        for outcome in join_all(waits).await {
            match outcome {
                Ok(owned) => replicated.extend(owned),
                Err(error) => cause = Some(error),
            }
        }
        match cause {
            Some(cause) if replicated.is_empty() => Err(cause),
            _ => Ok(ReplicatedPartitions(replicated)),
        }
    }

    pub(super) fn requires_replication(&self) -> bool {
        self.replication() != ReplicationRequirement::default()
    }
}

pub(super) async fn custom<T: fred::types::FromValue>(
    client: &Client,
    command: &'static str,
    args: Vec<Value>,
) -> Result<T, Error> {
    let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
    Ok(client.custom(command, args).await?)
}
