//! The extractors of queue tokens, for every route that requires one.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};

use serde::Deserialize;
use utoipa::IntoParams;

use super::{Claims, QueueService};
use crate::http::ProblemDetails;
use crate::http::identity::OptionalUser;
use crate::http::user_limit::count_user;
use crate::http::user_recorder::record_user;
use crate::ids::UserId;

pub const TOKEN_HEADER: &str = "queue-token";

/// The queue token of the request. Its signature is valid, but only Redis knows whether its place
/// still exists.
///
/// Rejects a missing, malformed or forged token with 401 `invalid_queue_token`, and a token that
/// comes with another user's identity with 403 `wrong_user`.
#[derive(Debug, Clone)]
pub struct TokenHolder {
    pub claims: Claims,
    /// The token as received. It is marked as sensitive, so that it is not logged.
    pub token: HeaderValue,
}

/// The claims of a queue token with which a user makes a hold or a payment.
/// Rejects the token of a guest with 401 `unauthenticated`.
#[derive(Debug, Clone)]
pub struct BuyerToken(pub Claims);

/// The user of the request, by identity or by queue token. Rejects a request with neither, and a
/// guest, with 401 `unauthenticated`.
#[derive(Debug, Clone, Copy)]
pub struct RequestOwner(pub UserId);

impl<S: Send + Sync> FromRequestParts<S> for TokenHolder {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ProblemDetails> {
        let OptionalUser(name) = OptionalUser::from_request_parts(parts, state).await?;
        let queue = parts.extensions.get::<Arc<QueueService>>().ok_or_else(|| {
            tracing::error!("the router has no queue service, so tokens can't be verified");
            ProblemDetails::internal()
        })?;
        let mut tokens = parts.headers.get_all(TOKEN_HEADER).iter();
        let (Some(mut token), None) = (tokens.next().cloned(), tokens.next()) else {
            return Err(invalid_queue_token());
        };
        token.set_sensitive(true);
        let claims = token.to_str().ok().and_then(|token| queue.verify(token));
        let claims = claims.ok_or_else(invalid_queue_token)?;
        if name.is_some_and(|name| name.key() != claims.user) {
            let detail = "The identity and the queue token belong to different users.";
            return Err(ProblemDetails::new(StatusCode::FORBIDDEN, "wrong_user", detail));
        }
        count_user(parts, claims.user)?;
        Ok(Self { claims, token })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for BuyerToken {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ProblemDetails> {
        let TokenHolder { claims, .. } = TokenHolder::from_request_parts(parts, state).await?;
        refuse_guest(&claims)?;
        record_user(parts, &claims.user_name()).await?;
        Ok(Self(claims))
    }
}

/// The query of an event stream.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct StreamQuery {
    /// The queue token, for clients that can't set a header.
    token: Option<String>,
}

impl StreamQuery {
    /// The token of the header, or else of the query.
    pub async fn token_holder(self, parts: &mut Parts) -> Result<TokenHolder, ProblemDetails> {
        if let Some(token) = self.token.filter(|_| !parts.headers.contains_key(TOKEN_HEADER)) {
            let token = token.try_into().map_err(|_| invalid_queue_token())?;
            parts.headers.insert(TOKEN_HEADER, token);
        }
        TokenHolder::from_request_parts(parts, &()).await
    }
}

fn refuse_guest(claims: &Claims) -> Result<(), ProblemDetails> {
    if claims.is_guest {
        return Err(ProblemDetails::unauthenticated(
            "A guest can only wait. This request requires the identity of a user.",
        ));
    }
    Ok(())
}

impl<S: Send + Sync> FromRequestParts<S> for RequestOwner {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ProblemDetails> {
        if parts.headers.contains_key(TOKEN_HEADER) {
            let TokenHolder { claims, .. } = TokenHolder::from_request_parts(parts, state).await?;
            refuse_guest(&claims)?;
            return Ok(Self(claims.user));
        }
        let OptionalUser(name) = OptionalUser::from_request_parts(parts, state).await?;
        name.map(|name| Self(name.key())).ok_or_else(|| {
            ProblemDetails::unauthenticated("This request requires an identity or a queue token.")
        })
    }
}

fn invalid_queue_token() -> ProblemDetails {
    let detail = "The queue token is missing, malformed or not signed by this service.";
    ProblemDetails::new(StatusCode::UNAUTHORIZED, "invalid_queue_token", detail)
}
