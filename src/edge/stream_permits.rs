//! Permits limit the event streams of an instance, in total and per user.
//!
//! A stream keeps its connection for as long as a user waits, and waiting users outnumber all other
//! callers. Without a limit they would take every connection, and users who pay would get none. So
//! the total is always below the number of connections, and the rest is left for other requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::response::{IntoResponse, Response};
use metrics::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::problem::ProblemDetails;
use crate::ids::UserId;
use crate::telemetry::Metric;

/// When a refused client may try again, in seconds. A stream lasts for minutes, so earlier attempts
/// would find the same state.
const RETRY_AFTER_SECONDS: u32 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Concurrent streams. `None` means [`StreamLimits::default_total`] of the connections.
    pub total: Option<usize>,
    /// Concurrent streams of one user. 0 disables the limit.
    pub per_user: u32,
}

impl StreamLimits {
    /// Four fifths of the connections, and at least one.
    pub fn default_total(connections: usize) -> usize {
        (connections / 5 * 4 + connections % 5 * 4 / 5).max(1)
    }

    /// The total for a listener with this number of connections, which a low limit of open files
    /// may have reduced.
    fn total_for(&self, connections: usize) -> usize {
        let default = Self::default_total(connections);
        self.total.filter(|total| *total < connections).unwrap_or(default)
    }
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self { total: None, per_user: 3 }
    }
}

/// The permits of one instance.
pub struct StreamPermits {
    total: Arc<Semaphore>,
    users: Arc<StreamsByUser>,
}

/// Streams per user. Users without streams have no entry.
struct StreamsByUser {
    max: u32,
    open_streams: Gauge,
    counts: Mutex<HashMap<UserId, u32>>,
}

/// Held as long as the stream is open.
pub struct StreamPermit {
    users: Arc<StreamsByUser>,
    user: UserId,
    _permit: OwnedSemaphorePermit,
}

/// Why a stream was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamRefusal {
    /// The instance has its maximum.
    Total,
    /// The user has their maximum.
    User,
}

impl StreamPermits {
    /// `connections` is the limit of the public listener.
    pub fn new(limits: &StreamLimits, connections: usize) -> Self {
        let total = limits.total_for(connections).min(Semaphore::MAX_PERMITS);
        // The counters exist from the start, so that a dashboard shows 0 and not a gap.
        for limit in ["total", "user"] {
            Metric::StreamsRefusedTotal.counter(&[("limit", limit)]).increment(0);
        }
        Self {
            total: Arc::new(Semaphore::new(total)),
            users: Arc::new(StreamsByUser {
                max: limits.per_user,
                open_streams: Metric::Streams.gauge(&[]),
                counts: Mutex::default(),
            }),
        }
    }

    /// A permit for one stream of the user. Refusals are counted.
    ///
    /// # Errors
    /// [`StreamRefusal`] at once when a limit is reached.
    pub fn acquire(&self, user: UserId) -> Result<StreamPermit, StreamRefusal> {
        let outcome = self.try_acquire(user);
        if let Err(refusal) = &outcome {
            let limit = match refusal {
                StreamRefusal::Total => "total",
                StreamRefusal::User => "user",
            };
            Metric::StreamsRefusedTotal.counter(&[("limit", limit)]).increment(1);
        }
        outcome
    }

    fn try_acquire(&self, user: UserId) -> Result<StreamPermit, StreamRefusal> {
        let permit = self.total.clone().try_acquire_owned().map_err(|_| StreamRefusal::Total)?;
        let mut counts = self.users.counts();
        let count = counts.entry(user).or_default();
        if self.users.max > 0 && *count >= self.users.max {
            return Err(StreamRefusal::User);
        }
        *count += 1;
        drop(counts);
        self.users.open_streams.increment(1.0);
        Ok(StreamPermit { users: self.users.clone(), user, _permit: permit })
    }
}

impl StreamsByUser {
    fn counts(&self) -> MutexGuard<'_, HashMap<UserId, u32>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.users.open_streams.decrement(1.0);
        let mut counts = self.users.counts();
        if let Some(count) = counts.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.user);
            }
        }
    }
}

impl IntoResponse for StreamRefusal {
    /// 503 `overloaded`. The response closes its connection, so that refused clients do not use the
    /// connections that are kept for other requests.
    fn into_response(self) -> Response {
        let detail = match self {
            Self::Total => "The instance has too many event streams. Poll instead, or retry later.",
            Self::User => "The user has too many event streams. Close another one first.",
        };
        let problem = ProblemDetails::overloaded_with(detail).retry_after(RETRY_AFTER_SECONDS);
        let mut response = problem.into_response();
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn user(n: u128) -> UserId {
        Uuid::from_u128(n).into()
    }

    #[test]
    fn users_and_the_instance_have_their_maximum() {
        let limits = StreamLimits { total: Some(4), per_user: 2 };
        let permits = StreamPermits::new(&limits, 10);
        let first = permits.acquire(user(1)).ok().unwrap();
        let second = permits.acquire(user(1)).ok().unwrap();
        assert_eq!(permits.acquire(user(1)).err(), Some(StreamRefusal::User));
        let others = [user(2), user(3)].map(|user| permits.acquire(user).ok().unwrap());
        assert_eq!(permits.acquire(user(4)).err(), Some(StreamRefusal::Total));
        drop(first);
        let again = permits.acquire(user(1)).ok().unwrap();
        drop((second, others, again));
        assert!(permits.users.counts().is_empty());
        assert_eq!(permits.total.available_permits(), 4);
    }

    #[test]
    fn some_connections_are_always_left_for_other_requests() {
        for (total, connections, expected) in [
            (None, 25_000, 20_000),
            (None, 60, 48),
            (None, 3, 2),
            (None, 1, 1),
            (Some(10), 60, 10),
            // The limit of open files allows fewer connections than streams.
            (Some(50), 40, 32),
        ] {
            let limits = StreamLimits { total, per_user: 3 };
            assert_eq!(limits.total_for(connections), expected, "{total:?} of {connections}");
        }
    }
}
