//! Generations: the fence between Redis and MySQL.
//!
//! Each partition's generation stands in MySQL and in Redis. A script runs only while Redis holds the generation that this instance verified
//! at start or after a reconnection, so an empty or rolled-back Redis sells nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use fred::interfaces::KeysInterface;
use futures::future::try_join_all;

use super::{Error, Redis};
use crate::partition::{Partition, Partitions};

/// The generation of every partition that this instance may serve. Zero, which no partition ever has, stands for none.
#[derive(Debug)]
pub struct Generations(Vec<AtomicU64>);

impl Generations {
    pub(super) fn new(partitions: Partitions) -> Self {
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

/// What Redis holds of a partition's fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// The generation, if there is one.
    pub generation: Option<u64>,
    /// The number of the newest outbox entry; 0 before the first.
    pub seq: u64,
}

impl Redis {
    /// Reads the fences of some partitions.
    pub async fn marks(&self, partitions: &[Partition]) -> Result<Vec<Marks>, Error> {
        let reads = partitions.iter().map(|&partition| async move {
            let key = |name| self.keys().of_partition(partition, name);
            let generation: Option<u64> = self.client().get(key("generation")).await?;
            let seq: Option<u64> = self.client().get(key("seq")).await?;
            Ok(Marks { generation, seq: seq.unwrap_or(0) })
        });
        try_join_all(reads).await
    }

    /// Writes a partition's generation. The caller holds the row lock of its checkpoint in MySQL.
    pub async fn write_generation(&self, partition: Partition, generation: u64) -> Result<(), Error> {
        let key = self.keys().of_partition(partition, "generation");
        self.client().set::<(), _, _>(key, generation.to_string(), None, None, false).await?;
        Ok(())
    }
}
