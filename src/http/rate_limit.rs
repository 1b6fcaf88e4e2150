//! The state of a rate limit in the headers of a response (draft-ietf-httpapi-ratelimit-headers).
//!
//! Only an extractor knows the user, and only a layer sees the response. So the layer puts a
//! [`RateLimitSlot`] into the extensions of a request, the extractor fills it, and the layer reads
//! it.

use std::sync::{Arc, OnceLock};

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;

const POLICY_HEADER: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE_HEADER: HeaderName = HeaderName::from_static("ratelimit");

/// A limit and what is left of it after this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimitStatus {
    /// The name of the limit, such as `user`.
    pub policy: &'static str,
    /// Requests that an idle caller may send at once.
    pub quota: u32,
    /// Seconds in which the whole quota is restored.
    pub window_seconds: u64,
    /// Requests that are allowed now.
    pub remaining: u32,
    /// Seconds until more requests are allowed: the next one after a refusal, else the whole quota.
    pub reset_seconds: u64,
}

impl RateLimitStatus {
    pub fn add_headers(&self, headers: &mut HeaderMap) {
        let Self { policy, quota, window_seconds, remaining, reset_seconds } = self;
        let texts = [
            (POLICY_HEADER, format!("\"{policy}\";q={quota};w={window_seconds}")),
            (STATE_HEADER, format!("\"{policy}\";r={remaining};t={reset_seconds}")),
        ];
        for (name, text) in texts {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        }
    }
}

/// The place for the status of one request.
#[derive(Debug, Clone, Default)]
pub struct RateLimitSlot(Arc<OnceLock<RateLimitStatus>>);

impl RateLimitSlot {
    /// Creates a slot and adds it to the request.
    pub fn attach(request: &mut Request) -> Self {
        let slot = Self::default();
        request.extensions_mut().insert(slot.clone());
        slot
    }

    /// Stores the status. The first one of a request stays.
    pub(super) fn fill(&self, status: RateLimitStatus) {
        let _already_filled = self.0.set(status);
    }

    /// Adds the headers to the response, unless a refusal has set its own.
    pub fn add_headers(&self, response: &mut Response) {
        if let Some(status) = self.0.get()
            && !response.headers().contains_key(STATE_HEADER)
        {
            status.add_headers(response.headers_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_follow_the_draft() {
        let status = RateLimitStatus {
            policy: "user",
            quota: 400,
            window_seconds: 4,
            remaining: 399,
            reset_seconds: 1,
        };
        let mut headers = HeaderMap::new();
        status.add_headers(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"user\";q=400;w=4");
        assert_eq!(headers["ratelimit"], "\"user\";r=399;t=1");
    }
}
