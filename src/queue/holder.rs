//! Who holds a queue token: the extractors of every route that asks for one.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};

use super::{Claims, QueueService};
use crate::http::ProblemDetails;
use crate::http::identity::OptionalUser;
use crate::http::user_limit::count_user;
use crate::ids::UserId;

/// The header that carries the token.
pub const TOKEN_HEADER: &str = "queue-token";

/// What the request's queue token says. Its signature holds; whether its place still does, Redis decides. Missing, malformed or forged:
/// 401 `invalid_queue_token`; together with another user's identity: 403 `wrong_user`.
#[derive(Debug, Clone)]
pub struct TokenHolder {
    /// What it says.
    pub claims: Claims,
    /// The token as it was shown, which no log prints.
    pub token: HeaderValue,
}

/// The user who calls, by identity or by queue token. Neither: 401 `unauthenticated`.
#[derive(Debug, Clone, Copy)]
pub struct RequestOwner(pub UserId);

impl<S: Send + Sync> FromRequestParts<S> for TokenHolder {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ProblemDetails> {
        let OptionalUser(user) = OptionalUser::from_request_parts(parts, state).await?;
        let queue = parts.extensions.get::<Arc<QueueService>>().ok_or_else(|| {
            tracing::error!("the router lacks the queue: no token can be checked");
            ProblemDetails::internal()
        })?;
        let mut tokens = parts.headers.get_all(TOKEN_HEADER).iter();
        let (Some(mut token), None) = (tokens.next().cloned(), tokens.next()) else {
            return Err(invalid_queue_token());
        };
        token.set_sensitive(true);
        let claims = token.to_str().ok().and_then(|token| queue.verify(token));
        let claims = claims.ok_or_else(invalid_queue_token)?;
        if user.is_some_and(|user| user != claims.user) {
            let detail = "The identity and the Queue-Token are of different users.";
            return Err(ProblemDetails::new(StatusCode::FORBIDDEN, "wrong_user", detail));
        }
        count_user(parts, claims.user)?;
        Ok(Self { claims, token })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestOwner {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ProblemDetails> {
        if parts.headers.contains_key(TOKEN_HEADER) {
            let TokenHolder { claims, .. } = TokenHolder::from_request_parts(parts, state).await?;
            return Ok(Self(claims.user));
        }
        let OptionalUser(user) = OptionalUser::from_request_parts(parts, state).await?;
        user.map(Self).ok_or_else(|| {
            ProblemDetails::unauthenticated("This call needs an identity or a Queue-Token.")
        })
    }
}

pub(super) fn invalid_queue_token() -> ProblemDetails {
    let detail = "Queue-Token is missing, malformed or not signed by this service.";
    ProblemDetails::new(StatusCode::UNAUTHORIZED, "invalid_queue_token", detail)
}
