//! How many requests one caller may make: per user, per address and overall, each a token bucket in this process' memory.
//!
//! The limits protect an instance, they are not shared between instances: correctness never hangs on them. A user is counted by the
//! extractor that learns who it is, once a request; addresses and the whole are counted by the layer, before any work is done.

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
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter};
use tokio_util::sync::CancellationToken;

use super::peer::{Peer, client_address, network};
use super::problem::Problem;
use crate::ids::UserId;

/// How often callers whose bucket is full again are forgotten: a bucket that nobody touched says nothing.
const TIDY: Duration = Duration::from_secs(5);

/// Requests per second; 0 is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Per user.
    pub user_per_second: u32,
    /// How many requests a user who was quiet may make at once, 1 or more.
    pub user_burst: u32,
    /// Per address, with a burst of one second's worth.
    pub address_per_second: u32,
    /// Over all callers, with a burst of one second's worth.
    pub global_per_second: u32,
    /// How many proxies of our own stand in front.
    pub trusted_proxies: u8,
}

/// The buckets.
pub struct Limits {
    users: Option<DefaultKeyedRateLimiter<UserId>>,
    addresses: Option<DefaultKeyedRateLimiter<IpAddr>>,
    all: Option<DefaultDirectRateLimiter>,
    trusted_proxies: u8,
    clock: DefaultClock,
}

/// Marks a request whose user has been counted, so that identity and queue token together count once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counted(UserId);

impl Limits {
    /// Buckets of the given sizes.
    pub fn new(settings: &Settings) -> Self {
        let quota = |per_second: u32, burst: u32| {
            let per_second = NonZeroU32::new(per_second)?;
            Some(Quota::per_second(per_second).allow_burst(NonZeroU32::new(burst).unwrap_or(per_second)))
        };
        Self {
            users: quota(settings.user_per_second, settings.user_burst).map(RateLimiter::dashmap),
            addresses: quota(settings.address_per_second, 0).map(RateLimiter::dashmap),
            all: quota(settings.global_per_second, 0).map(RateLimiter::direct),
            trusted_proxies: settings.trusted_proxies,
            clock: DefaultClock::default(),
        }
    }

    /// No limit at all, for tests.
    pub fn off() -> Self {
        Self::new(&Settings {
            user_per_second: 0,
            user_burst: 0,
            address_per_second: 0,
            global_per_second: 0,
            trusted_proxies: 0,
        })
    }

    /// Whether requests are counted by address or overall.
    pub(super) fn count_addresses(&self) -> bool {
        self.addresses.is_some() || self.all.is_some()
    }

    /// Counts a request of this user.
    ///
    /// # Errors
    /// 429 `rate_limited` when the bucket is empty.
    pub fn check_user(&self, user: UserId) -> Result<(), Problem> {
        self.users
            .as_ref()
            .map_or(Ok(()), |users| users.check_key(&user))
            .map_err(|until| self.refusal(&until))
    }

    /// Counts a request from this address, and a request overall.
    ///
    /// # Errors
    /// 429 `rate_limited` when either bucket is empty.
    pub fn check_address(&self, address: IpAddr) -> Result<(), Problem> {
        // The address first: one that is over its limit must not use up the others' share.
        let address = network(address);
        self.addresses
            .as_ref()
            .map_or(Ok(()), |all| all.check_key(&address))
            .map_err(|until| self.refusal(&until))?;
        self.all
            .as_ref()
            .map_or(Ok(()), DefaultDirectRateLimiter::check)
            .map_err(|until| self.refusal(&until))
    }

    fn refusal(&self, until: &NotUntil<<DefaultClock as Clock>::Instant>) -> Problem {
        let wait = until.wait_time_from(self.clock.now());
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Problem::rate_limited(u32::try_from(seconds).unwrap_or(u32::MAX))
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
        fn forget<K: Hash + Eq + Clone>(limiter: Option<&DefaultKeyedRateLimiter<K>>) {
            if let Some(limiter) = limiter {
                limiter.retain_recent();
                limiter.shrink_to_fit();
            }
        }
        forget(self.users.as_ref());
        forget(self.addresses.as_ref());
    }
}

/// Counts the user of this request, once however many extractors ask.
///
/// # Errors
/// 429 `rate_limited`; 500 `internal` when the router lacks its layers.
pub fn count_user(parts: &mut Parts, user: UserId) -> Result<(), Problem> {
    if parts.extensions.get::<Counted>() == Some(&Counted(user)) {
        return Ok(());
    }
    let limits = parts.extensions.get::<Arc<Limits>>().ok_or_else(|| {
        tracing::error!("the router lacks http::layers: there are no limits");
        Problem::internal()
    })?;
    limits.check_user(user)?;
    parts.extensions.insert(Counted(user));
    Ok(())
}

/// The middleware that counts addresses and the whole.
pub(super) async fn by_address(State(limits): State<Arc<Limits>>, request: Request, next: Next) -> Response {
    // Without a peer (a test that calls the router directly) there is no address to count.
    if let Some(Peer(peer)) = request.extensions().get() {
        let address = client_address(*peer, request.headers(), limits.trusted_proxies);
        if let Err(problem) = limits.check_address(address) {
            return problem.into_response();
        }
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn limits(user: u32, burst: u32, address: u32, global: u32) -> Limits {
        Limits::new(&Settings {
            user_per_second: user,
            user_burst: burst,
            address_per_second: address,
            global_per_second: global,
            trusted_proxies: 0,
        })
    }

    fn user(n: u128) -> UserId {
        Uuid::from_u128(n).into()
    }

    #[test]
    fn a_user_has_a_burst_and_others_are_not_concerned() {
        let limits = limits(1, 3, 0, 0);
        for _ in 0..3 {
            limits.check_user(user(1)).unwrap();
        }
        let problem = limits.check_user(user(1)).unwrap_err();
        assert_eq!(problem.code(), "rate_limited");
        assert_eq!(problem.into_response().headers()["retry-after"], "1");
        limits.check_user(user(2)).unwrap();
    }

    #[test]
    fn one_address_over_its_limit_leaves_the_others_their_share() {
        let limits = limits(0, 0, 2, 3);
        let (noisy, quiet) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        assert_eq!((0..9).filter(|_| limits.check_address(noisy).is_ok()).count(), 2);
        limits.check_address(quiet).unwrap();
        assert!(limits.check_address(quiet).is_err(), "three overall");
    }

    #[test]
    fn off_is_off() {
        let limits = Limits::off();
        for _ in 0..10_000 {
            limits.check_user(user(1)).unwrap();
            limits.check_address("192.0.2.1".parse().unwrap()).unwrap();
        }
    }

    #[test]
    fn callers_are_forgotten() {
        let limits = limits(1_000_000, 1_000_000, 0, 0);
        for n in 0..1000 {
            limits.check_user(user(n)).unwrap();
        }
        let users = limits.users.as_ref().unwrap();
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
        assert!(parts.extensions.get::<Arc<Limits>>().unwrap().check_user(user(1)).is_err());
    }
}
