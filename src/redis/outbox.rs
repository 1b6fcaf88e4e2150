//! The outbox streams: how the writer reads and trims them.

use std::collections::HashMap;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::StreamsInterface;
use fred::types::Value;
use futures::future::{join_all, try_join_all};

use super::cluster::NO_PATIENCE;
use super::{Error, RedisClient};
use crate::partition::Partition;

/// One entry of a partition's outbox: all events of one script call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEntry {
    /// The number in the partition's sequence; the stream id is `n-0`.
    pub n: u64,
    /// The version of the event schema. It is the name of the entry's only field.
    pub version: String,
    /// The events as MessagePack.
    pub payload: Bytes,
}

type RawOutboxEntry = (String, HashMap<String, Value>);

impl RedisClient {
    /// Reads up to `count` entries after the given number of each partition's outbox, in order.
    pub async fn outbox_read(
        &self,
        after: &[(Partition, u64)],
        count: u32,
    ) -> Result<Vec<Vec<OutboxEntry>>, Error> {
        let reads = after.iter().map(|&(partition, n)| async move {
            let key = self.keys().of_partition(partition, "outbox");
            let start = format!("{}-0", n + 1);
            let read = |client: Client| {
                let (key, start) = (key.clone(), start.clone());
                async move { client.xrange_values(key, start, "+", Some(u64::from(count))).await }
            };
            let raw: Vec<RawOutboxEntry> = self.with_owner(partition, NO_PATIENCE, read).await?;
            raw.into_iter().map(parse_entry).collect::<Result<Vec<_>, Error>>()
        });
        try_join_all(reads).await
    }

    /// Deletes the entries up to and including the given number. Call it only for what MySQL has
    /// committed.
    pub async fn outbox_trim(&self, through: &[(Partition, u64)]) -> Result<(), Error> {
        let trims = through.iter().map(|&(partition, n)| async move {
            let key = self.keys().of_partition(partition, "outbox");
            let trim = |client: Client| {
                let key = key.clone();
                async move {
                    client.xtrim::<(), _, _>(key, ("MINID", "=", format!("{}-0", n + 1))).await
                }
            };
            self.with_owner(partition, NO_PATIENCE, trim).await
        });
        try_join_all(trims).await.map(drop)
    }

    /// The number of entries in each outbox; 0 where the server does not answer.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn outbox_lengths(&self, partitions: &[Partition]) -> Result<Vec<u64>, Error> {
        let reads = partitions.iter().map(|&partition| async move {
            let key = self.keys().of_partition(partition, "outbox");
            let read = |client: Client| {
                let key = key.clone();
                async move { client.xlen::<u64, _>(key).await }
            };
            self.with_owner(partition, NO_PATIENCE, read).await
        });
        let lengths = join_all(reads).await;
        if lengths.iter().any(Result::is_ok) {
            return Ok(lengths.into_iter().map(Result::unwrap_or_default).collect());
        }
        lengths.into_iter().collect()
    }
}

fn parse_entry((id, fields): RawOutboxEntry) -> Result<OutboxEntry, Error> {
    let n = id.strip_suffix("-0").and_then(|n| n.parse().ok());
    let mut fields = fields.into_iter();
    match (n, fields.next(), fields.next()) {
        (Some(n), Some((version, value)), None) => {
            let payload = value
                .into_bytes()
                .ok_or_else(|| Error::Protocol(format!("outbox entry {id} holds no bytes")))?;
            Ok(OutboxEntry { n, version, payload })
        }
        _ => Err(Error::Protocol(format!("outbox entry {id} has an unexpected form"))),
    }
}
