//! The line over HTTP.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::settings::{Laid, Mode, Order};
use super::{Claims, Error, Holder, Place, Queue, Snapshot, Standing, TOKEN_HEADER, rules};
use crate::http::cache::SharedForASecond;
use crate::http::identity::User;
use crate::http::path::Path;
use crate::http::problem::FieldError;
use crate::http::query::Query;
use crate::http::{Json, Problem};
use crate::ids::{QueueId, UserId};
use crate::time::Millis;

/// The routes of the line.
pub fn router() -> OpenApiRouter<Arc<Queue>> {
    OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(join))
        .routes(routes!(poll, leave))
        .routes(routes!(events))
        .routes(routes!(super::gate::check))
        .routes(routes!(jwks))
}

/// A queue as everybody may see it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueueDto {
    queue_id: QueueId,
    mode: Mode,
    waiting: u64,
    active: u64,
    max_active: u32,
    admitted_total: u64,
    opens_at: Option<Millis>,
    closes_at: Option<Millis>,
    estimated_wait_seconds: Option<u64>,
    sold_out: bool,
    /// Only where places are dealt by lottery.
    #[serde(skip_serializing_if = "Option::is_none")]
    lottery: Option<LotteryDto>,
}

/// How the lottery's places were dealt: the score of a user is the first forty bits of SHA-1 over seed and user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Lottery)]
struct LotteryDto {
    /// SHA-256 of the seed, published before the opening.
    seed_sha256: String,
    /// The seed itself, from the opening on.
    seed: Option<String>,
}

impl QueueDto {
    pub(super) fn new(queue_id: QueueId, laid: &Laid, snapshot: &Snapshot) -> Self {
        let (settings, line) = (&laid.settings, &snapshot.line);
        let behind = line.waiting + 1;
        Self {
            queue_id,
            mode: line.mode,
            waiting: line.waiting,
            active: line.active,
            max_active: settings.max_active,
            admitted_total: snapshot.admitted,
            opens_at: settings.opens_at.map(Millis::from),
            closes_at: settings.closes_at.map(Millis::from),
            estimated_wait_seconds: rules::estimated_wait_seconds(behind, line, settings),
            sold_out: line.sold_out,
            lottery: (settings.order == Order::Lottery).then(|| LotteryDto {
                seed_sha256: super::audit::seed_hash(&laid.seed),
                seed: settings
                    .opens_at
                    .is_some_and(|opens| opens.timestamp_millis() <= line.now)
                    .then(|| laid.seed.clone()),
            }),
        }
    }
}

/// What a user sees of their place.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ticket)]
pub(super) struct TicketDto {
    /// The signed queue token.
    token: String,
    queue_id: QueueId,
    user_id: UserId,
    status: TicketStatus,
    /// 1-based; null unless waiting.
    position: Option<u64>,
    /// How many wait in all.
    waiting: u64,
    /// Null when not known.
    estimated_wait_seconds: Option<u64>,
    /// When to ask again.
    poll_after_ms: u64,
    /// Null unless active.
    active_until: Option<Millis>,
    /// A JWT for other backends; null unless active.
    pass: Option<String>,
    /// Every seat of the queue's concerts is sold.
    sold_out: bool,
}

impl TicketDto {
    pub(super) fn token(&self) -> &str {
        &self.token
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum TicketStatus {
    Waiting,
    Active,
    Expired,
}

pub(super) fn ticket(queue: &Queue, place: &Place) -> TicketDto {
    let (status, position, until) = match place.standing {
        Standing::Waiting { position } => (TicketStatus::Waiting, Some(position), None),
        Standing::Active { until } => (TicketStatus::Active, None, Some(until)),
        Standing::Expired => (TicketStatus::Expired, None, None),
    };
    TicketDto {
        token: queue.sign(&place.claims),
        queue_id: place.claims.queue.clone(),
        user_id: place.claims.user,
        status,
        position,
        waiting: place.line.waiting,
        estimated_wait_seconds: place.estimated_wait_seconds,
        poll_after_ms: place.poll_after_ms(rand::random_range(-1.0..=1.0)),
        active_until: until.map(Millis),
        pass: until.and_then(|until| queue.pass(place, until)),
        sold_out: place.line.sold_out,
    }
}

/// A queue's public state, one second old at most.
#[utoipa::path(get, path = "/v1/queues/{queue}", tag = "queue", params(("queue" = QueueId, Path)),
    responses((status = 200, body = QueueDto), (status = 404, body = Problem)))]
async fn show(
    State(queue): State<Arc<Queue>>,
    Path(id): Path<QueueId>,
) -> Result<SharedForASecond<Json<QueueDto>>, Problem> {
    let (laid, snapshot) = queue.overview(&id).await?;
    Ok(SharedForASecond(Json(QueueDto::new(id, &laid, &snapshot))))
}

/// Gets in line, or says where the user stands already.
#[utoipa::path(post, path = "/v1/queues/{queue}/tokens", tag = "queue", params(("queue" = QueueId, Path)),
    responses((status = 201, body = TicketDto), (status = 200, body = TicketDto), (status = 401, body = Problem),
        (status = 403, body = Problem, description = "`queue_closed`"), (status = 404, body = Problem),
        (status = 503, body = Problem, description = "`queue_full`")), security(("user" = [])))]
async fn join(
    State(queue): State<Arc<Queue>>,
    Path(id): Path<QueueId>,
    User(user): User,
) -> Result<(StatusCode, Json<TicketDto>), Problem> {
    let (place, fresh) = queue.join(&id, user).await?;
    let status = if fresh { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(ticket(&queue, &place))))
}

/// Where the holder of the token stands.
#[utoipa::path(get, path = "/v1/queues/{queue}/tokens/me", tag = "queue", params(("queue" = QueueId, Path)),
    responses((status = 200, body = TicketDto), (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 410, body = Problem, description = "`queue_token_expired`")),
    security(("queue_token" = [])))]
async fn poll(
    State(queue): State<Arc<Queue>>,
    Path(id): Path<QueueId>,
    Holder(claims): Holder,
) -> Result<Json<TicketDto>, Problem> {
    require_queue(&claims, &id)?;
    let place = queue.poll(&claims).await?;
    if place.standing == Standing::Expired {
        return Err(Error::TokenExpired.into());
    }
    Ok(Json(ticket(&queue, &place)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    /// The queue token, for clients that can't set a header.
    token: Option<String>,
}

/// The ticket as server-sent events: at once and whenever it changes, a comment every 15 seconds; ends after `expired`.
#[utoipa::path(get, path = "/v1/queues/{queue}/tokens/me/events", tag = "queue", params(("queue" = QueueId, Path), EventsQuery),
    responses((status = 200, body = TicketDto, content_type = "text/event-stream"), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem)), security(("queue_token" = [])))]
async fn events(
    State(queue): State<Arc<Queue>>,
    Path(id): Path<QueueId>,
    Query(query): Query<EventsQuery>,
    request: axum::extract::Request,
) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    if let Some(token) = query.token.filter(|_| !parts.headers.contains_key(TOKEN_HEADER)) {
        let token = token.try_into().map_err(|_| super::holder::invalid_queue_token())?;
        parts.headers.insert(TOKEN_HEADER, token);
    }
    let Holder(claims) = Holder::from_request_parts(&mut parts, &()).await?;
    require_queue(&claims, &id)?;
    Ok(super::stream::events(queue, claims).await?.into_response())
}

/// The keys by which passes are checked, as a JWK set.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "queue", responses((status = 200, body = serde_json::Value)))]
async fn jwks(State(queue): State<Arc<Queue>>) -> impl IntoResponse {
    ([(CACHE_CONTROL, "public, max-age=60")], Json(queue.jwks()))
}

/// Gives up the place or the active slot at once.
#[utoipa::path(delete, path = "/v1/queues/{queue}/tokens/me", tag = "queue", params(("queue" = QueueId, Path)),
    responses((status = 204), (status = 401, body = Problem), (status = 403, body = Problem), (status = 410, body = Problem)),
    security(("queue_token" = [])))]
async fn leave(
    State(queue): State<Arc<Queue>>,
    Path(id): Path<QueueId>,
    Holder(claims): Holder,
) -> Result<StatusCode, Problem> {
    require_queue(&claims, &id)?;
    queue.leave(&claims).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses a token of another queue than the one asked for.
fn require_queue(claims: &Claims, queue: &QueueId) -> Result<(), Problem> {
    if claims.queue == *queue { Ok(()) } else { Err(wrong_queue()) }
}

/// 403: the token is of another queue than the thing asked for.
pub fn wrong_queue() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "wrong_queue", "The Queue-Token is of another queue.")
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound => Self::not_found(),
            Error::Closed => Self::new(StatusCode::FORBIDDEN, "queue_closed", "The queue takes nobody in."),
            Error::Full => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "queue_full", "The queue is full.").retry_after(5)
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
            Error::Redis(error) => error.into(),
            Error::Mysql(error) => error.into(),
        }
    }
}
