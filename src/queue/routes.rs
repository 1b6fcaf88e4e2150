//! The public routes of queues.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{FromRequestParts, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::dto::{DrawsDto, QueueDto, TicketDto, ticket_dto};
use super::languages::PreferredLanguages;
use super::line_document::LineDocument;
use super::{AdmissionState, Claims, Error, QueueService, StreamQuery, TokenHolder};
use crate::edge::challenge::ChallengePassed;
use crate::edge::compression::preferred_coding;
use crate::edge::stream_permits::StreamPermits;
use crate::http::cache::CachedForOneSecond;
use crate::http::identity::QueueVisitor;
use crate::http::path::PathParams;
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::QueueId;

pub fn router() -> OpenApiRouter<Arc<QueueService>> {
    let router = OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(draws))
        .routes(routes!(line))
        .routes(routes!(join))
        .routes(routes!(poll, leave))
        .routes(routes!(events))
        .routes(routes!(super::gate::check))
        .routes(routes!(jwks));
    super::gate::describe(router)
}

/// Get the public state of a queue
///
/// The response is at most one second old.
#[utoipa::path(
    get,
    path = "/v1/queues/{queue}",
    operation_id = "getQueue",
    tag = "queue",
    params(("queue" = QueueId, Path)),
    responses((status = 200, body = QueueDto), (status = 404, body = ProblemDetails))
)]
async fn show(
    State(queue): State<Arc<QueueService>>,
    PathParams(id): PathParams<QueueId>,
    languages: PreferredLanguages,
) -> Result<impl IntoResponse, ProblemDetails> {
    let (published, snapshot) = queue.overview(&id).await?;
    let body = QueueDto::new(id, &published, &snapshot, &languages);
    Ok(([(VARY, "accept-language")], CachedForOneSecond(JsonBody(body))))
}

/// List the draws of a queue
///
/// The response is at most one second old. A seed and its hash never change.
#[utoipa::path(
    get,
    path = "/v1/queues/{queue}/draws",
    operation_id = "listDraws",
    tag = "queue",
    params(("queue" = QueueId, Path)),
    responses((status = 200, body = DrawsDto), (status = 404, body = ProblemDetails))
)]
async fn draws(
    State(queue): State<Arc<QueueService>>,
    PathParams(id): PathParams<QueueId>,
) -> Result<CachedForOneSecond<JsonBody<DrawsDto>>, ProblemDetails> {
    let draws = queue.draws(&id).await?;
    let (_, snapshot) = queue.overview(&id).await?;
    Ok(CachedForOneSecond(JsonBody(DrawsDto::new(&draws, snapshot.state.now))))
}

/// Get the line of a queue
///
/// One document for all users, from which a client computes its position with the `score` of its
/// ticket. `docs/line.md` has the arithmetic. Caches may keep it for one second.
#[utoipa::path(
    get,
    path = "/v1/queues/{queue}/line",
    operation_id = "getLine",
    tag = "queue",
    params(("queue" = QueueId, Path)),
    responses(
        (status = 200, body = LineDocument),
        (status = 304, description = "The client has this version (`If-None-Match`)."),
        (status = 404, body = ProblemDetails,
            description = "`not_found`: the queue does not exist or is `private`."),
    )
)]
async fn line(
    State(queue): State<Arc<QueueService>>,
    PathParams(id): PathParams<QueueId>,
    headers: HeaderMap,
) -> Result<Response, ProblemDetails> {
    let line = queue.line(&id).await?;
    let tag = format!("\"{}\"", line.version);
    let head =
        [(CACHE_CONTROL, "public, max-age=1, stale-while-revalidate=5"), (VARY, "accept-encoding")];
    let is_known = headers.get(IF_NONE_MATCH).is_some_and(|known| matches_tag(known, &tag));
    let head = ([(ETAG, tag)], head);
    if is_known {
        return Ok((StatusCode::NOT_MODIFIED, head).into_response());
    }
    let kind = [(CONTENT_TYPE, "application/json")];
    let preferred = preferred_coding(&headers);
    let encoded = line.encoded.iter().find(|(coding, _)| Some(*coding) == preferred);
    Ok(match encoded {
        Some((coding, bytes)) => {
            (head, kind, [(CONTENT_ENCODING, *coding)], bytes.clone()).into_response()
        }
        None => (head, kind, line.json.clone()).into_response(),
    })
}

/// Whether If-None-Match has the tag (RFC 9110, 13.1.2). Caches may have made it weak.
fn matches_tag(known: &HeaderValue, tag: &str) -> bool {
    let known = known.to_str().unwrap_or_default();
    known.split(',').map(str::trim).any(|it| it == "*" || it.trim_start_matches("W/") == tag)
}

/// Join a queue
///
/// Returns 201 with a new ticket, or 200 with the existing one when the user has joined before.
/// Where guests are accepted, a request without identity gets a new place under a random id.
#[utoipa::path(
    post,
    path = "/v1/queues/{queue}/tokens",
    operation_id = "joinQueue",
    tag = "queue",
    params(("queue" = QueueId, Path)),
    responses(
        (status = 201, body = TicketDto),
        (status = 200, body = TicketDto),
        (status = 401, body = ProblemDetails),
        (status = 403, body = ProblemDetails,
            description = "`queue_closed`, or `forbidden` without a valid `Usher-Challenge`"),
        (status = 404, body = ProblemDetails),
        (status = 503, body = ProblemDetails, description = "`queue_full`"),
    ),
    security(("user" = []))
)]
async fn join(
    State(queue): State<Arc<QueueService>>,
    PathParams(id): PathParams<QueueId>,
    visitor: QueueVisitor,
    ChallengePassed: ChallengePassed,
    languages: PreferredLanguages,
) -> Result<(StatusCode, JsonBody<TicketDto>), ProblemDetails> {
    let (ticket, is_new) = queue.join(&id, &visitor).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let ticket = ticket_dto(&queue, &ticket, None, &languages).for_user(visitor.name);
    Ok((status, JsonBody(ticket)))
}

/// Get the ticket of a queue token
///
/// Poll again after `poll_after_ms`. The active time of an admitted user starts with their first
/// request.
#[utoipa::path(
    get,
    path = "/v1/queues/{queue}/tokens/me",
    operation_id = "getTicket",
    tag = "queue",
    params(("queue" = QueueId, Path)),
    responses(
        (status = 200, body = TicketDto),
        (status = 401, body = ProblemDetails),
        (status = 403, body = ProblemDetails),
        (status = 404, body = ProblemDetails),
        (status = 410, body = ProblemDetails, description = "`queue_token_expired`"),
    ),
    security(("queue_token" = []))
)]
async fn poll(
    State(queue): State<Arc<QueueService>>,
    PathParams(id): PathParams<QueueId>,
    TokenHolder { claims, token }: TokenHolder,
    languages: PreferredLanguages,
) -> Result<JsonBody<TicketDto>, ProblemDetails> {
    require_queue(&claims, &id)?;
    let ticket = queue.poll(&claims).await?;
    if ticket.admission == AdmissionState::Expired {
        return Err(Error::TokenExpired.into());
    }
    Ok(JsonBody(ticket_dto(&queue, &ticket, Some(&token), &languages)))
}

/// Stream the ticket as server-sent events
///
/// The stream sends the ticket immediately and after each change, and a comment every 15 seconds.
/// It ends after a ticket with the status `expired`. A token whose place no longer exists is
/// refused with 410, so that an `EventSource` does not reconnect.
#[utoipa::path(
    get,
    path = "/v1/queues/{queue}/tokens/me/events",
    operation_id = "streamTicket",
    tag = "queue",
    params(("queue" = QueueId, Path), StreamQuery),
    responses(
        (status = 200, body = TicketDto, content_type = "text/event-stream"),
        (status = 401, body = ProblemDetails),
        (status = 403, body = ProblemDetails),
        (status = 404, body = ProblemDetails),
        (status = 410, body = ProblemDetails, description = "`queue_token_expired`"),
        (status = 503, body = ProblemDetails,
            description = "`overloaded`: the instance or the user has too many streams"),
    ),
    security(("queue_token" = []))
)]
async fn events(
    State(queue): State<Arc<QueueService>>,
    Extension(streams): Extension<Arc<StreamPermits>>,
    PathParams(id): PathParams<QueueId>,
    QueryParams(query): QueryParams<StreamQuery>,
    request: axum::extract::Request,
) -> Result<Response, ProblemDetails> {
    let (mut parts, _) = request.into_parts();
    let TokenHolder { claims, .. } = query.token_holder(&mut parts).await?;
    require_queue(&claims, &id)?;
    match streams.acquire(claims.user) {
        Ok(permit) => {
            let Ok(languages) = PreferredLanguages::from_request_parts(&mut parts, &()).await;
            let events = super::stream::events(queue, claims, languages, permit).await?;
            Ok(events.into_response())
        }
        Err(refusal) => Ok(refusal.into_response()),
    }
}

/// Get the public keys of passes
///
/// The response is a JWK set (RFC 7517). Other backends use it to verify the `pass` of a ticket.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    operation_id = "getPassKeys",
    tag = "queue",
    responses(
        (status = 200, body = serde_json::Value, description = "A JWK set.",
            example = json!({"keys": []}))
    )
)]
async fn jwks(State(queue): State<Arc<QueueService>>) -> impl IntoResponse {
    ([(CACHE_CONTROL, "public, max-age=60")], JsonBody(queue.jwks()))
}

/// Leave a queue
///
/// Gives up the place or the active slot immediately.
#[utoipa::path(
    delete,
    path = "/v1/queues/{queue}/tokens/me",
    operation_id = "leaveQueue",
    tag = "queue",
    params(("queue" = QueueId, Path)),
    responses(
        (status = 204),
        (status = 401, body = ProblemDetails),
        (status = 403, body = ProblemDetails),
        (status = 410, body = ProblemDetails),
    ),
    security(("queue_token" = []))
)]
async fn leave(
    State(queue): State<Arc<QueueService>>,
    PathParams(id): PathParams<QueueId>,
    TokenHolder { claims, .. }: TokenHolder,
) -> Result<StatusCode, ProblemDetails> {
    require_queue(&claims, &id)?;
    queue.leave(&claims).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn require_queue(claims: &Claims, queue: &QueueId) -> Result<(), ProblemDetails> {
    if claims.queue == *queue { Ok(()) } else { Err(wrong_queue()) }
}

/// 403: the queue token belongs to a different queue than the requested resource.
pub fn wrong_queue() -> ProblemDetails {
    ProblemDetails::new(
        StatusCode::FORBIDDEN,
        "wrong_queue",
        "The queue token belongs to a different queue.",
    )
}

impl From<Error> for ProblemDetails {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound => Self::not_found(),
            Error::Closed => {
                Self::new(StatusCode::FORBIDDEN, "queue_closed", "The queue is closed.")
            }
            Error::Full => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "queue_full", "The queue is full.")
                    .retry_after(5)
            }
            Error::TokenExpired => Self::new(
                StatusCode::GONE,
                "queue_token_expired",
                "The place of this queue token no longer exists: the user left, or the active time \
                 ended.",
            ),
            Error::NotAdmitted { poll_after_ms } => {
                let seconds = u32::try_from(poll_after_ms.div_ceil(1_000)).unwrap_or(u32::MAX);
                let detail = "The user is still waiting in the queue.";
                Self::new(StatusCode::FORBIDDEN, "not_admitted", detail).retry_after(seconds)
            }
            Error::InUse(items) => {
                Self::in_use("Concerts name this queue, or users wait, are active or pay.", &items)
            }
            Error::PreconditionFailed => Self::precondition_failed(),
            Error::Invalid(violations) => Self::invalid_definition(violations),
            Error::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::future_size::{self, MAX_BYTES, any};

    #[test]
    fn futures_of_frequent_handlers_are_small() {
        assert!(future_size::of(|| poll(any(), any(), any(), any())) <= MAX_BYTES);
        assert!(future_size::of(|| line(any(), any(), any())) <= MAX_BYTES);
        assert!(future_size::of(|| join(any(), any(), any(), any(), any())) <= MAX_BYTES);
    }
}
