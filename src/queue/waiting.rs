//! What the waiting page (`web/waiting.html`) asks for: a place for its visitor, kept in a cookie over reloads and closed tabs.
//!
//! The visitor of a site that knows nothing of Usher has no identity. Where bare `Usher-User` headers are believed, a visitor without one is
//! made a guest, whom only the cookie knows; elsewhere the visitor must be known already.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use uuid::Uuid;

use super::dto::ticket;
use super::gate::cookie;
use super::{AdmissionState, Error, QueueService, Ticket};
use crate::edge::challenge::ChallengePassed;
use crate::http::identity::{IdentityResolver, OptionalUser};
use crate::http::path::PathParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{QueueId, UserId};

/// How long a browser keeps the cookie, in seconds: longer than any wait.
const KEPT_SECONDS: u32 = 86_400;

/// The route of the page. It is no part of the contract: clients join by `POST /v1/queues/{queue}/tokens`.
pub fn router() -> Router<Arc<QueueService>> {
    Router::new().route("/waiting/{queue}/place", post(place))
}

/// The place of the cookie while it stands, else a new one.
async fn place(
    State(queue): State<Arc<QueueService>>,
    Extension(callers): Extension<Arc<IdentityResolver>>,
    PathParams(id): PathParams<QueueId>,
    OptionalUser(user): OptionalUser,
    request: Request,
) -> Result<Response, ProblemDetails> {
    if !is_of_our_page(request.headers()) {
        return Err(ProblemDetails::forbidden("Only the waiting page itself may ask."));
    }
    queue.settings(&id).ok_or(Error::NotFound)?;
    if let Some(place) = kept(&queue, &id, user, request.headers()).await? {
        return Ok(answer(&queue, &place));
    }
    let (mut parts, _) = request.into_parts();
    ChallengePassed::from_request_parts(&mut parts, &()).await?;
    let guest = || callers.take_guests().then(|| UserId::from(Uuid::new_v4()));
    let user =
        user.or_else(guest).ok_or_else(|| ProblemDetails::unauthenticated("Sign in first."))?;
    Ok(answer(&queue, &queue.join(&id, user).await?.0))
}

/// A page of another site could send the visitor's browser here without the cookie, which `SameSite=Lax` holds back, and so have a place at the
/// end of the line put over theirs. Browsers say where a request comes from (Fetch Metadata).
fn is_of_our_page(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin")
}

async fn kept(
    queue: &Arc<QueueService>,
    id: &QueueId,
    user: Option<UserId>,
    headers: &HeaderMap,
) -> Result<Option<Ticket>, Error> {
    let claims = cookie(headers, id)
        .and_then(|token| queue.verify(token))
        .filter(|claims| claims.queue == *id);
    let Some(claims) = claims.filter(|claims| user.is_none_or(|user| user == claims.user)) else {
        return Ok(None);
    };
    let place = queue.poll(&claims).await?;
    Ok((place.standing != AdmissionState::Expired).then_some(place))
}

fn answer(queue: &QueueService, place: &Ticket) -> Response {
    let ticket = ticket(queue, place, None);
    let (queue, token) = (&place.claims.queue, ticket.token());
    let cookie = format!(
        "usher-{queue}={token}; Path=/; Max-Age={KEPT_SECONDS}; Secure; HttpOnly; SameSite=Lax"
    );
    (StatusCode::OK, [(SET_COOKIE, cookie)], JsonBody(ticket)).into_response()
}
