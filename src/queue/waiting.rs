//! The API of the waiting page (`web/waiting.html`): a place for its visitor, kept in a cookie,
//! which survives reloads and closed tabs.
//!
//! Visitors of a site behind the gate may have no identity. In the identity modes `guest` and
//! `header`, a visitor without an identity gets a random id, known only by the cookie. In other
//! modes, visitors must be authenticated.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};

use super::dto::ticket_dto;
use super::gate::cookie;
use super::languages::PreferredLanguages;
use super::{AdmissionState, Error, QueueService, Ticket};
use crate::edge::challenge::ChallengePassed;
use crate::http::identity::{IdentityResolver, OptionalUser, QueueVisitor};
use crate::http::path::PathParams;
use crate::http::user_recorder::record_user_in_background;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{QueueId, UserName};

/// Longer than any wait.
const COOKIE_MAX_AGE_SECONDS: u32 = 86_400;

/// The route of the page. It is not part of the public API: clients join with
/// `POST /v1/queues/{queue}/tokens`.
pub fn router() -> Router<Arc<QueueService>> {
    Router::new().route("/waiting/{queue}/place", post(restore_or_join))
}

/// Returns the ticket of the cookie if its place exists, and joins the queue otherwise.
async fn restore_or_join(
    State(queue): State<Arc<QueueService>>,
    Extension(identities): Extension<Arc<IdentityResolver>>,
    PathParams(id): PathParams<QueueId>,
    OptionalUser(name): OptionalUser,
    languages: PreferredLanguages,
    request: Request,
) -> Result<Response, ProblemDetails> {
    if !is_same_origin(request.headers()) {
        let detail = "Only the waiting page may send this request.";
        return Err(ProblemDetails::forbidden(detail));
    }
    queue.find_settings(&id).await?;
    if let Some(ticket) = ticket_of_cookie(&queue, &id, name.as_ref(), request.headers()).await? {
        return Ok(respond(&queue, &ticket, &languages));
    }
    let (mut parts, _) = request.into_parts();
    ChallengePassed::from_request_parts(&mut parts, &()).await?;
    if let Some(name) = &name {
        record_user_in_background(&parts, name)?;
    }
    let visitor = name
        .map(|name| QueueVisitor { name, is_guest: false })
        .or_else(|| identities.new_visitor())
        .ok_or_else(|| ProblemDetails::unauthenticated("This request requires an identity."))?;
    Ok(respond(&queue, &queue.join(&id, &visitor).await?.0, &languages))
}

/// Whether the request comes from this origin, as far as the browser says (Fetch Metadata).
///
/// A request from another site lacks the cookie because of `SameSite=Lax`. It would replace the
/// user's place by a new one at the end of the queue.
fn is_same_origin(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin")
}

async fn ticket_of_cookie(
    queue: &Arc<QueueService>,
    id: &QueueId,
    user: Option<&UserName>,
    headers: &HeaderMap,
) -> Result<Option<Ticket>, Error> {
    let claims = cookie(headers, id)
        .and_then(|token| queue.verify(token))
        .filter(|claims| claims.queue == *id);
    let Some(claims) = claims.filter(|claims| user.is_none_or(|user| user.key() == claims.user))
    else {
        return Ok(None);
    };
    let ticket = queue.poll(&claims).await?;
    Ok((ticket.admission != AdmissionState::Expired).then_some(ticket))
}

fn respond(queue: &QueueService, ticket: &Ticket, languages: &PreferredLanguages) -> Response {
    let dto = ticket_dto(queue, ticket, None, languages);
    let (queue, token) = (&ticket.claims.queue, dto.token());
    let cookie = format!(
        "usher-{queue}={token}; Path=/; Max-Age={COOKIE_MAX_AGE_SECONDS}; Secure; HttpOnly; \
         SameSite=Lax"
    );
    (StatusCode::OK, [(SET_COOKIE, cookie)], JsonBody(dto)).into_response()
}
