//! Generations: the fence between Redis and MySQL.
//!
//! Each partition's generation stands in MySQL and in Redis. A script runs only while Redis holds the generation that this instance verified
//! at start or after a reconnection, so an empty or rolled-back Redis sells nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::KeysInterface;
use futures::future::{join_all, try_join_all};

use crate::partition::{Partition, PartitionCount};
use crate::redis::cluster::{LOOK, NOT};
use crate::redis::{Error, RedisClient};

/// The generation of every partition that this instance may serve. Zero, which no partition ever has, stands for none.
#[derive(Debug)]
pub struct PartitionEpochs(Vec<AtomicU64>);

impl PartitionEpochs {
    pub(in crate::redis) fn new(partitions: PartitionCount) -> Self {
        Self(partitions.all().map(|_| AtomicU64::new(0)).collect())
    }

    /// The generation under which a partition serves; `None` while it does not.
    pub fn get(&self, partition: Partition) -> Option<u64> {
        match self.0[usize::from(partition.get())].load(Ordering::Acquire) {
            0 => None,
            generation => Some(generation),
        }
    }

    /// Lets a partition serve under a generation that was verified.
    pub fn open(&self, partition: Partition, generation: u64) {
        self.0[usize::from(partition.get())].store(generation, Ordering::Release);
    }

    /// Stops a partition from serving.
    pub fn close(&self, partition: Partition) {
        self.0[usize::from(partition.get())].store(0, Ordering::Release);
    }

    /// How many partitions do not serve.
    pub fn closed(&self) -> usize {
        self.0.iter().filter(|generation| generation.load(Ordering::Acquire) == 0).count()
    }
}

/// What stands where a partition's generation should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceReading {
    /// Nothing: Redis is empty, or has never seen the partition.
    Absent,
    /// A generation.
    Open(u64),
    /// A bar that no script accepts but those of the recovery that set it. The outbox of this generation still stands behind it and is to be written;
    /// `None` when there is nothing that MySQL may take.
    Barred(Option<u64>),
    /// Something that is not ours.
    Foreign,
}

impl FenceReading {
    /// What a text in place of a generation says; [`FenceReading::Foreign`] when it is not of any form that is known.
    pub fn read(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        match (words.as_slice(), text.parse()) {
            ([_], Ok(generation)) => Self::Open(generation),
            ([BAR, _, drains], _) => match drains.parse() {
                Ok(drains) => Self::Barred(Some(drains).filter(|generation| *generation > 0)),
                Err(_) => Self::Foreign,
            },
            _ => Self::Foreign,
        }
    }

    /// The generation under which the partition serves.
    pub fn generation(self) -> Option<u64> {
        match self {
            Self::Open(generation) => Some(generation),
            Self::Absent | Self::Barred(_) | Self::Foreign => None,
        }
    }

    /// The generation whose outbox stands there.
    pub fn outbox_of(self) -> Option<u64> {
        match self {
            Self::Open(generation) | Self::Barred(Some(generation)) => Some(generation),
            Self::Absent | Self::Barred(None) | Self::Foreign => None,
        }
    }
}

/// The first word of a bar.
const BAR: &str = "barred";

/// The text of a bar, by a token that nobody else has.
pub fn bar(token: u64, drains: Option<u64>) -> String {
    format!("{BAR} {token:x} {}", drains.unwrap_or(0))
}

/// What Redis holds of a partition's fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FenceMarks {
    /// The generation, or what stands in its place.
    pub fence: FenceReading,
    /// The number of the newest outbox entry; 0 before the first.
    pub seq: u64,
}

impl RedisClient {
    /// Reads the fences of some partitions.
    ///
    /// # Errors
    /// When any of them can't be read.
    pub async fn marks(&self, partitions: &[Partition]) -> Result<Vec<FenceMarks>, Error> {
        try_join_all(partitions.iter().map(|partition| self.marks_of(*partition, LOOK))).await
    }

    /// Reads the fences of some partitions, each for itself: one server that is away hides its own partitions alone.
    pub async fn marks_each(&self, partitions: &[Partition]) -> Vec<Result<FenceMarks, Error>> {
        join_all(partitions.iter().map(|partition| self.marks_of(*partition, NOT))).await
    }

    async fn marks_of(
        &self,
        partition: Partition,
        patience: Duration,
    ) -> Result<FenceMarks, Error> {
        let key = |name| self.keys().of_partition(partition, name);
        let read = |client: Client| {
            let (generation, seq) = (key("epoch"), key("seq"));
            async move {
                let generation: Option<String> = client.get(generation).await?;
                let seq: Option<u64> = client.get(seq).await?;
                Ok((generation, seq))
            }
        };
        let (generation, seq) = self.on(partition, patience, read).await?;
        let fence = generation.map_or(FenceReading::Absent, |text| FenceReading::read(&text));
        Ok(FenceMarks { fence, seq: seq.unwrap_or(0) })
    }

    /// What stands where a partition's generation should, as it is.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn fence_text(&self, partition: Partition) -> Result<Option<String>, Error> {
        let read = |client: Client| {
            let generation = self.keys().of_partition(partition, "epoch");
            async move { client.get(generation).await }
        };
        self.on(partition, LOOK, read).await
    }

    /// Writes a partition's generation, or a [`bar`]. The caller holds the row lock of its checkpoint in MySQL.
    pub async fn write_fence(&self, partition: Partition, fence: &str) -> Result<(), Error> {
        let key = self.keys().of_partition(partition, "epoch");
        let write = |client: Client| {
            let (key, fence) = (key.clone(), fence.to_owned());
            async move { client.set::<(), _, _>(key, fence, None, None, false).await }
        };
        self.on(partition, LOOK, write).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_read_as_it_was_written() {
        assert_eq!(FenceReading::read("4503599627370496"), FenceReading::Open(1 << 52));
        assert_eq!(FenceReading::read(&bar(7, Some(5))), FenceReading::Barred(Some(5)));
        assert_eq!(FenceReading::read(&bar(u64::MAX, None)), FenceReading::Barred(None));
        for other in
            ["", "x", "-1", "1.5", "barred", "barred 7", "barred 7 x", "barred 7 1 2", "1 2"]
        {
            assert_eq!(FenceReading::read(other), FenceReading::Foreign, "{other:?}");
        }
    }
}
