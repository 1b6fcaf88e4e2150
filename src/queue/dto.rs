//! The JSON of queues and tickets.

use axum::http::HeaderValue;
use serde::Serialize;
use utoipa::ToSchema;

use super::settings::{PublishedQueue, QueueMode, QueueOrder};
use super::{AdmissionState, QueueService, Snapshot, Ticket, rules};
use crate::ids::{QueueId, UserId};
use crate::time::UnixMillis;

/// The public state of a queue.
#[derive(Debug, Serialize, ToSchema)]
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
    closes_at: Option<UnixMillis>,
    /// The estimated wait of a user who joins now. Null when unknown.
    estimated_wait_seconds: Option<u64>,
    /// Whether every seat of the queue's concerts is sold.
    sold_out: bool,
    /// Only when places are assigned by lottery.
    #[serde(skip_serializing_if = "Option::is_none")]
    lottery: Option<LotteryDto>,
}

/// The values with which users can verify their ticket in the lottery. The score of a user is the
/// first 40 bits of SHA-1 over the seed and the 16 bytes of the user id.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Lottery)]
struct LotteryDto {
    /// The SHA-256 of the seed, in hexadecimal.
    seed_sha256: String,
    /// The seed. Null before the opening.
    seed: Option<String>,
}

impl QueueDto {
    pub(super) fn new(queue_id: QueueId, published: &PublishedQueue, snapshot: &Snapshot) -> Self {
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
            closes_at: settings.closes_at.map(UnixMillis::from),
            estimated_wait_seconds: rules::estimated_wait_seconds(next_position, state, settings),
            sold_out: state.sold_out,
            lottery: (settings.order == QueueOrder::Lottery).then(|| LotteryDto {
                seed_sha256: super::audit::seed_hash(&published.seed),
                seed: settings
                    .opens_at
                    .is_some_and(|opens| opens.timestamp_millis() <= state.now)
                    .then(|| published.seed.clone()),
            }),
        }
    }
}

/// The state of a user in a queue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ticket)]
pub(super) struct TicketDto {
    /// The queue token. Send it in `Queue-Token`.
    token: String,
    queue_id: QueueId,
    user_id: UserId,
    status: TicketStatus,
    /// The position in the queue, starting at 1. Null unless waiting.
    position: Option<u64>,
    /// The number of waiting users.
    waiting: u64,
    /// The estimated wait. Null when unknown.
    estimated_wait_seconds: Option<u64>,
    /// When to poll again, in milliseconds from now.
    poll_after_ms: u64,
    /// When the active slot ends. Null unless active.
    active_until: Option<UnixMillis>,
    /// A JWT with which other backends can verify that the user is active. Null unless active.
    pass: Option<String>,
    /// Whether every seat of the queue's concerts is sold.
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

/// The response for a ticket. It returns the token of the request if the newest key signed it, and
/// otherwise signs a new one.
pub(super) fn ticket_dto(
    queue: &QueueService,
    ticket: &Ticket,
    request_token: Option<&HeaderValue>,
) -> TicketDto {
    let request_token = request_token
        .and_then(|token| token.to_str().ok())
        .filter(|token| queue.is_current_token(token));
    let (status, position, until) = match ticket.admission {
        AdmissionState::Waiting { position } => (TicketStatus::Waiting, Some(position), None),
        AdmissionState::Active { until } => (TicketStatus::Active, None, Some(until)),
        AdmissionState::Expired => (TicketStatus::Expired, None, None),
    };
    TicketDto {
        token: request_token.map_or_else(|| queue.sign(&ticket.claims), str::to_owned),
        queue_id: ticket.claims.queue.clone(),
        user_id: ticket.claims.user,
        status,
        position,
        waiting: ticket.queue_state.waiting,
        estimated_wait_seconds: ticket.estimated_wait_seconds,
        poll_after_ms: ticket.poll_after_ms(rand::random_range(-1.0..=1.0)),
        active_until: until.map(UnixMillis),
        pass: until.and_then(|until| queue.pass(ticket, until)),
        sold_out: ticket.queue_state.sold_out,
    }
}
