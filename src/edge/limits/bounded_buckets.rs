//! A store for a bounded number of buckets.
//!
//! A client can use any number of users and addresses, so the store may become full. It then evicts
//! the fullest of a few sampled buckets, because that forgives the least. The bucket of a caller
//! that just exhausted its limit stays longest.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;

/// Shards with a lock each.
const SHARD_COUNT: usize = 64;
/// Buckets that compete for one eviction.
const EVICTION_SAMPLE_SIZE: usize = 8;

/// Buckets by key. A bucket is stored as the time at which it is full again.
pub(super) struct BoundedBuckets<K> {
    shards: Vec<Mutex<HashMap<K, Nanos>>>,
    hasher: RandomState,
    max_per_shard: usize,
}

impl<K: Hash + Eq + Clone> BoundedBuckets<K> {
    /// At most `max` buckets, depending on how evenly the keys spread over the shards.
    pub(super) fn new(max: usize) -> Self {
        let shards = (0..SHARD_COUNT).map(|_| Mutex::default()).collect();
        Self { shards, hasher: RandomState::new(), max_per_shard: max.div_ceil(SHARD_COUNT) }
    }

    fn shard(&self, key: &K) -> MutexGuard<'_, HashMap<K, Nanos>> {
        // The upper bits choose the shard, because the map of a shard uses the lower ones.
        let at = usize::try_from(self.hasher.hash_one(key) >> 58).unwrap_or_default() % SHARD_COUNT;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_shards(&self) -> impl Iterator<Item = MutexGuard<'_, HashMap<K, Nanos>>> {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<K: Hash + Eq + Clone> StateStore for BoundedBuckets<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut shard = self.shard(key);
        if let Some(known) = shard.get_mut(key) {
            let (outcome, full) = measure(Some(*known))?;
            *known = full;
            return Ok(outcome);
        }
        let (outcome, full) = measure(None)?;
        if shard.len() >= self.max_per_shard {
            let fullest = shard
                .iter()
                .take(EVICTION_SAMPLE_SIZE)
                .min_by_key(|(_, full)| **full)
                .map(|(key, _)| key.clone());
            if let Some(fullest) = fullest {
                shard.remove(&fullest);
            }
        }
        shard.insert(key.clone(), full);
        Ok(outcome)
    }
}

impl<K: Hash + Eq + Clone> ShrinkableKeyedStateStore<K> for BoundedBuckets<K> {
    fn retain_recent(&self, drop_below: Nanos) {
        self.lock_shards().for_each(|mut shard| shard.retain(|_, full| *full > drop_below));
    }

    fn shrink_to_fit(&self) {
        self.lock_shards().for_each(|mut shard| shard.shrink_to_fit());
    }

    fn len(&self) -> usize {
        self.lock_shards().map(|shard| shard.len()).sum()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;
    use governor::middleware::NoOpMiddleware;
    use governor::{Quota, RateLimiter};
    use std::num::NonZeroU32;
    use std::time::Duration;

    #[test]
    fn store_is_bounded_and_keeps_exhausted_buckets() {
        let clock = FakeRelativeClock::default();
        let quota = Quota::per_second(NonZeroU32::new(1).unwrap())
            .allow_burst(NonZeroU32::new(10).unwrap());
        let limiter: RateLimiter<_, _, _, NoOpMiddleware<_>> =
            RateLimiter::new(quota, BoundedBuckets::new(64 * 16), clock.clone());
        let greedy = u64::MAX;
        while limiter.check_key(&greedy).is_ok() {}
        for other in 0..100_000_u64 {
            limiter.check_key(&other).unwrap();
            assert!(other % 10_000 != 0 || limiter.len() <= 64 * 16);
        }
        assert!(
            limiter.check_key(&greedy).is_err(),
            "other callers do not evict an exhausted bucket"
        );
        clock.advance(Duration::from_secs(60));
        limiter.retain_recent();
        assert!(limiter.is_empty());
    }
}
