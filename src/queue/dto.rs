//! What clients see of a queue and of a place in it.

use axum::http::HeaderValue;
use serde::Serialize;
use utoipa::ToSchema;

use super::settings::{PublishedQueue, QueueMode, QueueOrder};
use super::{AdmissionState, QueueService, Snapshot, Ticket, rules};
use crate::ids::{QueueId, UserId};
use crate::time::UnixMillis;

/// A queue as everybody may see it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueueDto {
    queue_id: QueueId,
    mode: QueueMode,
    waiting: u64,
    active: u64,
    max_active: u32,
    admitted_total: u64,
    opens_at: Option<UnixMillis>,
    closes_at: Option<UnixMillis>,
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
    pub(super) fn new(queue_id: QueueId, laid: &PublishedQueue, snapshot: &Snapshot) -> Self {
        let (settings, line) = (&laid.settings, &snapshot.line);
        let behind = line.waiting + 1;
        Self {
            queue_id,
            mode: line.mode,
            waiting: line.waiting,
            active: line.active,
            max_active: settings.max_active,
            admitted_total: snapshot.admitted,
            opens_at: settings.opens_at.map(UnixMillis::from),
            closes_at: settings.closes_at.map(UnixMillis::from),
            estimated_wait_seconds: rules::estimated_wait_seconds(behind, line, settings),
            sold_out: line.sold_out,
            lottery: (settings.order == QueueOrder::Lottery).then(|| LotteryDto {
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
    active_until: Option<UnixMillis>,
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

/// The ticket of a place, and of a holder who showed a token the same token, if the newest key signed it.
pub(super) fn ticket(
    queue: &QueueService,
    place: &Ticket,
    shown: Option<&HeaderValue>,
) -> TicketDto {
    let shown = shown.and_then(|token| token.to_str().ok()).filter(|token| queue.signs_like(token));
    let (status, position, until) = match place.standing {
        AdmissionState::Waiting { position } => (TicketStatus::Waiting, Some(position), None),
        AdmissionState::Active { until } => (TicketStatus::Active, None, Some(until)),
        AdmissionState::Expired => (TicketStatus::Expired, None, None),
    };
    TicketDto {
        token: shown.map_or_else(|| queue.sign(&place.claims), str::to_owned),
        queue_id: place.claims.queue.clone(),
        user_id: place.claims.user,
        status,
        position,
        waiting: place.line.waiting,
        estimated_wait_seconds: place.estimated_wait_seconds,
        poll_after_ms: place.poll_after_ms(rand::random_range(-1.0..=1.0)),
        active_until: until.map(UnixMillis),
        pass: until.and_then(|until| queue.pass(place, until)),
        sold_out: place.line.sold_out,
    }
}
