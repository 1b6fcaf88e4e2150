//! Key names, built from the `KEYS:` line of a script's header.

use super::LuaScript;
use crate::ids::{CouponId, QueueId, ScheduleId};
use crate::partition::{HashSlot, Partition, PartitionCount};

/// What a call is about: the partition, and the entities of the key prefixes `q:`, `s:` and `c:`.
#[derive(Debug, Clone, Copy)]
pub struct KeyScope<'a> {
    /// Its name is the hash tag of all keys, so one script can use them together.
    pub partition: Partition,
    /// For keys with the prefix `q:`.
    pub queue: Option<&'a QueueId>,
    /// For keys with the prefix `s:`.
    pub schedule: Option<&'a ScheduleId>,
    /// For keys with the prefix `c:`.
    pub coupon: Option<&'a CouponId>,
    /// Further partitions on the same server, for keys of the header's `EACH:` line.
    pub partitions: &'a [Partition],
    /// Schedules of the queue, for keys of the `EACH:` line with the prefix `s:`.
    pub schedules: &'a [ScheduleId],
}

impl<'a> KeyScope<'a> {
    /// Only keys of the partition itself.
    pub fn partition(partition: Partition) -> Self {
        Self {
            partition,
            queue: None,
            schedule: None,
            coupon: None,
            partitions: &[],
            schedules: &[],
        }
    }

    /// Keys of a queue and of its partition.
    pub fn queue(keys: &KeyBuilder, queue: &'a QueueId) -> Self {
        Self { queue: Some(queue), ..Self::partition(keys.partition(queue.slot())) }
    }

    /// Keys of a schedule, in the partition of its concert's queue.
    pub fn schedule(keys: &KeyBuilder, queue: &'a QueueId, schedule: &'a ScheduleId) -> Self {
        Self { schedule: Some(schedule), ..Self::queue(keys, queue) }
    }

    /// Keys of a coupon and of its partition.
    pub fn coupon(keys: &KeyBuilder, coupon: &'a CouponId) -> Self {
        Self { coupon: Some(coupon), ..Self::partition(keys.partition(coupon.slot())) }
    }
}

/// The common prefix of all keys, and the assignment of hash slots to partitions.
#[derive(Debug, Clone)]
pub struct KeyBuilder {
    prefix: String,
    partitions: PartitionCount,
}

impl KeyBuilder {
    pub fn new(prefix: &str, partitions: PartitionCount) -> Self {
        Self { prefix: prefix.to_owned(), partitions }
    }

    pub fn partitions(&self) -> PartitionCount {
        self.partitions
    }

    pub fn partition(&self, slot: HashSlot) -> Partition {
        self.partitions.of(slot)
    }

    /// A key of the partition itself.
    pub(super) fn of_partition(&self, partition: Partition, name: &str) -> String {
        format!("{}:{{{partition}}}:{name}", self.prefix)
    }

    /// The keys of a script's `KEYS:` line, then those of its `EACH:` line for each partition and
    /// each schedule.
    pub(super) fn build_all(&self, scope: KeyScope<'_>, script: &LuaScript) -> Vec<String> {
        let mut keys: Vec<String> =
            script.keys().iter().map(|word| self.build(scope, word)).collect();
        let (of_schedule, of_partition): (Vec<&str>, Vec<&str>) =
            script.each().iter().partition(|word| word.contains(':'));
        for partition in scope.partitions {
            keys.extend(of_partition.iter().map(|word| self.of_partition(*partition, word)));
        }
        for schedule in scope.schedules {
            let scope = KeyScope { schedule: Some(schedule), ..scope };
            keys.extend(of_schedule.iter().map(|word| self.build(scope, word)));
        }
        keys
    }

    /// The key for one word of a `KEYS:` line.
    ///
    /// # Panics
    /// When the scope lacks the entity of the word's prefix: the store function does not fit its
    /// script.
    pub(super) fn build(&self, scope: KeyScope<'_>, word: &str) -> String {
        let tag = |owner: &str, id: &str, name: &str| {
            self.of_partition(scope.partition, &format!("{owner}:{id}:{name}"))
        };
        let Some((owner, name)) = word.split_once(':') else {
            return self.of_partition(scope.partition, word);
        };
        let id = match owner {
            "q" => scope.queue.map(QueueId::as_str),
            "s" => scope.schedule.map(ScheduleId::as_str),
            "c" => scope.coupon.map(CouponId::as_str),
            _ => None,
        };
        match id {
            Some(id) => tag(owner, id, name),
            None => panic!("the scope has no entity for the key {word}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_scope_share_its_hash_tag() {
        let keys = KeyBuilder::new("usher", PartitionCount::new(64).unwrap());
        let (queue, schedule) = ("demo".parse().unwrap(), "demo-1".parse().unwrap());
        let scope = KeyScope::schedule(&keys, &queue, &schedule);
        let p = scope.partition;
        assert_eq!(keys.build(scope, "seq"), format!("usher:{{{p}}}:seq"));
        assert_eq!(keys.build(scope, "q:waiting"), format!("usher:{{{p}}}:q:demo:waiting"));
        assert_eq!(keys.build(scope, "s:seats"), format!("usher:{{{p}}}:s:demo-1:seats"));
        let coupon = "demo".parse().unwrap();
        let scope = KeyScope::coupon(&keys, &coupon);
        assert_eq!(
            keys.build(scope, "c:issues"),
            format!("usher:{{{}}}:c:demo:issues", scope.partition)
        );
    }

    #[test]
    #[should_panic(expected = "no entity")]
    fn key_without_its_entity_panics() {
        let keys = KeyBuilder::new("usher", PartitionCount::new(1).unwrap());
        keys.build(KeyScope::partition(keys.partition(HashSlot::of(b"x"))), "q:waiting");
    }
}
