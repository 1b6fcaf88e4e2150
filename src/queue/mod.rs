//! Waiting and admission: which users wait, which are active, and which are admitted next.
//!
//! All keys of a queue are in the partition of its name. Redis stores the waiting users
//! (`q:waiting`, a sorted set of 16-byte user ids by score), the active slots (`q:active` by
//! deadline, `q:admitted` with each user's score), the promotion bucket, and a copy of the
//! settings. MySQL stores the settings and the promotions.
//!
//! A score is the place of a user in Redis. Scores are divided into segments of 2^40: draw *d* of a
//! lottery has the segment 2*d*, arrivals after it have the segment 2*d* + 1. So users who wait
//! stay ahead of those who join after a new draw was opened. The queue token carries the score, so
//! a waiting user needs no other record, and a poll is answered from a snapshot in memory.
//!
//! Settings change under the row lock of the definitions. They are published to Redis before the
//! commit. Any instance that finds them missing in Redis publishes them.
//!
//! Start reading with [`QueueService::join`] and [`QueueService::poll`]. [`snapshot`] explains how
//! exact a position is, `promote.rs` is the scheduler, `lua/queue/` has the scripts. `line_*.rs` is
//! the line as a document for all users.

mod admin;
mod admin_store;
mod admission_jwt;
mod arrivals;
mod audit;
mod build_ticket;
mod busy_queues;
mod busy_store;
mod definitions;
mod deletion;
mod deletion_store;
mod draw_store;
mod dto;
mod error;
mod estimator;
mod gate;
mod gate_request;
mod heard_store;
mod heard_users;
mod holder;
mod languages;
mod line_cache;
mod line_document;
mod line_shape;
mod line_store;
mod lookup;
mod overview;
mod page;
mod promote;
mod rank_markers;
mod routes;
mod rules;
mod settings;
mod snapshot;
mod snapshot_cache;
mod sql;
mod store;
mod stream;
mod ticket;
mod turnover_reading;
mod vacated_scores;
mod waiting;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use sqlx::MySqlPool;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::http::identity::QueueVisitor;
use crate::ids::QueueId;
use crate::mysql::definitions::DefinitionLookup;
use crate::redis::{self, Coalescer, RedisClient, ScriptCoalescer, ScriptOperation};

use admission_jwt::AdmissionJwtKeys;
use build_ticket::build_ticket;
use busy_queues::BusyQueues;
use heard_users::HeardUsers;
use line_cache::LineCache;
use snapshot::is_drawn_score;
use snapshot_cache::SnapshotCache;
use store::MembershipState;

pub use admin::router as admin_router;
pub use admin_store::QueueTotals;
pub use audit::QueueAuditReport;
pub use error::Error;
#[cfg(test)]
pub(crate) use gate::demo_cookie;
pub use gate::router as gate_router;
pub use gate_request::{GateSettings, is_navigation};
pub use heard_users::run as run_heard_writer;
pub use holder::{BuyerToken, RequestOwner, StreamQuery, TOKEN_HEADER, TokenHolder};
pub use overview::UserPlaceDto;
pub use page::QueuePage;
pub use promote::run as run_promoter;
pub use routes::{router, wrong_queue};
pub use settings::{
    LocalizedText, PublishedQueue, QueueMode, QueueOrder, QueueSettings, VisitKind,
};
pub use snapshot::{QueueState, Snapshot};
pub use ticket::{Claims, TokenSigner};
pub use waiting::{WaitingPageSettings, page_router, router as waiting_router};

/// Requests of one kind that may wait for one queue in one instance. Redis needs about two
/// microseconds for each, so the last one waits some tens of milliseconds.
const MAX_WAITING_REQUESTS: usize = 16_384;

/// The draws of a queue, and when they were read.
type CachedDraws = (Instant, Arc<Vec<sql::StoredDraw>>);

/// All operations on queues. One value per process, shared by all requests.
pub struct QueueService {
    redis: RedisClient,
    mysql: MySqlPool,
    signer: TokenSigner,
    queues: ArcSwap<HashMap<QueueId, Arc<PublishedQueue>>>,
    reloading: Mutex<()>,
    lookup: DefinitionLookup,
    join: ScriptCoalescer<store::JoinBatch>,
    poll: ScriptCoalescer<store::PollBatch>,
    leave: ScriptCoalescer<store::LeaveBatch>,
    snapshots: SnapshotCache,
    lines: LineCache,
    busy: BusyQueues,
    heard: HeardUsers,
    draws: Mutex<HashMap<QueueId, CachedDraws>>,
    shutdown: CancellationToken,
    pass_keys: ArcSwap<AdmissionJwtKeys>,
}

/// What the holder of a queue token sees.
#[derive(Debug, Clone)]
pub struct Ticket {
    pub claims: Claims,
    pub admission: AdmissionState,
    pub queue_state: QueueState,
    /// Seconds until admission. `None` when unknown or not waiting.
    pub estimated_wait_seconds: Option<u64>,
    /// Whether the estimate may change soon.
    is_unsettled: bool,
    /// How long the user has to show up once admitted.
    claim: Duration,
    /// How long a waiting user keeps the place without polling.
    abandon_after: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdmissionState {
    /// `position` is 1-based. `None` while it is not known: before the draw, and after a loss of
    /// Redis until the users ahead had time to return.
    Waiting { position: Option<u64> },
    /// `until` in milliseconds since 1970.
    Active { until: i64 },
    /// Neither waiting nor active.
    Expired,
}

impl QueueService {
    /// `shutdown` ends the event streams. Call [`QueueService::reload`] before serving.
    pub fn new(
        redis: RedisClient,
        mysql: MySqlPool,
        signer: TokenSigner,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            signer,
            queues: ArcSwap::default(),
            reloading: Mutex::new(()),
            lookup: DefinitionLookup::default(),
            join: Coalescer::new(
                ScriptOperation::new(&redis, store::JoinBatch),
                MAX_WAITING_REQUESTS,
            ),
            poll: Coalescer::new(
                ScriptOperation::new(&redis, store::PollBatch),
                MAX_WAITING_REQUESTS,
            ),
            leave: Coalescer::new(
                ScriptOperation::new(&redis, store::LeaveBatch),
                MAX_WAITING_REQUESTS,
            ),
            snapshots: SnapshotCache::default(),
            lines: LineCache::default(),
            heard: HeardUsers::default(),
            busy: BusyQueues::new(&redis, MAX_WAITING_REQUESTS),
            draws: Mutex::default(),
            shutdown,
            pass_keys: ArcSwap::default(),
            redis,
            mysql,
        }
    }

    /// Adds a user to the queue, or returns the ticket they have already. The flag is true when
    /// the place is new.
    pub async fn join(
        self: &Arc<Self>,
        queue: &QueueId,
        visitor: &QueueVisitor,
    ) -> Result<(Ticket, bool), Error> {
        let user = visitor.name.key();
        let settings = self.find_settings(queue).await?;
        let (line, joined) =
            self.with_settings(queue, || self.join.submit(queue.clone(), user)).await?;
        match joined {
            store::JoinOutcome::Placed { score, membership, is_new } => {
                let snapshot = self.snapshot(queue).await?;
                let claims = Claims {
                    queue: queue.clone(),
                    user,
                    user_text: visitor.name.text_to_record(),
                    is_guest: visitor.is_guest,
                    score,
                };
                let ticket =
                    build_ticket(claims, membership, &snapshot, Some(line), &settings.settings);
                Ok((ticket, is_new))
            }
            store::JoinOutcome::Closed => Err(Error::Closed),
            store::JoinOutcome::Full => Err(Error::Full),
        }
    }

    /// The current ticket of a token: from memory while the user waits, from Redis once the front
    /// of the queue has reached their score. A promoted user who polls has shown up, and their
    /// active time starts.
    pub async fn poll(self: &Arc<Self>, claims: &Claims) -> Result<Ticket, Error> {
        self.find_settings(&claims.queue).await?;
        let snapshot = self.snapshot_including(&claims.queue, claims.score).await?;
        self.ticket_from(claims, &snapshot).await
    }

    async fn ticket_from(&self, claims: &Claims, snapshot: &Snapshot) -> Result<Ticket, Error> {
        let settings = self.settings(&claims.queue).ok_or(Error::NotFound)?;
        let membership = self.membership(claims, snapshot).await?;
        if membership == MembershipState::Waiting && settings.settings.abandon_after().is_some() {
            self.heard.record(&claims.queue, claims.user);
        }
        Ok(build_ticket(claims.clone(), membership, snapshot, None, &settings.settings))
    }

    async fn membership(
        &self,
        claims: &Claims,
        snapshot: &Snapshot,
    ) -> Result<MembershipState, Error> {
        if !snapshot.is_waiting(claims.score) {
            self.poll_redis(claims, false).await
        } else {
            let cached = self.snapshots.of(&claims.queue);
            let (is_vacated, is_certain) = cached.is_vacated(claims.score);
            if !is_vacated {
                return Ok(MembershipState::Waiting);
            }
            if is_certain && !is_drawn_score(claims.score) {
                return Ok(MembershipState::Expired);
            }
            // A user who joins a draw again has the same score.
            let cursor = cached.vacated_cursor();
            let membership = self.poll_redis(claims, false).await?;
            if membership == MembershipState::Waiting {
                cached.mark_taken(claims.score, &cursor);
            }
            Ok(membership)
        }
    }

    async fn poll_redis(
        &self,
        claims: &Claims,
        uses_visit: bool,
    ) -> Result<MembershipState, Error> {
        let request = store::PollRequest { user: claims.user, score: claims.score, uses_visit };
        self.with_settings(&claims.queue, || self.poll.submit(claims.queue.clone(), request)).await
    }

    /// Succeeds only while the user is active. Always asks Redis, never the snapshot. Extends a
    /// sliding visit.
    ///
    /// # Errors
    /// [`Error::NotAdmitted`] while the user waits, [`Error::TokenExpired`] when they have neither
    /// a place nor a slot.
    pub async fn require_active(self: &Arc<Self>, claims: &Claims) -> Result<(), Error> {
        self.find_settings(&claims.queue).await?;
        match self.poll_redis(claims, true).await? {
            MembershipState::Active { .. } => Ok(()),
            MembershipState::Waiting => Err(Error::NotAdmitted {
                poll_after_ms: self.poll(claims).await?.poll_after_ms(0.0),
            }),
            MembershipState::Expired => Err(Error::TokenExpired),
        }
    }

    /// Gives up the place or the active slot.
    pub async fn leave(&self, claims: &Claims) -> Result<(), Error> {
        let request = (claims.user, claims.score);
        if !self.leave.submit(claims.queue.clone(), request).await? {
            return Err(Error::TokenExpired);
        }
        self.snapshots.of(&claims.queue).mark_vacated(claims.score);
        Ok(())
    }

    /// The settings and the state of a queue. Both are public.
    pub async fn overview(
        self: &Arc<Self>,
        queue: &QueueId,
    ) -> Result<(Arc<PublishedQueue>, Arc<Snapshot>), Error> {
        let settings = self.find_settings(queue).await?;
        Ok((settings, self.snapshot(queue).await?))
    }

    /// The queue token for these claims.
    pub fn sign(&self, claims: &Claims) -> String {
        self.signer.sign(claims)
    }

    /// Whether the newest key signed this valid token, so that it need not be replaced.
    fn is_current_token(&self, token: &str) -> bool {
        self.signer.is_current(token)
    }

    /// The claims of a token, or `None` when none of the keys signed it.
    pub fn verify(&self, token: &str) -> Option<Claims> {
        self.signer.verify(token)
    }

    /// The settings as of the last reload.
    pub fn settings(&self, queue: &QueueId) -> Option<Arc<PublishedQueue>> {
        self.queues.load().get(queue).cloned()
    }

    /// Runs a call. When Redis lacks the settings, publishes them and repeats the call once.
    async fn with_settings<T, F>(&self, queue: &QueueId, call: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, redis::Error>>,
    {
        match call().await {
            Err(redis::Error::NotPublished) => {
                Box::pin(self.publish_settings(queue)).await?;
                Ok(call().await?)
            }
            other => Ok(other?),
        }
    }

    /// Ends the event streams.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    fn redis(&self) -> &RedisClient {
        &self.redis
    }
}
