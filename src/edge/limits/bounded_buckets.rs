//! Where buckets are kept: a bounded number of them.
//!
//! Anybody may come under as many names and addresses as they like, so the store is full at some point, and then a bucket has to go. The one that goes is
//! the fullest of a few: of all, forgetting it forgives the least. Who has just emptied theirs is remembered longest.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;

/// Parts that are locked by themselves.
const SHARDS: usize = 64;
/// Buckets that are looked at before one goes.
const SAMPLE: usize = 8;

/// Buckets by key. What is kept of each is the moment at which it is full again.
pub(super) struct BoundedBuckets<K> {
    shards: Vec<Mutex<HashMap<K, Nanos>>>,
    hasher: RandomState,
    most: usize,
}

impl<K: Hash + Eq + Clone> BoundedBuckets<K> {
    /// At most `most` buckets, give or take how evenly keys spread over the parts.
    pub(super) fn new(most: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hasher: RandomState::new(), most: most.div_ceil(SHARDS) }
    }

    fn shard(&self, key: &K) -> MutexGuard<'_, HashMap<K, Nanos>> {
        // The upper bits: the map inside goes by the lower ones of a hash of its own.
        let at = usize::try_from(self.hasher.hash_one(key) >> 58).unwrap_or_default() % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> impl Iterator<Item = MutexGuard<'_, HashMap<K, Nanos>>> {
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
        if shard.len() >= self.most {
            let fullest = shard
                .iter()
                .take(SAMPLE)
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
        self.all().for_each(|mut shard| shard.retain(|_, full| *full > drop_below));
    }

    fn shrink_to_fit(&self) {
        self.all().for_each(|mut shard| shard.shrink_to_fit());
    }

    fn len(&self) -> usize {
        self.all().map(|shard| shard.len()).sum()
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
    fn it_is_never_fuller_than_it_may_be_and_remembers_the_greedy() {
        let clock = FakeRelativeClock::default();
        let quota = Quota::per_second(NonZeroU32::new(1).unwrap())
            .allow_burst(NonZeroU32::new(10).unwrap());
        let limiter: RateLimiter<_, _, _, NoOpMiddleware<_>> =
            RateLimiter::new(quota, BoundedBuckets::new(64 * 16), clock.clone());
        let greedy = u64::MAX;
        while limiter.check_key(&greedy).is_ok() {}
        for stranger in 0..100_000_u64 {
            limiter.check_key(&stranger).unwrap();
            assert!(stranger % 10_000 != 0 || limiter.len() <= 64 * 16);
        }
        assert!(
            limiter.check_key(&greedy).is_err(),
            "a hundred thousand strangers buy nobody a new bucket"
        );
        clock.advance(Duration::from_secs(60));
        limiter.retain_recent();
        assert!(limiter.is_empty());
    }
}
