//! The catalogue: concerts, their schedules and their seats, as operators define them.
//!
//! MySQL stores the catalogue (`concerts`, `schedules`). Every instance has a snapshot in memory,
//! which [`CatalogueService::reload`] replaces when the version of the definitions has changed.
//! Redis stores only which version of a concert can be booked (`q:concerts`). A hold names the
//! version it was made from, so an instance with an old snapshot can't sell a seat at an old price
//! or a seat that no longer exists.
//!
//! Changes are made under the row lock of the definitions, and published to Redis before the
//! commit. When a hold is refused because of its version, [`CatalogueService::refresh`] repairs
//! what a failed change left behind.
//!
//! Seats are in the partition of the concert's queue, and partitions reach MySQL in no common order.
//! So a schedule leaves its queue only when none of its seats is held or sold and MySQL has
//! everything that its old partition recorded. Otherwise a sale through the new queue could reach
//! MySQL before the cancellation that freed the seat.
//!
//! Start reading with [`CatalogueService::change`]; `rules.rs` has the validation.

mod admin;
mod cancellation;
mod changes;
mod concert;
mod definition;
mod error;
mod routes;
mod rules;
mod sql;
mod store;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use sqlx::MySqlPool;
use tokio::sync::Mutex;

use crate::ids::{ConcertId, QueueId, ScheduleId};
use crate::mysql::{self, definitions};
use crate::outbox::WriterHandle;
use crate::queue::QueueService;
use crate::redis::RedisClient;

#[cfg(test)]
pub(crate) use admin::read_bodies;
pub use admin::router as admin_router;
pub use cancellation::ScheduleCancellation;
pub use concert::{Concert, ConcertSchedule, ScheduledConcert, SeatSection};
pub use definition::ConcertDefinition;
pub use error::Error;
pub use routes::router;

/// All operations on the catalogue. One value per process, shared by all requests.
pub struct CatalogueService {
    redis: RedisClient,
    mysql: MySqlPool,
    queue: Arc<QueueService>,
    writer: WriterHandle,
    snapshot: ArcSwap<CatalogueSnapshot>,
    /// Serializes reloads, so that an older read can't replace a newer one.
    reloading: Mutex<()>,
    lookup: definitions::DefinitionLookup,
    /// The number of refreshes. Many requests may meet a changed concert at once; the lock and the
    /// number let one of them ask MySQL and the others use its result.
    refreshes: Mutex<u64>,
    /// A copy of the number that can be read without the lock.
    completed_refreshes: AtomicU64,
}

#[derive(Default)]
struct CatalogueSnapshot {
    concerts: Vec<Arc<Concert>>,
    schedules: HashMap<ScheduleId, ScheduledConcert>,
    by_queue: HashMap<QueueId, Arc<[ScheduleId]>>,
}

impl CatalogueService {
    /// Call [`CatalogueService::reload`] before serving.
    pub fn new(
        redis: RedisClient,
        mysql: MySqlPool,
        queue: Arc<QueueService>,
        writer: WriterHandle,
    ) -> Self {
        Self {
            redis,
            mysql,
            queue,
            writer,
            snapshot: ArcSwap::default(),
            reloading: Mutex::new(()),
            lookup: definitions::DefinitionLookup::default(),
            refreshes: Mutex::new(0),
            completed_refreshes: AtomicU64::new(0),
        }
    }

    /// All concerts, sorted by id.
    pub fn concerts(&self) -> Vec<Arc<Concert>> {
        self.snapshot.load().concerts.clone()
    }

    pub fn concert(&self, id: &ConcertId) -> Option<Arc<Concert>> {
        self.snapshot.load().concerts.iter().find(|concert| concert.id == *id).cloned()
    }

    pub fn schedule(&self, id: &ScheduleId) -> Option<ScheduledConcert> {
        self.snapshot.load().schedules.get(id).cloned()
    }

    /// The schedules of all concerts of a queue.
    pub fn schedules_in_queue(&self, queue: &QueueId) -> Arc<[ScheduleId]> {
        self.snapshot.load().by_queue.get(queue).cloned().unwrap_or_default()
    }

    /// The concert, also when another instance has just created it.
    pub async fn find_concert(&self, id: &ConcertId) -> Result<Arc<Concert>, Error> {
        if let Some(known) = self.concert(id) {
            return Ok(known);
        }
        self.look_up().await?;
        self.concert(id).ok_or(Error::NotFound)
    }

    /// The schedule, also when another instance has just created it.
    pub async fn find_schedule(&self, id: &ScheduleId) -> Result<ScheduledConcert, Error> {
        if let Some(known) = self.schedule(id) {
            return Ok(known);
        }
        self.look_up().await?;
        self.schedule(id).ok_or(Error::NotFound)
    }

    async fn look_up(&self) -> Result<(), Error> {
        Box::pin(self.lookup.refresh(&self.mysql, async || self.reload().await)).await
    }

    /// Replaces the snapshot with what MySQL stores.
    pub async fn reload(&self) -> Result<(), Error> {
        let _one_at_a_time = self.reloading.lock().await;
        let mut connection = self.mysql.acquire().await.map_err(mysql::Error::from)?;
        let concerts: Vec<_> =
            sql::load_all(&mut connection).await?.into_iter().map(Arc::new).collect();
        let schedules: HashMap<_, _> = concerts
            .iter()
            .flat_map(ScheduledConcert::all)
            .map(|scheduled| (scheduled.schedule().id.clone(), scheduled))
            .collect();
        let mut lists: HashMap<QueueId, Vec<ScheduleId>> = HashMap::new();
        for (id, scheduled) in &schedules {
            lists.entry(scheduled.concert.queue.clone()).or_default().push(id.clone());
        }
        let by_queue = lists.into_iter().map(|(queue, ids)| (queue, ids.into())).collect();
        self.snapshot.store(Arc::new(CatalogueSnapshot { concerts, schedules, by_queue }));
        Ok(())
    }

    /// Ends the sale of a concert permanently. `is_settled` runs after bookings have been stopped,
    /// and returns whether no hold or payment of the concert is in progress.
    ///
    /// # Errors
    /// [`Error::InUse`] when one is in progress. The sale continues then.
    pub async fn archive<E: From<Error>>(
        &self,
        id: &ConcertId,
        is_settled: impl AsyncFnOnce(&Concert) -> Result<bool, E>,
    ) -> Result<(), E> {
        let (mut tx, version) =
            definitions::begin_change(&self.mysql).await.map_err(|error| E::from(error.into()))?;
        let all = sql::load_all(&mut tx).await.map_err(|error| E::from(error.into()))?;
        let concert = all.into_iter().find(|stored| stored.id == *id).ok_or(Error::NotFound)?;
        store::withdraw(&self.redis, &concert.queue, id).await.map_err(Error::from)?;
        let outcome = is_settled(&concert).await;
        if !matches!(outcome, Ok(true)) {
            store::publish(&self.redis, &concert).await.map_err(Error::from)?;
            return Err(outcome.err().unwrap_or_else(|| Error::InUse(Vec::new()).into()));
        }
        let commit = async {
            sql::archive(&mut tx, id, version).await?;
            tx.commit().await.map_err(mysql::Error::from)?;
            self.reload().await
        };
        Ok(commit.await?)
    }

    /// Publishes the committed version of a concert and its queue to Redis, and reloads this
    /// instance. Called after Redis refused a hold of `stale` because of its version. Waits for a
    /// change that is in progress.
    pub async fn refresh(&self, stale: &Concert) -> Result<(), Error> {
        let seen = self.completed_refreshes.load(Ordering::Acquire);
        let mut refreshes = self.refreshes.lock().await;
        if *refreshes != seen {
            // Another request has refreshed while this one waited for the lock.
            return Ok(());
        }
        self.queue.publish_settings(&stale.queue).await?;
        let (mut tx, _) = definitions::lock(&self.mysql).await?;
        let committed =
            sql::load_all(&mut tx).await?.into_iter().find(|concert| concert.id == stale.id);
        match &committed {
            Some(concert) if !concert.archived => store::publish(&self.redis, concert).await?,
            _ => store::withdraw(&self.redis, &stale.queue, &stale.id).await?,
        }
        tx.commit().await.map_err(mysql::Error::from)?;
        self.reload().await?;
        *refreshes += 1;
        self.completed_refreshes.store(*refreshes, Ordering::Release);
        Ok(())
    }
}
