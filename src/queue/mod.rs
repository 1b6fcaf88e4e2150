//! The line: who waits, who is active, and who is next.
//!
//! A queue lives in the partition of its name. Redis holds the line (`q:waiting`, a sorted set by score of sixteen-byte users), the active
//! slots (`q:active` by deadline, `q:admitted` with each user's score), the promotion bucket and the settings as laid; MySQL holds the settings. Scores: a
//! place after the opening is 2^40 + sequence; a place of the lottery lies below 2^40. The queue token carries the score, so the line
//! needs no other record, and a waiting user's poll is answered from a snapshot in memory ([`snapshot`]).
//!
//! Settings are changed under the row lock of the definitions, laid in Redis before the commit, and laid again by whoever finds them missing.

mod admin;
mod arrivals;
mod audit;
mod dto;
mod error;
mod gate;
mod holder;
mod pass;
mod promote;
mod routes;
mod rules;
mod settings;
mod snapshot;
mod sql;
mod store;
mod stream;
mod ticket;
mod waiting;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use sqlx::MySqlConnection;
use sqlx::MySqlPool;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::ids::{QueueId, UserId};
use crate::mysql::{self, definitions};
use crate::redis::{self, Coalescer, RedisClient, ScriptCoalescer, ScriptOperation};

use pass::AdmissionJwtKeys;
use store::MembershipState;
use watch::SnapshotCache;

pub use admin::router as admin_router;
pub use audit::QueueAuditReport;
pub use error::Error;
#[cfg(test)]
pub(crate) use gate::cookie_of;
pub use holder::{RequestOwner, TOKEN_HEADER, TokenHolder};
pub use promote::run as run_promoter;
pub use routes::{router, wrong_queue};
pub use rules::Flaw;
pub use settings::{PublishedQueue, QueueMode, QueueOrder, QueueSettings};
pub use snapshot::{QueueState, Snapshot};
pub use ticket::{Claims, TokenSigner};
pub use waiting::router as waiting_router;

/// Requests that may wait for one queue in one instance. At two microseconds each the last of them waits some tens of milliseconds.
const MAX_WAITING: usize = 16_384;

/// The façade of the room.
pub struct QueueService {
    redis: RedisClient,
    mysql: MySqlPool,
    signer: TokenSigner,
    known: ArcSwap<HashMap<QueueId, Arc<PublishedQueue>>>,
    reloading: Mutex<()>,
    join: ScriptCoalescer<store::JoinBatch>,
    poll: ScriptCoalescer<store::PollBatch>,
    leave: ScriptCoalescer<store::LeaveBatch>,
    watches: SnapshotCache,
    ending: CancellationToken,
    passes: ArcSwap<AdmissionJwtKeys>,
}

/// Where the holder of a token stands, and how the line looks around them.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// Who and where.
    pub claims: Claims,
    /// Waiting, active or expired.
    pub standing: AdmissionState,
    /// The line.
    pub line: QueueState,
    /// Seconds until let in, when known.
    pub estimated_wait_seconds: Option<u64>,
}

/// Where a user stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdmissionState {
    /// In line, at a 1-based position.
    Waiting {
        /// The position.
        position: u64,
    },
    /// Let in until a moment, milliseconds since 1970.
    Active {
        /// The moment.
        until: i64,
    },
    /// Neither.
    Expired,
}

impl QueueService {
    /// A line over Redis and MySQL, whose tokens `signer` signs and whose streams end with `ending`. Call [`QueueService::reload`] before serving.
    pub fn new(
        redis: RedisClient,
        mysql: MySqlPool,
        signer: TokenSigner,
        ending: CancellationToken,
    ) -> Self {
        Self {
            signer,
            known: ArcSwap::default(),
            reloading: Mutex::new(()),
            join: Coalescer::new(ScriptOperation::new(&redis, store::JoinBatch), MAX_WAITING),
            poll: Coalescer::new(ScriptOperation::new(&redis, store::PollBatch), MAX_WAITING),
            leave: Coalescer::new(ScriptOperation::new(&redis, store::LeaveBatch), MAX_WAITING),
            watches: SnapshotCache::default(),
            ending,
            passes: ArcSwap::default(),
            redis,
            mysql,
        }
    }

    /// Puts a user in line, or says where they stand already. The flag says whether the place is new.
    pub async fn join(
        self: &Arc<Self>,
        queue: &QueueId,
        user: UserId,
    ) -> Result<(Ticket, bool), Error> {
        let settings = self.settings(queue).ok_or(Error::NotFound)?;
        let (front, joined) =
            self.with_settings(queue, || self.join.submit(queue.clone(), user)).await?;
        match joined {
            store::JoinOutcome::Placed { score, seen, fresh } => {
                let snapshot = self.snapshot(queue).await?;
                let claims = Claims { queue: queue.clone(), user, score };
                Ok((place(claims, seen, &snapshot, front, &settings.settings), fresh))
            }
            store::JoinOutcome::Closed => Err(Error::Closed),
            store::JoinOutcome::Full => Err(Error::Full),
        }
    }

    /// Where the holder of a token stands: from memory while they wait, from Redis once the front has come to them. A promoted user who asks has shown up.
    pub async fn poll(self: &Arc<Self>, claims: &Claims) -> Result<Ticket, Error> {
        self.settings(&claims.queue).ok_or(Error::NotFound)?;
        self.stand(claims, &*self.snapshot_knowing(&claims.queue, claims.score).await?).await
    }

    /// Where the holder of a token stands, given a snapshot.
    async fn stand(&self, claims: &Claims, snapshot: &Snapshot) -> Result<Ticket, Error> {
        let settings = self.settings(&claims.queue).ok_or(Error::NotFound)?;
        let seen = self.seen(claims, snapshot).await?;
        Ok(place(claims.clone(), seen, snapshot, None, &settings.settings))
    }

    async fn seen(&self, claims: &Claims, snapshot: &Snapshot) -> Result<MembershipState, Error> {
        if !snapshot.is_in_line(claims.score) {
            self.ask(claims).await
        } else if self.watches.of(&claims.queue).is_given_up(claims.score) {
            Ok(MembershipState::Expired)
        } else {
            Ok(MembershipState::Waiting)
        }
    }

    async fn ask(&self, claims: &Claims) -> Result<MembershipState, Error> {
        let request = (claims.user, claims.score);
        self.with_settings(&claims.queue, || self.poll.submit(claims.queue.clone(), request)).await
    }

    /// Lets the holder pass only while they are active. Always asks Redis.
    ///
    /// # Errors
    /// [`Error::NotAdmitted`] while they wait, [`Error::TokenExpired`] once their place is gone.
    pub async fn require_active(self: &Arc<Self>, claims: &Claims) -> Result<(), Error> {
        self.settings(&claims.queue).ok_or(Error::NotFound)?;
        match self.ask(claims).await? {
            MembershipState::Active { .. } => Ok(()),
            MembershipState::Waiting => Err(Error::NotAdmitted {
                poll_after_ms: self.poll(claims).await?.poll_after_ms(0.0),
            }),
            MembershipState::Expired => Err(Error::TokenExpired),
        }
    }

    /// Gives up the place or the slot.
    pub async fn leave(&self, claims: &Claims) -> Result<(), Error> {
        let request = (claims.user, claims.score);
        if !self.leave.submit(claims.queue.clone(), request).await? {
            return Err(Error::TokenExpired);
        }
        self.watches.of(&claims.queue).give_up(claims.score);
        Ok(())
    }

    /// The settings of a queue and the line as everybody may see it.
    pub async fn overview(
        self: &Arc<Self>,
        queue: &QueueId,
    ) -> Result<(Arc<PublishedQueue>, Arc<Snapshot>), Error> {
        let settings = self.settings(queue).ok_or(Error::NotFound)?;
        Ok((settings, self.snapshot(queue).await?))
    }

    /// The pass of an active user, `until` a moment in milliseconds since 1970.
    fn pass(&self, place: &Ticket, until: i64) -> Option<String> {
        self.passes.load().pass(&place.claims, place.line.now, until)
    }

    /// The JWK set by which passes are checked.
    fn jwks(&self) -> serde_json::Value {
        self.passes.load().jwks()
    }

    /// Makes a new key for passes. It is published at once and signs two minutes later; the ones before stay published for two days.
    pub async fn rotate_pass_keys(mysql: &MySqlPool) -> Result<(), Error> {
        let (mut tx, _) = definitions::begin_change(mysql).await?;
        sql::add_pass_key(&mut tx).await?;
        tx.commit().await.map_err(mysql::Error::from)?;
        Ok(())
    }

    /// The token for a place.
    pub fn sign(&self, claims: &Claims) -> String {
        self.signer.sign(claims)
    }

    /// Whether [`QueueService::sign`] would give a token that holds as it is.
    fn signs_like(&self, token: &str) -> bool {
        self.signer.signs_like(token)
    }

    /// What a token says, if it is one of ours.
    pub fn verify(&self, token: &str) -> Option<Claims> {
        self.signer.verify(token)
    }

    /// The settings of a queue, if there is one.
    pub fn settings(&self, queue: &QueueId) -> Option<Arc<PublishedQueue>> {
        self.known.load().get(queue).cloned()
    }

    /// All queues, by name.
    pub fn ids(&self) -> Vec<QueueId> {
        let mut ids: Vec<_> = self.known.load().keys().cloned().collect();
        ids.sort();
        ids
    }

    /// Changes a queue's settings, or makes the queue.
    ///
    /// # Errors
    /// [`Error::Unsound`] with every field that is not; then nothing has changed.
    pub async fn put(&self, queue: &QueueId, settings: QueueSettings) -> Result<(), Error> {
        let flaws = rules::flaws(&settings);
        if !flaws.is_empty() {
            return Err(Error::Unsound(flaws));
        }
        let (mut tx, version) = definitions::begin_change(&self.mysql).await?;
        let now = sql::now(&mut tx).await?;
        let seed = match sql::one(&mut tx, queue).await? {
            // A seed that is public deals no further opening.
            Some(before) if before.settings.opens_at.is_none_or(|opened| opened > now) => {
                before.seed
            }
            _ => new_seed(),
        };
        let laid = PublishedQueue { settings, version, seed };
        sql::put(&mut tx, queue, &laid).await?;
        store::configure(&self.redis, queue, &laid).await?;
        tx.commit().await.map_err(mysql::Error::from)?;
        self.reload().await
    }

    /// Makes a queue with default settings within a change that is under way, unless it is there. Whoever needs it lays it.
    pub async fn ensure(
        &self,
        tx: &mut MySqlConnection,
        version: u64,
        queue: &QueueId,
    ) -> Result<(), Error> {
        if sql::one(tx, queue).await?.is_none() {
            let laid =
                PublishedQueue { settings: QueueSettings::default(), version, seed: new_seed() };
            sql::put(tx, queue, &laid).await?;
        }
        Ok(())
    }

    /// Reads all settings from MySQL.
    pub async fn reload(&self) -> Result<(), Error> {
        // One after the other, so that what was read first is not stored last.
        let _turn = self.reloading.lock().await;
        let mut connection = self.mysql.acquire().await.map_err(mysql::Error::from)?;
        let known = sql::all(&mut connection)
            .await?
            .into_iter()
            .map(|(id, laid)| (id, Arc::new(laid)))
            .collect();
        self.known.store(Arc::new(known));
        self.watches.forget();
        let mut keys = AdmissionJwtKeys::new(&sql::pass_keys(&mut connection).await?);
        if keys.is_empty() {
            drop(connection);
            let (mut tx, _) = definitions::lock(&self.mysql).await?;
            if sql::pass_keys(&mut tx).await?.is_empty() {
                sql::add_pass_key(&mut tx).await?;
            }
            keys = AdmissionJwtKeys::new(&sql::pass_keys(&mut tx).await?);
            tx.commit().await.map_err(mysql::Error::from)?;
        }
        self.passes.store(Arc::new(keys));
        Ok(())
    }

    /// Lays a queue's settings in Redis as MySQL has them.
    pub async fn lay(&self, queue: &QueueId) -> Result<(), Error> {
        let (mut tx, _) = definitions::lock(&self.mysql).await?;
        let laid = sql::one(&mut tx, queue).await?.ok_or(Error::NotFound)?;
        store::configure(&self.redis, queue, &laid).await?;
        tx.commit().await.map_err(mysql::Error::from)?;
        Ok(())
    }

    /// Runs a call, and once more after laying the settings when Redis misses them.
    async fn with_settings<T, F>(&self, queue: &QueueId, call: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, redis::Error>>,
    {
        match call().await {
            Err(redis::Error::NotLaid) => {
                Box::pin(self.lay(queue)).await?;
                Ok(call().await?)
            }
            other => Ok(other?),
        }
    }

    /// Cancelled when streams must end.
    fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    fn redis(&self) -> &RedisClient {
        &self.redis
    }
}

impl Ticket {
    /// When to ask again, in milliseconds. `jitter` is from −1 to 1.
    pub fn poll_after_ms(&self, jitter: f64) -> u64 {
        let after = match self.standing {
            AdmissionState::Waiting { .. } => {
                rules::poll_after(self.estimated_wait_seconds, jitter)
            }
            AdmissionState::Active { .. } | AdmissionState::Expired => {
                rules::poll_after(None, jitter)
            }
        };
        u64::try_from(after.as_millis()).unwrap_or(u64::MAX)
    }
}

fn place(
    claims: Claims,
    seen: MembershipState,
    snapshot: &Snapshot,
    front: Option<u64>,
    settings: &QueueSettings,
) -> Ticket {
    let (standing, estimated_wait_seconds) = match seen {
        MembershipState::Waiting => {
            let position = snapshot.position(claims.score, front);
            let wait = rules::estimated_wait_seconds(position, &snapshot.line, settings);
            (AdmissionState::Waiting { position }, wait)
        }
        MembershipState::Active { until } => (AdmissionState::Active { until }, None),
        MembershipState::Expired => (AdmissionState::Expired, None),
    };
    let mut line = snapshot.line.clone();
    if let AdmissionState::Waiting { position } = standing {
        // Who has just joined is not yet counted.
        line.waiting = line.waiting.max(position);
    }
    Ticket { claims, standing, line, estimated_wait_seconds }
}

fn new_seed() -> String {
    format!("{:032x}", rand::random::<u128>())
}
