//! The outbox streams: how the writer reads them.

use std::collections::HashMap;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::StreamsInterface;
use fred::types::Value;
use futures::future::try_join_all;

use super::cluster::NO_PATIENCE;
use super::{Error, FenceMarks, RedisClient};
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

    /// The number of entries of each outbox that MySQL does not have; 0 where the server does not
    /// answer.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn outbox_backlogs(&self, partitions: &[Partition]) -> Result<Vec<u64>, Error> {
        let marks = self.fence_marks_each(partitions).await;
        if marks.iter().any(Result::is_ok) {
            let backlog = |marks: FenceMarks| marks.seq.saturating_sub(marks.written);
            return Ok(marks.into_iter().map(|marks| marks.map_or(0, backlog)).collect());
        }
        marks.into_iter().map(|marks| marks.map(|_| 0)).collect()
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
