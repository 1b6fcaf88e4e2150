//! Epochs: the fence between Redis and MySQL.
//!
//! The epoch of a partition is a random number, stored in MySQL (`outbox_checkpoints.generation`)
//! and in Redis (the key
//! `epoch`). Every script compares the epoch in Redis with the one that
//! this instance verified, and does nothing when they differ. During a restore the key holds a
//! *recovery fence* instead, a text that no script accepts but those of the recovery that wrote it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::partition::{Partition, PartitionCount};

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
    /// A recovery fence. `draining` is the epoch whose outbox is still to be written to MySQL;
    /// `None` when MySQL must not read anything from this partition.
    Fenced { token: u64, draining: Option<u64> },
    /// MySQL went back behind this epoch's outbox, and the writer writes it again. Nothing in Redis
    /// is lost.
    Healing(u64),
    /// A value of an unknown form.
    Foreign,
}

impl FenceReading {
    /// Parses the stored text.
    pub fn read(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        match (words.as_slice(), text.parse()) {
            ([_], Ok(epoch)) => Self::Open(epoch),
            ([FENCE_WORD, token, draining], _) => {
                match (u64::from_str_radix(token, 16), draining.parse()) {
                    (Ok(token), Ok(draining)) => {
                        Self::Fenced { token, draining: Some(draining).filter(|epoch| *epoch > 0) }
                    }
                    _ => Self::Foreign,
                }
            }
            ([HEALING_WORD, epoch], _) => epoch.parse().map_or(Self::Foreign, Self::Healing),
            _ => Self::Foreign,
        }
    }

    /// The epoch under which the partition serves.
    pub fn epoch(self) -> Option<u64> {
        match self {
            Self::Open(epoch) => Some(epoch),
            Self::Absent | Self::Fenced { .. } | Self::Healing(_) | Self::Foreign => None,
        }
    }

    /// The stored text; `None` when the form is unknown or nothing is stored.
    pub fn text(self) -> Option<String> {
        match self {
            Self::Open(epoch) => Some(epoch.to_string()),
            Self::Fenced { token, draining } => Some(recovery_fence(token, draining)),
            Self::Healing(epoch) => Some(healing_fence(epoch)),
            Self::Absent | Self::Foreign => None,
        }
    }

    /// The epoch whose outbox Redis holds.
    pub fn outbox_epoch(self) -> Option<u64> {
        match self {
            Self::Open(epoch)
            | Self::Healing(epoch)
            | Self::Fenced { draining: Some(epoch), .. } => Some(epoch),
            Self::Absent | Self::Fenced { draining: None, .. } | Self::Foreign => None,
        }
    }
}

/// The first word of a recovery fence.
const FENCE_WORD: &str = "fenced";
/// The first word of the fence of a partition that MySQL is behind.
const HEALING_WORD: &str = "healing";

/// The text of a recovery fence. The random `token` identifies the recovery; `draining` is the
/// epoch whose outbox is still to be written to MySQL.
pub fn recovery_fence(token: u64, draining: Option<u64>) -> String {
    format!("{FENCE_WORD} {token:x} {}", draining.unwrap_or(0))
}

/// The text of the fence of a partition whose outbox is written to MySQL once more.
pub fn healing_fence(epoch: u64) -> String {
    format!("{HEALING_WORD} {epoch}")
}

/// Random, so that the epochs of two installations never match.
pub fn new_epoch() -> u64 {
    rand::random_range(1..=1 << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fence_text_round_trips() {
        assert_eq!(FenceReading::read("4503599627370496"), FenceReading::Open(1 << 52));
        for reading in [
            FenceReading::Open(1 << 52),
            FenceReading::Fenced { token: 7, draining: Some(5) },
            FenceReading::Fenced { token: u64::MAX, draining: None },
            FenceReading::Healing(5),
        ] {
            assert_eq!(FenceReading::read(&reading.text().unwrap()), reading);
        }
        for other in [
            "",
            "x",
            "-1",
            "1.5",
            "fenced",
            "fenced 7",
            "fenced 7 x",
            "fenced 7 1 2",
            "healing",
            "1 2",
        ] {
            assert_eq!(FenceReading::read(other), FenceReading::Foreign, "{other:?}");
        }
    }
}
