//! The names of keys, built from the `KEYS:` line of a script's header.

use super::LuaScript;
use crate::ids::{CouponId, QueueId, ScheduleId};
use crate::partition::{HashSlot, Partition, PartitionCount};

/// What a call is about: the partition, and what the prefixes `q:`, `s:` and `c:` of its script's keys
/// stand for.
#[derive(Debug, Clone, Copy)]
pub struct KeyScope<'a> {
    /// The partition whose hash tag the keys carry.
    pub partition: Partition,
    /// The queue of keys with the prefix `q:`.
    pub queue: Option<&'a QueueId>,
    /// The schedule of keys with the prefix `s:`.
    pub schedule: Option<&'a ScheduleId>,
    /// The coupon of keys with the prefix `c:`.
    pub coupon: Option<&'a CouponId>,
}

impl<'a> KeyScope<'a> {
    /// A place with partition keys alone.
    pub fn partition(partition: Partition) -> Self {
        Self { partition, queue: None, schedule: None, coupon: None }
    }

    /// A queue in its partition.
    pub fn queue(keys: &KeyBuilder, queue: &'a QueueId) -> Self {
        Self { queue: Some(queue), ..Self::partition(keys.partition(queue.slot())) }
    }

    /// A schedule in the partition of its concert's queue.
    pub fn schedule(keys: &KeyBuilder, queue: &'a QueueId, schedule: &'a ScheduleId) -> Self {
        Self { schedule: Some(schedule), ..Self::queue(keys, queue) }
    }

    /// A coupon in its partition.
    pub fn coupon(keys: &KeyBuilder, coupon: &'a CouponId) -> Self {
        Self { coupon: Some(coupon), ..Self::partition(keys.partition(coupon.slot())) }
    }
}

/// Knows the prefix of all keys and how slots are dealt to partitions.
#[derive(Debug, Clone)]
pub struct KeyBuilder {
    prefix: String,
    partitions: PartitionCount,
}

impl KeyBuilder {
    /// Keys that begin with `prefix`, over `partitions`.
    pub fn new(prefix: &str, partitions: PartitionCount) -> Self {
        Self { prefix: prefix.to_owned(), partitions }
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> PartitionCount {
        self.partitions
    }

    /// The partition of a slot.
    pub fn partition(&self, slot: HashSlot) -> Partition {
        self.partitions.of(slot)
    }

    /// A key of the partition itself.
    pub(super) fn of_partition(&self, partition: Partition, name: &str) -> String {
        format!("{}:{{{partition}}}:{name}", self.prefix)
    }

    /// The keys of a script's `KEYS:` line.
    pub(super) fn build_all(&self, place: KeyScope<'_>, script: &LuaScript) -> Vec<String> {
        script.keys().iter().map(|word| self.build(place, word)).collect()
    }

    /// The key for one word of a `KEYS:` line.
    ///
    /// # Panics
    /// When the place lacks what the word's prefix asks for: the store function and its script disagree.
    pub(super) fn build(&self, place: KeyScope<'_>, word: &str) -> String {
        let tag = |owner: &str, id: &str, name: &str| {
            self.of_partition(place.partition, &format!("{owner}:{id}:{name}"))
        };
        let Some((owner, name)) = word.split_once(':') else {
            return self.of_partition(place.partition, word);
        };
        let id = match owner {
            "q" => place.queue.map(QueueId::as_str),
            "s" => place.schedule.map(ScheduleId::as_str),
            "c" => place.coupon.map(CouponId::as_str),
            _ => None,
        };
        match id {
            Some(id) => tag(owner, id, name),
            None => panic!("the call names no owner for the key {word}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_place_share_its_hash_tag() {
        let keys = KeyBuilder::new("usher", PartitionCount::new(64).unwrap());
        let (queue, schedule) = ("demo".parse().unwrap(), "demo-1".parse().unwrap());
        let place = KeyScope::schedule(&keys, &queue, &schedule);
        let p = place.partition;
        assert_eq!(keys.build(place, "seq"), format!("usher:{{{p}}}:seq"));
        assert_eq!(keys.build(place, "q:waiting"), format!("usher:{{{p}}}:q:demo:waiting"));
        assert_eq!(keys.build(place, "s:seats"), format!("usher:{{{p}}}:s:demo-1:seats"));
        let coupon = "demo".parse().unwrap();
        let place = KeyScope::coupon(&keys, &coupon);
        assert_eq!(
            keys.build(place, "c:issues"),
            format!("usher:{{{}}}:c:demo:issues", place.partition)
        );
    }

    #[test]
    #[should_panic(expected = "names no owner")]
    fn a_key_without_its_owner_is_a_defect() {
        let keys = KeyBuilder::new("usher", PartitionCount::new(1).unwrap());
        keys.build(KeyScope::partition(keys.partition(HashSlot::of(b"x"))), "q:waiting");
    }
}
