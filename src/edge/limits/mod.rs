//! How many requests one caller may make: per user, per address and overall, each a token bucket in this process' memory.
//!
//! The limits protect an instance, they are not shared between instances: correctness never hangs on them. A user is counted by the
//! extractor that learns who it is, once a request and for each kind of request apart; addresses and the whole are counted by the layer, before any
//! work is done. How many callers are remembered is bounded (`store`).

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
use governor::{DefaultDirectRateLimiter, NotUntil, Quota, RateLimiter};
use tokio_util::sync::CancellationToken;

use crate::http::peer::{PeerAddress, client_address, network};
use crate::http::problem::ProblemDetails;
use crate::http::user_limit::UserRateLimiter;
use crate::ids::UserId;
use crate::telemetry::Metric;

use bounded_buckets::BoundedBuckets;
pub(super) use request_kind::kind_of;
pub use request_kind::{RequestClassifier, RequestKind};

/// Callers of each sort who are remembered at once. Somebody who asks now and then is forgotten a moment later, so this many at once are a flood.
const CALLERS: usize = 1 << 18;
/// What the burst of a kind that has a rate of its own is, in seconds' worth: as the contract's 400 is of 100 a second.
const BURST_SECONDS: u32 = 4;

/// How often callers whose bucket is full again are forgotten: a bucket that nobody touched says nothing.
const TIDY: Duration = Duration::from_secs(5);

/// Requests per second; 0 is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimitSettings {
    /// Per user.
    pub user_per_second: u32,
    /// How many requests a user who was quiet may make at once, 1 or more.
    pub user_burst: u32,
    /// Per user, of joins, polls, bookings and payments, in this order; where nothing is set `user_per_second` and `user_burst` hold.
    pub kinds: [Option<u32>; 4],
    /// Per address, with a burst of one second's worth.
    pub address_per_second: u32,
    /// Over all callers, with a burst of one second's worth.
    pub global_per_second: u32,
    /// Joins over all callers, with a burst of one second's worth.
    pub joins_per_second: u32,
    /// How many proxies of our own stand in front.
    pub trusted_proxies: u8,
}

type KeyedBuckets<K> = RateLimiter<K, BoundedBuckets<K>, DefaultClock>;

/// The buckets.
pub struct RateLimits {
    /// By kind, in the order of [`RequestKind`].
    users: [Option<KeyedBuckets<UserId>>; 5],
    addresses: Option<KeyedBuckets<IpAddr>>,
    all: Option<DefaultDirectRateLimiter>,
    joins: Option<DefaultDirectRateLimiter>,
    trusted_proxies: u8,
    clock: DefaultClock,
    kinds: RequestClassifier,
}

impl RateLimits {
    /// Buckets of the given sizes; `kinds` says what a route is for.
    pub fn new(settings: &RateLimitSettings, kinds: RequestClassifier) -> Self {
        fn quota(per_second: u32, burst: u32) -> Option<Quota> {
            let per_second = NonZeroU32::new(per_second)?;
            Some(
                Quota::per_second(per_second)
                    .allow_burst(NonZeroU32::new(burst).unwrap_or(per_second)),
            )
        }
        fn keyed<K: Hash + Eq + Clone>(quota: Option<Quota>) -> Option<KeyedBuckets<K>> {
            quota.map(|quota| {
                RateLimiter::new(quota, BoundedBuckets::new(CALLERS), DefaultClock::default())
            })
        }
        let [join, poll, book, pay] = settings.kinds;
        let users = [join, poll, book, pay, None].map(|own| {
            keyed(match own {
                Some(per_second) => quota(per_second, per_second.saturating_mul(BURST_SECONDS)),
                None => quota(settings.user_per_second, settings.user_burst),
            })
        });
        Self {
            users,
            addresses: keyed(quota(settings.address_per_second, 0)),
            all: quota(settings.global_per_second, 0).map(RateLimiter::direct),
            joins: quota(settings.joins_per_second, 0).map(RateLimiter::direct),
            trusted_proxies: settings.trusted_proxies,
            clock: DefaultClock::default(),
            kinds,
        }
    }

    /// No limit at all, for tests.
    pub fn off() -> Self {
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

    /// Whether requests are counted by address or overall.
    pub(super) fn count_addresses(&self) -> bool {
        self.addresses.is_some() || self.all.is_some() || self.joins.is_some()
    }

    /// Counts a request of this user.
    ///
    /// # Errors
    /// 429 `rate_limited` when the bucket is empty.
    pub fn check_user(&self, user: UserId, kind: RequestKind) -> Result<(), ProblemDetails> {
        self.users[kind as usize]
            .as_ref()
            .map_or(Ok(()), |users| users.check_key(&user))
            .map_err(|until| self.refusal(&until, "user", kind))
    }

    /// Counts a request from this address, and a request overall.
    ///
    /// # Errors
    /// 429 `rate_limited` when a bucket is empty.
    pub fn check_address(&self, address: IpAddr, kind: RequestKind) -> Result<(), ProblemDetails> {
        // The address first: one that is over its limit must not use up the others' share.
        let address = network(address);
        self.addresses
            .as_ref()
            .map_or(Ok(()), |all| all.check_key(&address))
            .map_err(|until| self.refusal(&until, "address", kind))?;
        // Joins before the whole, of which a crowd at the door would else use up everything.
        let joins = self.joins.as_ref().filter(|_| kind == RequestKind::Join);
        for all in joins.into_iter().chain(&self.all) {
            all.check().map_err(|until| self.refusal(&until, "all", kind))?;
        }
        Ok(())
    }

    fn refusal(
        &self,
        until: &NotUntil<<DefaultClock as Clock>::Instant>,
        by: &str,
        kind: RequestKind,
    ) -> ProblemDetails {
        Metric::RateLimitedTotal.counter(&[("by", by), ("kind", kind.name())]).increment(1);
        let wait = until.wait_time_from(self.clock.now());
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        ProblemDetails::rate_limited(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    /// Forgets the callers who are as good as new, every few seconds until `stop` is cancelled: memory follows the callers of the
    /// last seconds, not those of all time.
    pub async fn tidy(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TIDY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            self.tidy_now();
        }
    }

    fn tidy_now(&self) {
        fn forget<K: Hash + Eq + Clone>(limiter: &KeyedBuckets<K>) -> usize {
            limiter.retain_recent();
            limiter.shrink_to_fit();
            limiter.len()
        }
        let users: usize = self.users.iter().flatten().map(forget).sum();
        let addresses = self.addresses.as_ref().map_or(0, forget);
        Metric::LimitedCallers.gauge(&[("by", "user")]).set(users as f64);
        Metric::LimitedCallers.gauge(&[("by", "address")]).set(addresses as f64);
    }
}

impl UserRateLimiter for RateLimits {
    fn check(&self, user: UserId, parts: &Parts) -> Result<(), ProblemDetails> {
        self.check_user(user, kind_of(self.kinds, &parts.method, &parts.extensions))
    }
}

/// The middleware that counts addresses and the whole.
pub(super) async fn by_address(
    State(limits): State<Arc<RateLimits>>,
    request: Request,
    next: Next,
) -> Response {
    // Without a peer (a test that calls the router directly) there is no address to count.
    if let Some(PeerAddress(peer)) = request.extensions().get() {
        let address = client_address(*peer, request.headers(), limits.trusted_proxies);
        let kind = kind_of(limits.kinds, request.method(), request.extensions());
        if let Err(problem) = limits.check_address(address, kind) {
            return problem.into_response();
        }
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn a_user_has_a_burst_and_others_are_not_concerned() {
        let limits = limits(1, 3, 0, 0);
        for _ in 0..3 {
            limits.check_user(user(1), RequestKind::Other).unwrap();
        }
        let problem = limits.check_user(user(1), RequestKind::Other).unwrap_err();
        assert_eq!(problem.code(), "rate_limited");
        assert_eq!(problem.into_response().headers()["retry-after"], "1");
        limits.check_user(user(2), RequestKind::Other).unwrap();
    }

    #[test]
    fn a_kind_has_buckets_of_its_own() {
        let limits = limits(1, 3, 0, 0);
        while limits.check_user(user(1), RequestKind::Poll).is_ok() {}
        assert!(
            limits.check_user(user(1), RequestKind::Book).is_ok(),
            "whoever polls too often may book"
        );
        let paid =
            (0..100).filter(|_| limits.check_user(user(1), RequestKind::Pay).is_ok()).count();
        assert_eq!(paid, 20, "five a second, four seconds' worth at once");
        let from = |kind| limits.check_address("192.0.2.1".parse().unwrap(), kind).is_ok();
        assert_eq!((0..9).filter(|_| from(RequestKind::Join)).count(), 2, "joins in all");
        assert!(from(RequestKind::Poll));
    }

    #[test]
    fn one_address_over_its_limit_leaves_the_others_their_share() {
        let limits = limits(0, 0, 2, 3);
        let (noisy, quiet) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        assert_eq!(
            (0..9).filter(|_| limits.check_address(noisy, RequestKind::Other).is_ok()).count(),
            2
        );
        limits.check_address(quiet, RequestKind::Other).unwrap();
        assert!(limits.check_address(quiet, RequestKind::Other).is_err(), "three overall");
    }

    #[test]
    fn off_is_off() {
        let limits = RateLimits::off();
        for _ in 0..10_000 {
            limits.check_user(user(1), RequestKind::Other).unwrap();
            limits.check_address("192.0.2.1".parse().unwrap(), RequestKind::Other).unwrap();
        }
    }

    #[test]
    fn callers_are_forgotten() {
        let limits = limits(1_000_000, 1_000_000, 0, 0);
        for n in 0..1000 {
            limits.check_user(user(n), RequestKind::Other).unwrap();
        }
        let users = limits.users[RequestKind::Other as usize].as_ref().unwrap();
        assert!(!users.is_empty());
        for _ in 0..1000 {
            limits.tidy_now();
            if users.is_empty() {
                return;
            }
        }
        panic!("{} callers are still remembered", users.len());
    }

    #[test]
    fn one_request_counts_its_user_once() {
        let (mut parts, ()) = axum::http::Request::new(()).into_parts();
        assert_eq!(count_user(&mut parts, user(1)).unwrap_err().code(), "internal");
        parts.extensions.insert(Arc::new(limits(1, 1, 0, 0)));
        count_user(&mut parts, user(1)).unwrap();
        count_user(&mut parts, user(1)).unwrap();
        assert!(
            parts
                .extensions
                .get::<Arc<RateLimits>>()
                .unwrap()
                .check_user(user(1), RequestKind::Other)
                .is_err()
        );
    }
}
