//! The waiting page (`web/waiting.html`) in the look of its queue, and its API: a place for its
//! visitor, kept in a cookie, which survives reloads and closed tabs.
//!
//! Visitors of a site behind the gate may have no identity. In the identity modes `guest` and
//! `header`, a visitor without an identity gets a random id, known only by the cookie. In other
//! modes, visitors must be authenticated.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde_json::json;

use super::dto::ticket_dto;
use super::gate::cookie;
use super::languages::PreferredLanguages;
use super::{AdmissionState, Error, QueueService, Ticket};
use crate::edge::challenge::{ChallengePassed, ChallengeWidget};
use crate::http::identity::{IdentityResolver, OptionalUser, QueueVisitor};
use crate::http::path::PathParams;
use crate::http::user_recorder::record_user_in_background;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{QueueId, UserName};
use crate::web::{self, ForeignSources};

/// Longer than any wait.
const COOKIE_MAX_AGE_SECONDS: u32 = 86_400;

/// The route of the page. It is not part of the public API: clients join with
/// `POST /v1/queues/{queue}/tokens`.
pub fn router() -> Router<Arc<QueueService>> {
    Router::new().route("/waiting/{queue}/place", post(restore_or_join))
}

/// What the waiting pages of all queues have in common.
#[derive(Debug, Clone)]
pub struct WaitingPageSettings {
    /// The widget of the bot challenge, where joins need one.
    pub widget: Option<ChallengeWidget>,
    /// The sign-in page of the site.
    pub login_url: Option<String>,
}

/// The route of the page. It needs no store for a queue that this instance knows.
pub fn page_router(settings: WaitingPageSettings) -> Router<Arc<QueueService>> {
    Router::new().route("/waiting/{queue}", get(show_page)).layer(Extension(settings))
}

/// The page, with the look of its queue as JSON for its script. 404 for an unknown queue.
async fn show_page(
    State(queue): State<Arc<QueueService>>,
    Extension(settings): Extension<WaitingPageSettings>,
    name: Result<Path<String>, PathRejection>,
    languages: PreferredLanguages,
    headers: HeaderMap,
) -> Response {
    let id = name.ok().and_then(|Path(name)| name.parse::<QueueId>().ok());
    let found = async { queue.find_settings(&id.ok_or(Error::NotFound)?).await };
    let published = match found.await {
        Ok(published) => Some(published),
        Err(Error::NotFound) => return web::not_found(&headers),
        // The page of a new queue works without its look until the stores answer again.
        Err(_) => None,
    };
    let look = published.and_then(|published| published.settings.page.clone()).unwrap_or_default();
    let widget = settings.widget.as_ref();
    let data = json!({
        "event_name": look.event_name.as_ref().and_then(|name| name.text(&languages.0)),
        "logo_url": look.logo_url,
        "accent_color": look.accent_color,
        "header_color": look.header_color,
        "support_url": look.support_url,
        "login_url": settings.login_url,
        "challenge": widget.map(|widget| json!({
            "provider": widget.provider.as_str(),
            "script_url": widget.provider.script_url(),
            "site_key": widget.site_key,
        })),
    });
    let sources = ForeignSources {
        images: look.logo_origin(),
        widget: widget.map(|widget| widget.provider.content_sources()),
    };
    web::waiting_page(&headers, &data, &sources)
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
