//! Who won, in memory: once a coupon is sold out, everybody who did not win is answered without asking Redis.
//!
//! A sold-out coupon's winners grow no more until its settings are laid again. So an instance that hears "sold out" reads them once, and
//! from then on knows whom Redis would refuse. Winners themselves are still answered by Redis, which knows whether theirs is used.
//!
//! A copy must never refuse somebody who won elsewhere after the quota was raised. Two rules see to it. A copy holds for [`LEASE`] from before
//! Redis last said that its edition of the settings still stands; [`WinnersCache::renew`] asks ten times a second, while the copy is used.
//! And a quota that is raised while the coupon is sold out opens only [`HOLD_MS`] after it was laid, which is longer: whoever wins
//! then, wins after every copy has run out. An instance that is cut off from Redis, or late, merely asks again.
//! A lease ends with the window too, so that the answer turns to "ended" at the moment it should.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::coupon::CouponCounts;
use super::store;
use crate::ids::{CouponId, UserId};
use crate::redis::{self, RedisClient};

/// How often copies in use are renewed.
pub(super) const RENEW: Duration = Duration::from_millis(100);
/// For how long a copy holds after Redis was asked.
const LEASE: Duration = Duration::from_millis(300);
/// For how long a raised quota stays shut, by Redis' clock.
pub(super) const HOLD_MS: i64 = 500;
/// Winners in all copies together, at sixteen bytes each. A coupon that does not fit any more is answered by Redis.
const MOST: usize = 4_000_000;
/// Winners read in one call.
const PAGE: u32 = 500;
/// A copy that nobody asked for so long is dropped.
const IDLE: Duration = Duration::from_secs(60);

/// The copies of one instance.
pub(super) struct WinnersCache {
    redis: RedisClient,
    /// What the moments in copies count from.
    started: Instant,
    copies: ArcSwap<HashMap<CouponId, Arc<WinnersCopy>>>,
    /// Coupons whose winners are being read.
    learning: Mutex<HashSet<CouponId>>,
}

struct WinnersCopy {
    edition: String,
    /// Sorted.
    users: Box<[UserId]>,
    /// Milliseconds after `started` at which the lease is over.
    until: AtomicU64,
    /// Asked since the last renewal.
    asked: AtomicBool,
    /// Milliseconds after `started` at which it was last seen to be asked.
    last_asked: AtomicU64,
}

impl WinnersCache {
    pub(super) fn new(redis: RedisClient) -> Self {
        Self {
            redis,
            started: Instant::now(),
            copies: ArcSwap::default(),
            learning: Mutex::default(),
        }
    }

    /// Whether the coupon is known to be sold out, and the user is known not to have it.
    pub(super) fn refuse(&self, coupon: &CouponId, user: UserId) -> bool {
        let copies = self.copies.load();
        let Some(copy) = copies.get(coupon) else { return false };
        copy.asked.store(true, Ordering::Relaxed);
        // The lease is looked at after the request came in, so whoever wins later has asked later.
        self.now() < copy.until.load(Ordering::Acquire) && copy.users.binary_search(&user).is_err()
    }

    /// Begins to learn who won, unless that is under way. Call it when Redis has said that the coupon is sold out.
    pub(super) fn learn(self: &Arc<Self>, coupon: &CouponId) {
        if !self.learning.lock().unwrap_or_else(PoisonError::into_inner).insert(coupon.clone()) {
            return;
        }
        let (winners, coupon) = (self.clone(), coupon.clone());
        tokio::spawn(async move {
            if let Err(error) = winners.read(&coupon).await {
                tracing::debug!(%coupon, %error, "the winners of a sold-out coupon could not be read");
            }
            winners.learning.lock().unwrap_or_else(PoisonError::into_inner).remove(&coupon);
        });
    }

    /// Renews the leases of copies in use, drops those that don't hold any more or that nobody needs. Call it every [`RENEW`].
    pub(super) async fn renew(&self) {
        let copies = self.copies.load_full();
        let looks = copies.iter().map(async |(coupon, copy)| {
            let now = self.now();
            if copy.asked.swap(false, Ordering::Relaxed) {
                copy.last_asked.store(now, Ordering::Relaxed);
                self.renew_one(coupon, copy).await
            } else {
                let idle = now.saturating_sub(copy.last_asked.load(Ordering::Relaxed));
                u128::from(idle) < IDLE.as_millis()
            }
        });
        let kept = futures::future::join_all(looks).await;
        for ((coupon, copy), kept) in copies.iter().zip(kept) {
            if !kept {
                self.drop_copy(coupon, copy);
            }
        }
    }

    /// Answers whether the copy may be kept.
    async fn renew_one(&self, coupon: &CouponId, copy: &WinnersCopy) -> bool {
        let asked_at = self.now();
        match store::counts(&self.redis, coupon).await {
            Ok(counts) if holds(&counts, &copy.edition) => {
                copy.until.store(asked_at + lease(&counts), Ordering::Release);
                true
            }
            Ok(_) | Err(redis::Error::NotLaid) => false,
            // Not known: the lease runs out, and is renewed once Redis answers.
            Err(_) => true,
        }
    }

    async fn read(&self, coupon: &CouponId) -> Result<(), redis::Error> {
        let known = self.copies.load().get(coupon).cloned();
        if let Some(copy) = known {
            // Its lease had run out for want of requests; who won is the same.
            if self.renew_one(coupon, &copy).await {
                return Ok(());
            }
            self.drop_copy(coupon, &copy);
        }
        let mut users = Vec::new();
        let (mut cursor, mut edition) = ("0".to_owned(), None);
        let room =
            MOST.saturating_sub(self.copies.load().values().map(|copy| copy.users.len()).sum());
        loop {
            let asked_at = self.now();
            let page = store::winners(&self.redis, coupon, &cursor, PAGE).await?;
            let edition = edition.get_or_insert_with(|| page.counts.edition.clone());
            if !holds(&page.counts, edition) || page.counts.issued > room as u64 {
                return Ok(());
            }
            users.extend(page.users);
            match page.next {
                Some(next) => cursor = next,
                None => {
                    users.sort_unstable();
                    users.dedup();
                    if users.len() as u64 == page.counts.issued {
                        self.keep(coupon, users, &page.counts, asked_at);
                    } else {
                        tracing::error!(%coupon, read = users.len(), issued = page.counts.issued, "not every winner was read");
                    }
                    return Ok(());
                }
            }
        }
    }

    fn keep(&self, coupon: &CouponId, users: Vec<UserId>, counts: &CouponCounts, asked_at: u64) {
        let copy = Arc::new(WinnersCopy {
            edition: counts.edition.clone(),
            users: users.into(),
            until: AtomicU64::new(asked_at + lease(counts)),
            asked: AtomicBool::new(true),
            last_asked: AtomicU64::new(asked_at),
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
            if copies.get(coupon).is_some_and(|known| Arc::ptr_eq(known, copy)) {
                copies.remove(coupon);
            }
            copies
        });
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Whether nobody can have won since the settings of that edition were laid and the coupon sold out.
fn holds(counts: &CouponCounts, edition: &str) -> bool {
    counts.sold_out && counts.edition == edition && counts.now < counts.ends_at
}

/// Milliseconds for which what Redis just said may be relied on.
fn lease(counts: &CouponCounts) -> u64 {
    let until_end = u64::try_from(counts.ends_at - counts.now).unwrap_or(0);
    until_end.min(u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(now: i64, sold_out: bool) -> CouponCounts {
        CouponCounts { now, issued: 5, edition: "a".into(), version: 1, ends_at: 10_000, sold_out }
    }

    #[test]
    fn a_copy_holds_for_one_edition_of_a_sold_out_coupon_until_it_ends() {
        assert!(holds(&counts(1, true), "a"));
        assert!(!holds(&counts(1, true), "b"));
        assert!(!holds(&counts(1, false), "a"));
        assert!(!holds(&counts(10_000, true), "a"));
    }

    #[test]
    fn a_lease_is_over_before_a_raised_quota_opens_and_ends_with_the_window() {
        assert_eq!(lease(&counts(1, true)), 300);
        assert_eq!(lease(&counts(9_900, true)), 100);
        assert_eq!(lease(&counts(10_001, true)), 0);
        assert!(LEASE.as_millis() + RENEW.as_millis() < u128::try_from(HOLD_MS).unwrap());
    }
}
