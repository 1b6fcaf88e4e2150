//! The users who have a sold-out coupon ("winners"), in memory. All other users are refused without
//! a call to Redis.
//!
//! The winners of a sold-out coupon can't change until its settings are published again. So an
//! instance that receives "sold out" from Redis reads them once, and then knows which users Redis
//! would refuse. Redis still answers the winners themselves, because it knows whether they have
//! used the coupon.
//!
//! A copy must never refuse a user who got a coupon elsewhere after the quota was raised. Two rules
//! ensure this:
//!
//! - A copy is valid for [`LEASE_DURATION`], counted from before the last call in which Redis
//!   confirmed the edition of the settings. [`WinnersCache::renew`] asks every
//!   [`RENEWAL_INTERVAL`] while the copy is used.
//! - The raised quota of a sold-out coupon takes effect [`QUOTA_RAISE_DELAY_MS`] after its
//!   publication, which is longer. So no user gets a coupon before every copy has expired.
//!
//! An instance that is slow or disconnected from Redis has no valid copy and asks Redis. A lease
//! also ends with the window of the coupon, so that the answer changes to "ended" in time.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::coupon::CouponCounts;
use super::store;
use crate::ids::{CouponId, UserId};
use crate::redis::{self, RedisClient};

/// How often the copies in use are renewed.
pub(super) const RENEWAL_INTERVAL: Duration = Duration::from_millis(100);
/// How long a copy is valid after Redis has been asked.
const LEASE_DURATION: Duration = Duration::from_millis(300);
/// After what time a raised quota takes effect, by Redis' clock.
pub(super) const QUOTA_RAISE_DELAY_MS: i64 = 500;
/// The limit for all copies together, at 16 bytes for each user. Redis answers for a coupon that
/// does not fit.
const MAX_CACHED_WINNERS: usize = 4_000_000;
const WINNERS_PER_CALL: u32 = 500;
/// A copy that was not used for this time is dropped.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) struct WinnersCache {
    redis: RedisClient,
    /// The origin of the times in the copies.
    started: Instant,
    copies: ArcSwap<HashMap<CouponId, Arc<WinnersCopy>>>,
    /// Coupons whose winners are being read from Redis.
    loading: Mutex<HashSet<CouponId>>,
}

struct WinnersCopy {
    edition: String,
    /// Sorted, for binary search.
    users: Box<[UserId]>,
    /// The end of the lease, in milliseconds after `started`.
    valid_until: AtomicU64,
    /// Used since the last renewal.
    used: AtomicBool,
    /// The last renewal that found the copy in use, in milliseconds after `started`.
    last_used: AtomicU64,
}

impl WinnersCache {
    pub(super) fn new(redis: RedisClient) -> Self {
        Self {
            redis,
            started: Instant::now(),
            copies: ArcSwap::default(),
            loading: Mutex::default(),
        }
    }

    /// Whether a valid copy shows that the coupon is sold out and the user does not have it.
    pub(super) fn is_refused(&self, coupon: &CouponId, user: UserId) -> bool {
        let copies = self.copies.load();
        let Some(copy) = copies.get(coupon) else { return false };
        copy.used.store(true, Ordering::Relaxed);
        // The lease is checked after the request arrived. If it is valid, no raised quota was in
        // effect at that time.
        self.now() < copy.valid_until.load(Ordering::Acquire)
            && copy.users.binary_search(&user).is_err()
    }

    /// Starts reading the winners in the background, unless that is in progress. Called when Redis
    /// has answered that the coupon is sold out.
    pub(super) fn start_loading(self: &Arc<Self>, coupon: &CouponId) {
        if !self.loading.lock().unwrap_or_else(PoisonError::into_inner).insert(coupon.clone()) {
            return;
        }
        let (cache, coupon) = (self.clone(), coupon.clone());
        tokio::spawn(async move {
            if let Err(error) = cache.load(&coupon).await {
                tracing::debug!(%coupon, %error, "could not read the holders of a sold-out coupon");
            }
            cache.loading.lock().unwrap_or_else(PoisonError::into_inner).remove(&coupon);
        });
    }

    /// Renews the leases of the copies in use, and drops invalid and idle copies. Called every
    /// [`RENEWAL_INTERVAL`].
    pub(super) async fn renew(&self) {
        let copies = self.copies.load_full();
        let renewals = copies.iter().map(async |(coupon, copy)| {
            let now = self.now();
            if copy.used.swap(false, Ordering::Relaxed) {
                copy.last_used.store(now, Ordering::Relaxed);
                self.renew_copy(coupon, copy).await
            } else {
                let idle = now.saturating_sub(copy.last_used.load(Ordering::Relaxed));
                u128::from(idle) < IDLE_TIMEOUT.as_millis()
            }
        });
        let kept = futures::future::join_all(renewals).await;
        for ((coupon, copy), kept) in copies.iter().zip(kept) {
            if !kept {
                self.drop_copy(coupon, copy);
            }
        }
    }

    /// Returns whether the copy is still valid or may become valid.
    async fn renew_copy(&self, coupon: &CouponId, copy: &WinnersCopy) -> bool {
        let asked_at = self.now();
        match store::counts(&self.redis, coupon).await {
            Ok(counts) if is_valid(&counts, &copy.edition) => {
                copy.valid_until.store(asked_at + lease_ms(&counts), Ordering::Release);
                true
            }
            Ok(_) | Err(redis::Error::NotPublished) => false,
            // Unknown. The lease expires, and is renewed once Redis answers.
            Err(_) => true,
        }
    }

    async fn load(&self, coupon: &CouponId) -> Result<(), redis::Error> {
        let existing = self.copies.load().get(coupon).cloned();
        if let Some(copy) = existing {
            // The copy was not used, so its lease has expired. Its users may be current.
            if self.renew_copy(coupon, &copy).await {
                return Ok(());
            }
            self.drop_copy(coupon, &copy);
        }
        let mut users = Vec::new();
        let (mut cursor, mut edition) = ("0".to_owned(), None);
        let capacity = MAX_CACHED_WINNERS
            .saturating_sub(self.copies.load().values().map(|copy| copy.users.len()).sum());
        loop {
            let asked_at = self.now();
            let page = store::scan_holders(&self.redis, coupon, &cursor, WINNERS_PER_CALL).await?;
            let edition = edition.get_or_insert_with(|| page.counts.edition.clone());
            if !is_valid(&page.counts, edition) || page.counts.issued > capacity as u64 {
                return Ok(());
            }
            users.extend(page.users);
            match page.next {
                Some(next) => cursor = next,
                None => {
                    users.sort_unstable();
                    users.dedup();
                    if users.len() as u64 == page.counts.issued {
                        self.insert(coupon, users, &page.counts, asked_at);
                    } else {
                        tracing::error!(
                            %coupon,
                            read = users.len(),
                            issued = page.counts.issued,
                            "the holders of a sold-out coupon do not match the number of issues"
                        );
                    }
                    return Ok(());
                }
            }
        }
    }

    fn insert(&self, coupon: &CouponId, users: Vec<UserId>, counts: &CouponCounts, asked_at: u64) {
        let copy = Arc::new(WinnersCopy {
            edition: counts.edition.clone(),
            users: users.into(),
            valid_until: AtomicU64::new(asked_at + lease_ms(counts)),
            used: AtomicBool::new(true),
            last_used: AtomicU64::new(asked_at),
        });
        self.copies.rcu(|copies| {
            let mut copies = HashMap::clone(copies);
            copies.insert(coupon.clone(), copy.clone());
            copies
        });
    }

    fn drop_copy(&self, coupon: &CouponId, copy: &Arc<WinnersCopy>) {
        self.copies.rcu(|copies| {
            let mut copies = HashMap::clone(copies);
            if copies.get(coupon).is_some_and(|current| Arc::ptr_eq(current, copy)) {
                copies.remove(coupon);
            }
            copies
        });
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Whether the set of winners can't have changed since the coupon sold out under this edition.
fn is_valid(counts: &CouponCounts, edition: &str) -> bool {
    counts.sold_out && counts.edition == edition && counts.now < counts.ends_at
}

/// How long a reply of Redis remains valid, in milliseconds.
fn lease_ms(counts: &CouponCounts) -> u64 {
    let until_end = u64::try_from(counts.ends_at - counts.now).unwrap_or(0);
    until_end.min(u64::try_from(LEASE_DURATION.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(now: i64, sold_out: bool) -> CouponCounts {
        CouponCounts { now, issued: 5, edition: "a".into(), version: 1, ends_at: 10_000, sold_out }
    }

    #[test]
    fn copy_is_valid_for_one_edition_of_a_sold_out_coupon_until_it_ends() {
        assert!(is_valid(&counts(1, true), "a"));
        assert!(!is_valid(&counts(1, true), "b"));
        assert!(!is_valid(&counts(1, false), "a"));
        assert!(!is_valid(&counts(10_000, true), "a"));
    }

    #[test]
    fn lease_ends_before_a_raised_quota_takes_effect_and_with_the_window() {
        assert_eq!(lease_ms(&counts(1, true)), 300);
        assert_eq!(lease_ms(&counts(9_900, true)), 100);
        assert_eq!(lease_ms(&counts(10_001, true)), 0);
        assert!(
            LEASE_DURATION.as_millis() + RENEWAL_INTERVAL.as_millis()
                < u128::try_from(QUOTA_RAISE_DELAY_MS).unwrap()
        );
    }
}
