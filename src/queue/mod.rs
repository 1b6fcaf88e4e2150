//! The line: who waits, who is active, and who is next.
//!
//! A queue lives in the partition of its name. Redis holds the line (`q:waiting`, a sorted set by score of sixteen-byte users), the active
//! slots (`q:active` by deadline, `q:admitted` with each user's score), the promotion bucket and the settings as laid; MySQL holds the settings. Scores: a
//! place after the opening is 2^40 + sequence; a place of the lottery lies below 2^40. The queue token carries the score, so the line
//! needs no other record.
//!
//! Settings are changed under the row lock of the definitions, laid in Redis before the commit, and laid again by whoever finds them missing.

mod admin;
mod error;
mod holder;
mod promote;
mod routes;
mod rules;
mod settings;
mod sql;
mod store;
mod ticket;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use sqlx::MySqlConnection;
use sqlx::MySqlPool;
use tokio::sync::Mutex;

use crate::ids::{QueueId, UserId};
use crate::mysql::{self, definitions};
use crate::redis::{self, Coalescer, Redis};

pub use admin::router as admin_router;
pub use error::Error;
pub use holder::{Holder, Owner, TOKEN_HEADER};
pub use promote::run as run_promoter;
pub use routes::{router, wrong_queue};
pub use rules::Flaw;
pub use settings::{Laid, Mode, Order, Settings};
pub use store::{Line, Standing};
pub use ticket::{Claims, Signer};

/// Requests that may wait for one queue in one instance. At two microseconds each the last of them waits some tens of milliseconds.
const MAX_WAITING: usize = 16_384;

/// The façade of the room.
pub struct Queue {
    redis: Redis,
    mysql: MySqlPool,
    signer: Signer,
    known: ArcSwap<HashMap<QueueId, Arc<Laid>>>,
    /// One reading at a time: what was read first must not be kept last.
    reloading: Mutex<()>,
    join: Coalescer<store::Join>,
    poll: Coalescer<store::Poll>,
    leave: Coalescer<store::Leave>,
    counts: Coalescer<store::Counts>,
}

/// Where the holder of a token stands, and how the line looks around them.
#[derive(Debug, Clone)]
pub struct Place {
    /// Who and where.
    pub claims: Claims,
    /// Waiting, active or expired.
    pub standing: Standing,
    /// The line.
    pub line: Line,
    /// Seconds until let in, when known.
    pub estimated_wait_seconds: Option<u64>,
}

impl Queue {
    /// A line over Redis and MySQL, whose tokens `signer` signs. Call [`Queue::reload`] before serving.
    pub fn new(redis: Redis, mysql: MySqlPool, signer: Signer) -> Self {
        Self {
            signer,
            known: ArcSwap::default(),
            reloading: Mutex::default(),
            join: Coalescer::new(store::Join(redis.clone()), MAX_WAITING),
            poll: Coalescer::new(store::Poll(redis.clone()), MAX_WAITING),
            leave: Coalescer::new(store::Leave(redis.clone()), MAX_WAITING),
            counts: Coalescer::new(store::Counts(redis.clone()), MAX_WAITING),
            redis,
            mysql,
        }
    }

    /// Puts a user in line, or says where they stand already. The flag says whether the place is new.
    pub async fn join(&self, queue: &QueueId, user: UserId) -> Result<(Place, bool), Error> {
        let settings = self.settings(queue).ok_or(Error::NotFound)?;
        let (line, joined) = self.with_settings(queue, || self.join.submit(queue.clone(), user)).await?;
        match joined {
            store::Joined::Placed { score, standing, fresh } => {
                let claims = Claims { queue: queue.clone(), user, score };
                Ok((place(claims, standing, line, &settings.settings), fresh))
            }
            store::Joined::Closed => Err(Error::Closed),
            store::Joined::Full => Err(Error::Full),
        }
    }

    /// Where the holder of a token stands. A promoted user who asks has shown up.
    pub async fn poll(&self, claims: &Claims) -> Result<Place, Error> {
        let queue = &claims.queue;
        let settings = self.settings(queue).ok_or(Error::NotFound)?;
        let request = (claims.user, claims.score);
        let (line, standing) = self.with_settings(queue, || self.poll.submit(queue.clone(), request)).await?;
        Ok(place(claims.clone(), standing, line, &settings.settings))
    }

    /// Lets the holder pass only while they are active.
    ///
    /// # Errors
    /// [`Error::NotAdmitted`] while they wait, [`Error::TokenExpired`] once their place is gone.
    pub async fn require_active(&self, claims: &Claims) -> Result<(), Error> {
        let place = self.poll(claims).await?;
        match place.standing {
            Standing::Active { .. } => Ok(()),
            Standing::Waiting { .. } => Err(Error::NotAdmitted { poll_after_ms: place.poll_after_ms(0.0) }),
            Standing::Expired => Err(Error::TokenExpired),
        }
    }

    /// Gives up the place or the slot.
    pub async fn leave(&self, claims: &Claims) -> Result<(), Error> {
        let request = (claims.user, claims.score);
        if self.leave.submit(claims.queue.clone(), request).await? {
            Ok(())
        } else {
            Err(Error::TokenExpired)
        }
    }

    /// The line as everybody may see it, and how many were let in so far.
    pub async fn counts(&self, queue: &QueueId) -> Result<(Arc<Laid>, Line, u64), Error> {
        let settings = self.settings(queue).ok_or(Error::NotFound)?;
        let (line, admitted) = self.with_settings(queue, || self.counts.submit(queue.clone(), ())).await?;
        Ok((settings, line, admitted))
    }

    /// The token for a place.
    pub fn sign(&self, claims: &Claims) -> String {
        self.signer.sign(claims)
    }

    /// What a token says, if it is one of ours.
    pub fn verify(&self, token: &str) -> Option<Claims> {
        self.signer.verify(token)
    }

    /// The settings of a queue, if there is one.
    pub fn settings(&self, queue: &QueueId) -> Option<Arc<Laid>> {
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
    pub async fn put(&self, queue: &QueueId, settings: Settings) -> Result<(), Error> {
        let flaws = rules::flaws(&settings);
        if !flaws.is_empty() {
            return Err(Error::Unsound(flaws));
        }
        let (mut tx, version) = definitions::begin_change(&self.mysql).await?;
        let seed = match sql::one(&mut tx, queue).await? {
            Some(before) => before.seed,
            None => new_seed(),
        };
        let laid = Laid { settings, version, seed };
        sql::put(&mut tx, queue, &laid).await?;
        store::configure(&self.redis, queue, &laid).await?;
        tx.commit().await.map_err(mysql::Error::from)?;
        self.reload().await
    }

    /// Makes a queue with default settings within a change that is under way, unless it is there. Whoever needs it lays it.
    pub async fn ensure(&self, tx: &mut MySqlConnection, version: u64, queue: &QueueId) -> Result<(), Error> {
        if sql::one(tx, queue).await?.is_none() {
            let laid = Laid { settings: Settings::default(), version, seed: new_seed() };
            sql::put(tx, queue, &laid).await?;
        }
        Ok(())
    }

    /// Reads all settings from MySQL.
    pub async fn reload(&self) -> Result<(), Error> {
        let _one_at_a_time = self.reloading.lock().await;
        let mut connection = self.mysql.acquire().await.map_err(mysql::Error::from)?;
        let known =
            sql::all(&mut connection).await?.into_iter().map(|(id, laid)| (id, Arc::new(laid))).collect();
        self.known.store(Arc::new(known));
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
                self.lay(queue).await?;
                Ok(call().await?)
            }
            other => Ok(other?),
        }
    }

    fn redis(&self) -> &Redis {
        &self.redis
    }
}

impl Place {
    /// When to ask again, in milliseconds. `jitter` is from −1 to 1.
    pub fn poll_after_ms(&self, jitter: f64) -> u64 {
        let after = match self.standing {
            Standing::Waiting { .. } => rules::poll_after(self.estimated_wait_seconds, jitter),
            Standing::Active { .. } | Standing::Expired => rules::poll_after(None, jitter),
        };
        u64::try_from(after.as_millis()).unwrap_or(u64::MAX)
    }
}

fn place(claims: Claims, standing: Standing, line: Line, settings: &Settings) -> Place {
    let estimated_wait_seconds = match standing {
        Standing::Waiting { position } => {
            rules::estimated_wait_seconds(position, line.recent, line.mode, settings)
        }
        Standing::Active { .. } | Standing::Expired => None,
    };
    Place { claims, standing, line, estimated_wait_seconds }
}

fn new_seed() -> String {
    format!("{:032x}", rand::random::<u128>())
}
