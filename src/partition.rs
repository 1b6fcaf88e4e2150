//! Partitions: the unit of atomicity, order and persistence.
//!
//! Every entity hashes to one of 4,096 hash slots, which never changes. A slot belongs to the
//! partition `slot mod P`. Ids carry the slot and not the partition, so they stay valid when P
//! changes.

use std::fmt;

/// The number of hash slots: the 12 bits that an id has for it.
pub const HASH_SLOTS: u16 = 4096;

/// The hash of an entity, 0…4095. Not the hash slot of Redis Cluster, which is computed from a key
/// name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HashSlot(u16);

impl HashSlot {
    /// The slot of a name or a user: 64-bit FNV-1a, folded. It must never change, because ids in
    /// MySQL carry it.
    pub fn of(bytes: &[u8]) -> Self {
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let folded = (hash ^ (hash >> 32)).to_le_bytes();
        Self::from_low_bits(u16::from_le_bytes([folded[0], folded[1]]))
    }

    /// The slot in the low twelve bits.
    pub fn from_low_bits(bits: u16) -> Self {
        Self(bits % HASH_SLOTS)
    }

    pub fn get(self) -> u16 {
        self.0
    }
}

/// A partition's number, 0…P−1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(u16);

impl Partition {
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

/// P, the number of partitions, 1…4096. Chosen at the first migration and recorded in MySQL. The
/// default is 8: more make smaller batches. A cluster has more than one primary to use, so its
/// default is [`Self::CLUSTER_DEFAULT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionCount(u16);

impl Default for PartitionCount {
    fn default() -> Self {
        Self(8)
    }
}

impl PartitionCount {
    /// The default with Redis Cluster.
    pub const CLUSTER_DEFAULT: Self = Self(64);

    /// P partitions; `None` outside 1…4096.
    pub fn new(count: u16) -> Option<Self> {
        (1..=HASH_SLOTS).contains(&count).then_some(Self(count))
    }

    pub fn count(self) -> u16 {
        self.0
    }

    pub fn of(self, slot: HashSlot) -> Partition {
        Partition(slot.0 % self.0)
    }

    pub fn all(self) -> impl Iterator<Item = Partition> {
        (0..self.0).map(Partition)
    }

    /// The partition with that number; `None` when it is not below P.
    pub fn nth(self, number: u16) -> Option<Partition> {
        (number < self.0).then_some(Partition(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_never_changes() {
        assert_eq!(
            ["", "a", "demo"].map(|name| HashSlot::of(name.as_bytes()).get()),
            [4033, 192, 2289]
        );
    }

    #[test]
    fn slots_spread_evenly_over_partitions() {
        let partitions = PartitionCount::new(64).unwrap();
        let mut counts = [0_u32; 64];
        for n in 0..64_000_u32 {
            counts[usize::from(
                partitions.of(HashSlot::of(format!("concert-{n}").as_bytes())).get(),
            )] += 1;
        }
        assert!(counts.iter().all(|&c| (800..1200).contains(&c)), "{counts:?}");
    }

    #[test]
    fn partition_count_is_bounded() {
        assert!(PartitionCount::new(0).is_none());
        assert!(PartitionCount::new(4097).is_none());
        assert_eq!(PartitionCount::new(4096).unwrap().all().count(), 4096);
        assert!(PartitionCount::new(4).unwrap().nth(4).is_none());
    }
}
