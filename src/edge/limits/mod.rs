//! Rate limits per user, per address and in total, as token buckets in memory.
//!
//! The limits protect one instance and are not shared between instances. Correctness does not
//! depend on them. Extractors count a user once per request, separately for each kind of request
//! ([`crate::http::user_limit`]). A layer counts addresses and the total before any other work. The
//! number of buckets is bounded (`bounded_buckets`).

mod bounded_buckets;
mod request_kind;

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::{StateInformationMiddleware, StateSnapshot};
use governor::{DefaultDirectRateLimiter, NotUntil, Quota, RateLimiter};
use tokio_util::sync::CancellationToken;

use crate::http::peer::{PeerAddress, client_address, network};
use crate::http::problem::ProblemDetails;
use crate::http::rate_limit::RateLimitStatus;
use crate::http::user_limit::UserRateLimiter;
use crate::ids::UserId;
use crate::telemetry::Metric;

use bounded_buckets::BoundedBuckets;
pub(super) use request_kind::request_kind;
pub use request_kind::{RequestClassifier, RequestKind};

/// Buckets per kind of limit. An idle caller has no bucket, so more callers at the same time are an
/// attack.
const MAX_BUCKETS: usize = 1 << 18;
/// The burst of a kind with its own rate, in seconds of that rate. The default of users has the
/// same ratio.
const BURST_SECONDS: u32 = 4;

/// How often full buckets are removed: they contain no information.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(5);

/// Requests per second. 0 disables a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimitSettings {
    pub user_per_second: u32,
    /// Requests that an idle user may send at once; at least 1.
    pub user_burst: u32,
    /// Per user for joins, polls, bookings and payments, in this order. `None` uses
    /// `user_per_second` and `user_burst`.
    pub kinds: [Option<u32>; 4],
    /// Per address, with a burst of one second.
    pub address_per_second: u32,
    /// For all callers together, with a burst of one second.
    pub global_per_second: u32,
    /// Joins of all callers together, with a burst of one second.
    pub joins_per_second: u32,
    /// The number of trusted proxies in front of the service.
    pub trusted_proxies: u8,
}

type KeyedBuckets<K> = RateLimiter<K, BoundedBuckets<K>, DefaultClock, StateInformationMiddleware>;

pub struct RateLimits {
    /// In the order of [`RequestKind`].
    users: [Option<KeyedBuckets<UserId>>; 5],
    addresses: Option<KeyedBuckets<IpAddr>>,
    total: Option<DefaultDirectRateLimiter>,
    joins: Option<DefaultDirectRateLimiter>,
    trusted_proxies: u8,
    clock: DefaultClock,
    classify: RequestClassifier,
}

impl RateLimits {
    /// Creates the buckets. `classify` returns the kind of a route.
    pub fn new(settings: &RateLimitSettings, classify: RequestClassifier) -> Self {
        fn quota(per_second: u32, burst: u32) -> Option<Quota> {
            let per_second = NonZeroU32::new(per_second)?;
            Some(
                Quota::per_second(per_second)
                    .allow_burst(NonZeroU32::new(burst).unwrap_or(per_second)),
            )
        }
        fn keyed<K: Hash + Eq + Clone>(quota: Option<Quota>) -> Option<KeyedBuckets<K>> {
            quota.map(|quota| {
                RateLimiter::new(quota, BoundedBuckets::new(MAX_BUCKETS), DefaultClock::default())
            })
        }
        let [join, poll, book, pay] = settings.kinds;
        let users = [join, poll, book, pay, None].map(|own_rate| {
            keyed(match own_rate {
                Some(per_second) => quota(per_second, per_second.saturating_mul(BURST_SECONDS)),
                None => quota(settings.user_per_second, settings.user_burst),
            })
        });
        Self {
            users,
            addresses: keyed(quota(settings.address_per_second, 0)),
            total: quota(settings.global_per_second, 0).map(RateLimiter::direct),
            joins: quota(settings.joins_per_second, 0).map(RateLimiter::direct),
            trusted_proxies: settings.trusted_proxies,
            clock: DefaultClock::default(),
            classify,
        }
    }

    /// No limits, for tests.
    pub fn disabled() -> Self {
        let settings = RateLimitSettings {
            user_per_second: 0,
            user_burst: 0,
            kinds: [None; 4],
            address_per_second: 0,
            global_per_second: 0,
            joins_per_second: 0,
            trusted_proxies: 0,
        };
        Self::new(&settings, |_, _| RequestKind::Other)
    }

    /// Whether any limit by address or in total is set.
    pub(super) fn limits_addresses(&self) -> bool {
        self.addresses.is_some() || self.total.is_some() || self.joins.is_some()
    }

    /// Counts a request of this user.
    ///
    /// # Errors
    /// 429 `rate_limited` when the bucket is empty.
    pub fn check_user(
        &self,
        user: UserId,
        kind: RequestKind,
    ) -> Result<Option<RateLimitStatus>, ProblemDetails> {
        let Some(users) = &self.users[kind as usize] else { return Ok(None) };
        match users.check_key(&user) {
            Ok(snapshot) => Ok(Some(status("user", &snapshot))),
            Err(until) => Err(self.refusal(&until, "user", kind)),
        }
    }

    /// Counts a request from this address, and in total.
    ///
    /// # Errors
    /// 429 `rate_limited` when a bucket is empty.
    pub fn check_address(&self, address: IpAddr, kind: RequestKind) -> Result<(), ProblemDetails> {
        // The address comes first: one over its limit must not use up the total limit of the
        // others.
        let address = network(address);
        self.addresses
            .as_ref()
            .map_or(Ok(()), |addresses| addresses.check_key(&address).map(drop))
            .map_err(|until| self.refusal(&until, "address", kind))?;
        // Joins come before the total: refused joins must not use up the total limit.
        let joins = self.joins.as_ref().filter(|_| kind == RequestKind::Join);
        for limit in joins.into_iter().chain(&self.total) {
            limit.check().map_err(|until| self.refusal(&until, "all", kind))?;
        }
        Ok(())
    }

    fn refusal(
        &self,
        until: &NotUntil<<DefaultClock as Clock>::Instant>,
        by: &'static str,
        kind: RequestKind,
    ) -> ProblemDetails {
        Metric::RateLimitedTotal.counter(&[("by", by), ("kind", kind.name())]).increment(1);
        let wait = until.wait_time_from(self.clock.now());
        let quota = until.quota();
        ProblemDetails::rate_limited(RateLimitStatus {
            policy: by,
            quota: quota.burst_size().get(),
            window_seconds: whole_seconds(quota.burst_size_replenished_in()),
            remaining: 0,
            reset_seconds: whole_seconds(wait).max(1),
        })
    }

    /// Removes full buckets every few seconds until `stop` is cancelled, so that memory depends on
    /// the callers of the last seconds only.
    pub async fn run_cleanup(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(CLEANUP_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            self.remove_full_buckets();
        }
    }

    fn remove_full_buckets(&self) {
        fn clean<K: Hash + Eq + Clone>(limiter: &KeyedBuckets<K>) -> usize {
            limiter.retain_recent();
            limiter.shrink_to_fit();
            limiter.len()
        }
        let users: usize = self.users.iter().flatten().map(clean).sum();
        let addresses = self.addresses.as_ref().map_or(0, clean);
        Metric::LimitedCallers.gauge(&[("by", "user")]).set(users as f64);
        Metric::LimitedCallers.gauge(&[("by", "address")]).set(addresses as f64);
    }
}

/// What is left after an accepted request.
fn status(policy: &'static str, snapshot: &StateSnapshot) -> RateLimitStatus {
    let quota = snapshot.quota();
    let (size, remaining) = (quota.burst_size().get(), snapshot.remaining_burst_capacity());
    RateLimitStatus {
        policy,
        quota: size,
        window_seconds: whole_seconds(quota.burst_size_replenished_in()),
        remaining,
        reset_seconds: whole_seconds(quota.replenish_interval() * size.saturating_sub(remaining)),
    }
}

/// Rounded up.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

impl UserRateLimiter for RateLimits {
    fn check(
        &self,
        user: UserId,
        parts: &Parts,
    ) -> Result<Option<RateLimitStatus>, ProblemDetails> {
        self.check_user(user, request_kind(self.classify, &parts.method, &parts.extensions))
    }
}

/// The middleware for limits by address and in total.
pub(super) async fn limit_by_address(
    State(limits): State<Arc<RateLimits>>,
    request: Request,
    next: Next,
) -> Response {
    // Absent without a connection, as in tests that call a router directly.
    if let Some(PeerAddress(peer)) = request.extensions().get() {
        let address = client_address(*peer, request.headers(), limits.trusted_proxies);
        let kind = request_kind(limits.classify, request.method(), request.extensions());
        if let Err(problem) = limits.check_address(address, kind) {
            return problem.into_response();
        }
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::user_limit::{UserRateLimit, count_user};
    use uuid::Uuid;

    fn limits(user: u32, burst: u32, address: u32, global: u32) -> RateLimits {
        let settings = RateLimitSettings {
            user_per_second: user,
            user_burst: burst,
            kinds: [None, None, None, Some(5)],
            address_per_second: address,
            global_per_second: global,
            joins_per_second: 2,
            trusted_proxies: 0,
        };
        RateLimits::new(&settings, |_, _| RequestKind::Other)
    }

    fn user(n: u128) -> UserId {
        Uuid::from_u128(n).into()
    }

    #[test]
    fn user_has_a_burst_that_other_users_do_not_share() {
        let limits = limits(1, 3, 0, 0);
        for remaining in [2, 1, 0] {
            let status = limits.check_user(user(1), RequestKind::Other).unwrap().unwrap();
            let expected = (3, 3, remaining, u64::from(3 - remaining));
            let RateLimitStatus { quota, window_seconds, remaining, reset_seconds, .. } = status;
            assert_eq!((quota, window_seconds, remaining, reset_seconds), expected);
        }
        let problem = limits.check_user(user(1), RequestKind::Other).unwrap_err();
        assert_eq!(problem.code(), "rate_limited");
        let response = problem.into_response();
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.headers()["ratelimit"], "\"user\";r=0;t=1");
        assert_eq!(response.headers()["ratelimit-policy"], "\"user\";q=3;w=3");
        limits.check_user(user(2), RequestKind::Other).unwrap();
    }

    #[test]
    fn each_kind_has_separate_buckets() {
        let limits = limits(1, 3, 0, 0);
        while limits.check_user(user(1), RequestKind::Poll).is_ok() {}
        assert!(
            limits.check_user(user(1), RequestKind::Book).is_ok(),
            "a user who polls too often may book"
        );
        let paid =
            (0..100).filter(|_| limits.check_user(user(1), RequestKind::Pay).is_ok()).count();
        assert_eq!(paid, 20, "five per second, with a burst of four seconds");
        let from = |kind| limits.check_address("192.0.2.1".parse().unwrap(), kind).is_ok();
        assert_eq!((0..9).filter(|_| from(RequestKind::Join)).count(), 2, "joins in all");
        assert!(from(RequestKind::Poll));
    }

    #[test]
    fn address_over_its_limit_does_not_use_the_total_limit() {
        let limits = limits(0, 0, 2, 3);
        let (noisy, quiet) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        assert_eq!(
            (0..9).filter(|_| limits.check_address(noisy, RequestKind::Other).is_ok()).count(),
            2
        );
        limits.check_address(quiet, RequestKind::Other).unwrap();
        assert!(limits.check_address(quiet, RequestKind::Other).is_err(), "three in total");
    }

    #[test]
    fn disabled_limits_refuse_nothing() {
        let limits = RateLimits::disabled();
        for _ in 0..10_000 {
            limits.check_user(user(1), RequestKind::Other).unwrap();
            limits.check_address("192.0.2.1".parse().unwrap(), RequestKind::Other).unwrap();
        }
    }

    #[test]
    fn full_buckets_are_removed() {
        let limits = limits(1_000_000, 1_000_000, 0, 0);
        for n in 0..1000 {
            limits.check_user(user(n), RequestKind::Other).unwrap();
        }
        let users = limits.users[RequestKind::Other as usize].as_ref().unwrap();
        assert!(!users.is_empty());
        for _ in 0..1000 {
            limits.remove_full_buckets();
            if users.is_empty() {
                return;
            }
        }
        panic!("{} full buckets are left", users.len());
    }

    #[test]
    fn one_request_counts_its_user_once() {
        let (mut parts, ()) = axum::http::Request::new(()).into_parts();
        assert_eq!(count_user(&mut parts, user(1)).unwrap_err().code(), "internal");
        let limits = Arc::new(limits(1, 1, 0, 0));
        parts.extensions.insert(UserRateLimit(limits.clone()));
        count_user(&mut parts, user(1)).unwrap();
        count_user(&mut parts, user(1)).unwrap();
        assert!(limits.check_user(user(1), RequestKind::Other).is_err());
    }
}
