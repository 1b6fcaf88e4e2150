//! The JSON of queues and tickets.

use axum::http::HeaderValue;
use serde::Serialize;
use utoipa::ToSchema;

use super::languages::PreferredLanguages;
use super::settings::{PublishedQueue, QueueMode, QueueOrder};
use super::sql::StoredDraw;
use super::{AdmissionState, QueueService, Snapshot, Ticket};
use crate::ids::{QueueId, UserName};
use crate::time::UnixMillis;

/// The public state of a queue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Queue)]
pub(super) struct QueueDto {
    queue_id: QueueId,
    /// The effective mode.
    mode: QueueMode,
    /// The number of waiting users.
    waiting: u64,
    /// The number of active users.
    active: u64,
    max_active: u32,
    /// The number of users admitted so far.
    admitted_total: u64,
    opens_at: Option<UnixMillis>,
    /// The operator's message, in the language of `Accept-Language`.
    message: Option<String>,
    closes_at: Option<UnixMillis>,
    /// The estimated wait of a user who joins now. Null while it is not known: while no user is
    /// admitted, and from the moment at which the queue is full until the first slot is free.
    estimated_wait_seconds: Option<u64>,
    /// Whether every seat of the queue's concerts is sold.
    sold_out: bool,
    /// Only when places are assigned by lottery.
    #[serde(skip_serializing_if = "Option::is_none")]
    lottery: Option<LotteryDto>,
}

/// The values with which users can verify their ticket in the newest draw. The score of a user is
/// 2 × draw × 2^40 plus the first 40 bits of SHA-1 over the seed and the 16 bytes of the user. The
/// bytes of a UUID are its value. For another id they are the first 16 bytes of its SHA-256 with the
/// version and variant of a UUID of version 8.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Lottery)]
struct LotteryDto {
    /// The SHA-256 of the seed, in hexadecimal.
    seed_sha256: String,
    /// The seed. Null before the opening.
    seed: Option<String>,
}

impl QueueDto {
    pub(super) fn new(
        queue_id: QueueId,
        published: &PublishedQueue,
        snapshot: &Snapshot,
        languages: &PreferredLanguages,
    ) -> Self {
        let (settings, state) = (&published.settings, &snapshot.state);
        let next_position = state.waiting + 1;
        Self {
            queue_id,
            mode: state.mode,
            waiting: state.waiting,
            active: state.active,
            max_active: settings.max_active,
            admitted_total: snapshot.admitted_total,
            opens_at: settings.opens_at.map(UnixMillis::from),
            message: settings
                .message
                .as_ref()
                .and_then(|message| message.text(&languages.0))
                .map(str::to_owned),
            closes_at: settings.closes_at.map(UnixMillis::from),
            estimated_wait_seconds: snapshot.forecast().estimated_wait_seconds(next_position),
            sold_out: state.sold_out,
            lottery: (settings.order == QueueOrder::Lottery && published.draw > 0).then(|| {
                let is_drawn = !settings.is_before_opening(state.now);
                LotteryDto {
                    seed_sha256: super::audit::seed_hash(&published.seed),
                    seed: is_drawn.then(|| published.seed.clone()),
                }
            }),
        }
    }
}

/// A draw of the lottery. The score of a user in it is 2 × `draw` × 2^40 plus the first 40 bits of
/// SHA-1 over the seed and the 16 bytes of the user, as in the lottery of the queue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Draw)]
struct DrawDto {
    /// The number of the draw, from 1.
    draw: u32,
    /// The SHA-256 of the seed, in hexadecimal.
    seed_sha256: String,
    /// The seed. Null before the opening.
    seed: Option<String>,
    /// When the places became final. Null before the opening.
    drawn_at: Option<UnixMillis>,
    /// How many users took part. Null until it is known.
    entrants: Option<u64>,
}

/// The draws of a queue, oldest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Draws)]
pub(super) struct DrawsDto {
    items: Vec<DrawDto>,
}

impl DrawsDto {
    /// `now` is Redis' clock in milliseconds since 1970.
    pub(super) fn new(draws: &[StoredDraw], now: i64) -> Self {
        let items = draws.iter().map(|stored| {
            let drawn_at = stored.drawn_at(now);
            DrawDto {
                draw: stored.draw,
                seed_sha256: super::audit::seed_hash(&stored.seed),
                seed: drawn_at.map(|_| stored.seed.clone()),
                drawn_at: drawn_at.map(UnixMillis),
                entrants: stored.entrants,
            }
        });
        Self { items: items.collect() }
    }
}

/// The state of a user in a queue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ticket)]
pub(super) struct TicketDto {
    /// The queue token. Send it in `Queue-Token`.
    token: String,
    queue_id: QueueId,
    user_id: UserName,
    status: TicketStatus,
    /// The position in the queue, starting at 1. Null unless waiting, before the draw of a lottery,
    /// and for a moment after a loss of Redis.
    position: Option<u64>,
    /// The number of waiting users.
    waiting: u64,
    /// The best estimate of the wait. It may increase. Null unless waiting, while the queue is
    /// paused or closed, before the draw of a lottery, and from the moment at which the queue is
    /// full for the first time until the first slot is free.
    estimated_wait_seconds: Option<u64>,
    /// When to poll again, in milliseconds from now.
    poll_after_ms: u64,
    /// When the active slot ends. Null unless active.
    active_until: Option<UnixMillis>,
    /// A JWT with which other backends can verify that the user is active. Null unless active.
    pass: Option<String>,
    /// Whether every seat of the queue's concerts is sold.
    sold_out: bool,
    /// The effective mode of the queue.
    mode: QueueMode,
    opens_at: Option<UnixMillis>,
    /// The operator's message, in the language of `Accept-Language`.
    message: Option<String>,
    /// The number behind the place. A lower score is admitted earlier.
    score: u64,
}

impl TicketDto {
    /// The ticket with the user's id as the request writes it.
    pub(super) fn for_user(self, user_id: UserName) -> Self {
        Self { user_id, ..self }
    }

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

/// The response for a ticket. It returns the token of the request if the newest key signed it, and
/// otherwise signs a new one.
pub(super) fn ticket_dto(
    queue: &QueueService,
    ticket: &Ticket,
    request_token: Option<&HeaderValue>,
    languages: &PreferredLanguages,
) -> TicketDto {
    let published = queue.settings(&ticket.claims.queue);
    let settings = published.as_ref().map(|published| &published.settings);
    let message = settings.and_then(|settings| settings.message.as_ref());
    let request_token = request_token
        .and_then(|token| token.to_str().ok())
        .filter(|token| queue.is_current_token(token));
    let (status, position, until) = match ticket.admission {
        AdmissionState::Waiting { position } => (TicketStatus::Waiting, position, None),
        AdmissionState::Active { until } => (TicketStatus::Active, None, Some(until)),
        AdmissionState::Expired => (TicketStatus::Expired, None, None),
    };
    TicketDto {
        token: request_token.map_or_else(|| queue.sign(&ticket.claims), str::to_owned),
        queue_id: ticket.claims.queue.clone(),
        user_id: ticket.claims.user_name(),
        status,
        position,
        waiting: ticket.queue_state.waiting,
        estimated_wait_seconds: ticket.estimated_wait_seconds,
        poll_after_ms: ticket.poll_after_ms(rand::random_range(-1.0..=1.0)),
        active_until: until.map(UnixMillis),
        pass: until.and_then(|until| queue.pass(ticket, until)),
        sold_out: ticket.queue_state.sold_out,
        mode: ticket.queue_state.mode,
        opens_at: settings.and_then(|settings| settings.opens_at).map(UnixMillis::from),
        message: message.and_then(|message| message.text(&languages.0)).map(str::to_owned),
        score: ticket.claims.score,
    }
}
