//! What a write must have reached before it is answered.

use fred::clients::Client;
use fred::interfaces::{ClientLike, KeysInterface, ServerInterface};
use fred::types::{ClusterHash, CustomCommand, Value};
use futures::future::join_all;

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

impl RedisClient {
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

pub(super) async fn custom<T: fred::types::FromValue>(
    client: &Client,
    command: &'static str,
    args: Vec<Value>,
) -> Result<T, Error> {
    let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
    Ok(client.custom(command, args).await?)
}
