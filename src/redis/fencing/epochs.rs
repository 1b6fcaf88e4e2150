//! Epochs: the fence between Redis and MySQL.
//!
//! The epoch of a partition is a random number, stored in MySQL (`outbox_checkpoints.generation`)
//! and in Redis (the key
//! `epoch`). Every script compares the epoch in Redis with the one that
//! this instance verified, and does nothing when they differ. During a restore the key holds a
//! *recovery fence* instead, a text that no script accepts but those of the recovery that wrote it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::KeysInterface;
use futures::future::{join_all, try_join_all};

use crate::partition::{Partition, PartitionCount};
use crate::redis::cluster::{NO_PATIENCE, READ_PATIENCE};
use crate::redis::{Error, RedisClient};

/// The verified epoch of each partition. 0, which is never a valid epoch, means that the partition
/// does not serve.
#[derive(Debug)]
pub struct PartitionEpochs(Vec<AtomicU64>);

impl PartitionEpochs {
    pub(in crate::redis) fn new(partitions: PartitionCount) -> Self {
        Self(partitions.all().map(|_| AtomicU64::new(0)).collect())
    }

    /// The epoch under which a partition serves; `None` while it does not.
    pub fn get(&self, partition: Partition) -> Option<u64> {
        match self.0[usize::from(partition.get())].load(Ordering::Acquire) {
            0 => None,
            epoch => Some(epoch),
        }
    }

    /// Lets a partition serve under a verified epoch.
    pub fn open(&self, partition: Partition, epoch: u64) {
        self.0[usize::from(partition.get())].store(epoch, Ordering::Release);
    }

    /// Stops a partition from serving.
    pub fn close(&self, partition: Partition) {
        self.0[usize::from(partition.get())].store(0, Ordering::Release);
    }

    /// The number of partitions that do not serve.
    pub fn closed_count(&self) -> usize {
        self.0.iter().filter(|epoch| epoch.load(Ordering::Acquire) == 0).count()
    }
}

/// What Redis stores in place of a partition's epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceReading {
    /// Nothing: Redis is empty, or the partition was never opened.
    Absent,
    /// An epoch.
    Open(u64),
    /// A recovery fence. The value is the epoch whose outbox is still to be written to MySQL;
    /// `None` when MySQL must not read anything from this partition.
    Fenced(Option<u64>),
    /// A value of an unknown form.
    Foreign,
}

impl FenceReading {
    /// Parses the stored text.
    pub fn read(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        match (words.as_slice(), text.parse()) {
            ([_], Ok(epoch)) => Self::Open(epoch),
            ([FENCE_WORD, _, draining], _) => match draining.parse() {
                Ok(draining) => Self::Fenced(Some(draining).filter(|epoch| *epoch > 0)),
                Err(_) => Self::Foreign,
            },
            _ => Self::Foreign,
        }
    }

    /// The epoch under which the partition serves.
    pub fn epoch(self) -> Option<u64> {
        match self {
            Self::Open(epoch) => Some(epoch),
            Self::Absent | Self::Fenced(_) | Self::Foreign => None,
        }
    }

    /// The epoch whose outbox Redis holds.
    pub fn outbox_epoch(self) -> Option<u64> {
        match self {
            Self::Open(epoch) | Self::Fenced(Some(epoch)) => Some(epoch),
            Self::Absent | Self::Fenced(None) | Self::Foreign => None,
        }
    }
}

/// The first word of a recovery fence.
const FENCE_WORD: &str = "barred";

/// The text of a recovery fence. The random `token` identifies the recovery; `draining` is the
/// epoch whose outbox is still to be written to MySQL.
pub fn recovery_fence(token: u64, draining: Option<u64>) -> String {
    format!("{FENCE_WORD} {token:x} {}", draining.unwrap_or(0))
}

/// What Redis stores about a partition: its fence and how far its outbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FenceMarks {
    pub fence: FenceReading,
    /// The number of the newest outbox entry; 0 before the first.
    pub seq: u64,
}

impl RedisClient {
    /// Reads the fences of several partitions.
    ///
    /// # Errors
    /// When any of them can't be read.
    pub async fn fence_marks(&self, partitions: &[Partition]) -> Result<Vec<FenceMarks>, Error> {
        try_join_all(
            partitions.iter().map(|partition| self.read_fence_marks(*partition, READ_PATIENCE)),
        )
        .await
    }

    /// Reads the fences of several partitions independently: a server that does not answer affects
    /// only its own partitions.
    pub async fn fence_marks_each(
        &self,
        partitions: &[Partition],
    ) -> Vec<Result<FenceMarks, Error>> {
        join_all(partitions.iter().map(|partition| self.read_fence_marks(*partition, NO_PATIENCE)))
            .await
    }

    async fn read_fence_marks(
        &self,
        partition: Partition,
        patience: Duration,
    ) -> Result<FenceMarks, Error> {
        let key = |name| self.keys().of_partition(partition, name);
        let read = |client: Client| {
            let (epoch, seq) = (key("epoch"), key("seq"));
            async move {
                let epoch: Option<String> = client.get(epoch).await?;
                let seq: Option<u64> = client.get(seq).await?;
                Ok((epoch, seq))
            }
        };
        let (epoch, seq) = self.with_owner(partition, patience, read).await?;
        let fence = epoch.map_or(FenceReading::Absent, |text| FenceReading::read(&text));
        Ok(FenceMarks { fence, seq: seq.unwrap_or(0) })
    }

    /// The stored text of a partition's fence.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn read_fence_text(&self, partition: Partition) -> Result<Option<String>, Error> {
        let read = |client: Client| {
            let key = self.keys().of_partition(partition, "epoch");
            async move { client.get(key).await }
        };
        self.with_owner(partition, READ_PATIENCE, read).await
    }

    /// Writes a partition's epoch or a [`recovery_fence`]. The caller holds the row lock of its
    /// checkpoint in MySQL.
    pub async fn write_fence(&self, partition: Partition, fence: &str) -> Result<(), Error> {
        let key = self.keys().of_partition(partition, "epoch");
        let write = |client: Client| {
            let (key, fence) = (key.clone(), fence.to_owned());
            async move { client.set::<(), _, _>(key, fence, None, None, false).await }
        };
        self.with_owner(partition, READ_PATIENCE, write).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fence_text_round_trips() {
        assert_eq!(FenceReading::read("4503599627370496"), FenceReading::Open(1 << 52));
        assert_eq!(FenceReading::read(&recovery_fence(7, Some(5))), FenceReading::Fenced(Some(5)));
        assert_eq!(FenceReading::read(&recovery_fence(u64::MAX, None)), FenceReading::Fenced(None));
        for other in
            ["", "x", "-1", "1.5", "barred", "barred 7", "barred 7 x", "barred 7 1 2", "1 2"]
        {
            assert_eq!(FenceReading::read(other), FenceReading::Foreign, "{other:?}");
        }
    }
}
