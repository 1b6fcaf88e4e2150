//! The line over HTTP.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::dto::{QueueDto, TicketDto, ticket};
use super::{AdmissionState, Claims, Error, QueueService, TOKEN_HEADER, TokenHolder};
use crate::edge::challenge::ChallengePassed;
use crate::http::cache::CachedForOneSecond;
use crate::http::identity::AuthenticatedUser;
use crate::http::path::PathParams;
use crate::http::problem::FieldError;
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::QueueId;

/// The routes of the line.
pub fn router() -> OpenApiRouter<Arc<QueueService>> {
    OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(join))
        .routes(routes!(poll, leave))
        .routes(routes!(events))
        .routes(routes!(super::gate::check))
        .routes(routes!(jwks))
}

/// A queue's public state, one second old at most.
#[utoipa::path(get, path = "/v1/queues/{queue}", tag = "queue", params(("queue" = QueueId, Path)),
    responses((status = 200, body = QueueDto), (status = 404, body = ProblemDetails)))]
async fn show(
    State(queue): State<Arc<QueueService>>,
    PathParams(id): PathParams<QueueId>,
) -> Result<CachedForOneSecond<JsonBody<QueueDto>>, ProblemDetails> {
    let (laid, snapshot) = queue.overview(&id).await?;
    Ok(CachedForOneSecond(JsonBody(QueueDto::new(id, &laid, &snapshot))))
}

/// Gets in line, or says where the user stands already.
#[utoipa::path(post, path = "/v1/queues/{queue}/tokens", tag = "queue", params(("queue" = QueueId, Path)),
    responses((status = 201, body = TicketDto), (status = 200, body = TicketDto), (status = 401, body = ProblemDetails),
        (status = 403, body = ProblemDetails, description = "`queue_closed`, or `forbidden` where a challenge in `Usher-Challenge` is asked for"),
        (status = 404, body = ProblemDetails),
        (status = 503, body = ProblemDetails, description = "`queue_full`")), security(("user" = [])))]
async fn join(
    State(queue): State<Arc<QueueService>>,
    PathParams(id): PathParams<QueueId>,
    AuthenticatedUser(user): AuthenticatedUser,
    ChallengePassed: ChallengePassed,
) -> Result<(StatusCode, JsonBody<TicketDto>), ProblemDetails> {
    let (place, fresh) = queue.join(&id, user).await?;
    let status = if fresh { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, JsonBody(ticket(&queue, &place, None))))
}

/// Where the holder of the token stands.
#[utoipa::path(get, path = "/v1/queues/{queue}/tokens/me", tag = "queue", params(("queue" = QueueId, Path)),
    responses((status = 200, body = TicketDto), (status = 401, body = ProblemDetails), (status = 403, body = ProblemDetails),
        (status = 404, body = ProblemDetails), (status = 410, body = ProblemDetails, description = "`queue_token_expired`")),
    security(("queue_token" = [])))]
async fn poll(
    State(queue): State<Arc<QueueService>>,
    PathParams(id): PathParams<QueueId>,
    TokenHolder { claims, token }: TokenHolder,
) -> Result<JsonBody<TicketDto>, ProblemDetails> {
    require_queue(&claims, &id)?;
    let place = queue.poll(&claims).await?;
    if place.standing == AdmissionState::Expired {
        return Err(Error::TokenExpired.into());
    }
    Ok(JsonBody(ticket(&queue, &place, Some(&token))))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    /// The queue token, for clients that can't set a header.
    token: Option<String>,
}

/// The ticket as server-sent events: at once and whenever it changes, a comment every 15 seconds; ends after `expired`.
#[utoipa::path(get, path = "/v1/queues/{queue}/tokens/me/events", tag = "queue", params(("queue" = QueueId, Path), EventsQuery),
    responses((status = 200, body = TicketDto, content_type = "text/event-stream"), (status = 401, body = ProblemDetails),
        (status = 403, body = ProblemDetails), (status = 404, body = ProblemDetails)), security(("queue_token" = [])))]
async fn events(
    State(queue): State<Arc<QueueService>>,
    PathParams(id): PathParams<QueueId>,
    QueryParams(query): QueryParams<EventsQuery>,
    request: axum::extract::Request,
) -> Result<Response, ProblemDetails> {
    let (mut parts, _) = request.into_parts();
    if let Some(token) = query.token.filter(|_| !parts.headers.contains_key(TOKEN_HEADER)) {
        let token = token.try_into().map_err(|_| super::holder::invalid_queue_token())?;
        parts.headers.insert(TOKEN_HEADER, token);
    }
    let TokenHolder { claims, .. } = TokenHolder::from_request_parts(&mut parts, &()).await?;
    require_queue(&claims, &id)?;
    Ok(super::stream::events(queue, claims).await?.into_response())
}

/// The keys by which passes are checked, as a JWK set.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "queue", responses((status = 200, body = serde_json::Value)))]
async fn jwks(State(queue): State<Arc<QueueService>>) -> impl IntoResponse {
    ([(CACHE_CONTROL, "public, max-age=60")], JsonBody(queue.jwks()))
}

/// Gives up the place or the active slot at once.
#[utoipa::path(delete, path = "/v1/queues/{queue}/tokens/me", tag = "queue", params(("queue" = QueueId, Path)),
    responses((status = 204), (status = 401, body = ProblemDetails), (status = 403, body = ProblemDetails), (status = 410, body = ProblemDetails)),
    security(("queue_token" = [])))]
async fn leave(
    State(queue): State<Arc<QueueService>>,
    PathParams(id): PathParams<QueueId>,
    TokenHolder { claims, .. }: TokenHolder,
) -> Result<StatusCode, ProblemDetails> {
    require_queue(&claims, &id)?;
    queue.leave(&claims).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses a token of another queue than the one asked for.
fn require_queue(claims: &Claims, queue: &QueueId) -> Result<(), ProblemDetails> {
    if claims.queue == *queue { Ok(()) } else { Err(wrong_queue()) }
}

/// 403: the token is of another queue than the thing asked for.
pub fn wrong_queue() -> ProblemDetails {
    ProblemDetails::new(
        StatusCode::FORBIDDEN,
        "wrong_queue",
        "The Queue-Token is of another queue.",
    )
}

impl From<Error> for ProblemDetails {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound => Self::not_found(),
            Error::Closed => {
                Self::new(StatusCode::FORBIDDEN, "queue_closed", "The queue takes nobody in.")
            }
            Error::Full => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "queue_full", "The queue is full.")
                    .retry_after(5)
            }
            Error::TokenExpired => Self::new(
                StatusCode::GONE,
                "queue_token_expired",
                "The place was left, used up, or has lapsed.",
            ),
            Error::NotAdmitted { poll_after_ms } => {
                let seconds = u32::try_from(poll_after_ms.div_ceil(1_000)).unwrap_or(u32::MAX);
                Self::new(StatusCode::FORBIDDEN, "not_admitted", "The user still waits in line.")
                    .retry_after(seconds)
            }
            Error::Unsound(flaws) => Self::invalid_request(
                flaws
                    .into_iter()
                    .map(|(field, message)| FieldError { field: field.into(), message })
                    .collect(),
            ),
            Error::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::future_size::{self, MAX_BYTES, any};

    #[test]
    fn busy_handlers_are_light() {
        assert!(future_size::of(|| poll(any(), any(), any())) <= MAX_BYTES);
        assert!(future_size::of(|| join(any(), any(), any(), any())) <= MAX_BYTES);
    }
}
