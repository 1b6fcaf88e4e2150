//! The rate limit of users, as extractors see it.
//!
//! Only an extractor learns who the user is, so it counts the request. The edge owns the buckets
//! and puts them behind [`UserRateLimiter`] into the extensions of each request.

use std::sync::Arc;

use axum::http::request::Parts;

use super::problem::ProblemDetails;
use super::rate_limit::{RateLimitSlot, RateLimitStatus};
use crate::ids::UserId;

/// Counts the requests of users.
pub trait UserRateLimiter: Send + Sync + 'static {
    /// Counts this request of this user, and returns what is left of the limit. `None` without a
    /// limit.
    ///
    /// # Errors
    /// 429 `rate_limited` when the user's bucket is empty.
    fn check(&self, user: UserId, parts: &Parts)
    -> Result<Option<RateLimitStatus>, ProblemDetails>;
}

/// The rate limiter in the extensions of a request.
#[derive(Clone)]
pub struct UserRateLimit(pub Arc<dyn UserRateLimiter>);

/// Marks a request whose user is counted, so that identity and queue token together count once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CountedUser(UserId);

/// Counts the user of this request, once per request however many extractors call it.
///
/// # Errors
/// 429 `rate_limited`; 500 `internal` when the router lacks the layers of the edge.
pub fn count_user(parts: &mut Parts, user: UserId) -> Result<(), ProblemDetails> {
    if parts.extensions.get::<CountedUser>() == Some(&CountedUser(user)) {
        return Ok(());
    }
    let UserRateLimit(limiter) = parts.extensions.get().cloned().ok_or_else(|| {
        tracing::error!("the router has no UserRateLimit extension: edge::layers is missing");
        ProblemDetails::internal()
    })?;
    let status = limiter.check(user, parts)?;
    if let (Some(status), Some(slot)) = (status, parts.extensions.get::<RateLimitSlot>()) {
        slot.fill(status);
    }
    parts.extensions.insert(CountedUser(user));
    Ok(())
}
