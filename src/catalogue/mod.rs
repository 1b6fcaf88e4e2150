//! The catalogue: concerts, their dates and their seats, as operators define them.
//!
//! MySQL keeps it (`concerts`, `schedules`); every instance holds a snapshot, which [`CatalogueService::reload`] renews when the definitions' version has moved.
//! Redis is told only which version of a concert may be booked (`q:concerts`): a hold names the version it was made from, so an instance with an
//! old snapshot can't sell a seat at an old price or one that is gone. Changes are made under the row lock of the definitions.

mod admin;
mod concert;
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

use crate::ids::{ConcertId, ScheduleId};
use crate::mysql::{self, definitions};
use crate::queue::QueueService;
use crate::redis::RedisClient;

#[cfg(test)]
pub(crate) use admin::read_bodies;
pub use admin::router as admin_router;
pub use concert::{Concert, ConcertSchedule, ScheduledConcert, SeatSection};
pub use error::Error;
pub use routes::router;
pub use rules::Flaw;

/// The façade of the room.
pub struct CatalogueService {
    redis: RedisClient,
    mysql: MySqlPool,
    queue: Arc<QueueService>,
    known: ArcSwap<CatalogueSnapshot>,
    reloading: Mutex<()>,
    /// Renewals so far, one at a time: a crowd that meets a changed concert asks MySQL once.
    renewals: Mutex<u64>,
    renewed: AtomicU64,
}

#[derive(Default)]
struct CatalogueSnapshot {
    concerts: Vec<Arc<Concert>>,
    dates: HashMap<ScheduleId, ScheduledConcert>,
}

impl CatalogueService {
    /// A catalogue in MySQL. Call [`CatalogueService::reload`] before serving.
    pub fn new(redis: RedisClient, mysql: MySqlPool, queue: Arc<QueueService>) -> Self {
        Self {
            redis,
            mysql,
            queue,
            known: ArcSwap::default(),
            reloading: Mutex::new(()),
            renewals: Mutex::new(0),
            renewed: AtomicU64::new(0),
        }
    }

    /// All concerts, by name.
    pub fn concerts(&self) -> Vec<Arc<Concert>> {
        self.known.load().concerts.clone()
    }

    /// One concert.
    pub fn concert(&self, id: &ConcertId) -> Option<Arc<Concert>> {
        self.known.load().concerts.iter().find(|concert| concert.id == *id).cloned()
    }

    /// One date with its concert.
    pub fn date(&self, id: &ScheduleId) -> Option<ScheduledConcert> {
        self.known.load().dates.get(id).cloned()
    }

    /// Changes a concert, or makes it, and its queue when that is missing.
    ///
    /// # Errors
    /// [`Error::Unsound`] with every field that is not; [`Error::InUse`] when a held or sold seat would go. Then nothing has changed.
    pub async fn put(&self, mut concert: Concert) -> Result<(), Error> {
        let flaws = rules::flaws(&concert);
        if !flaws.is_empty() {
            return Err(Error::Unsound(flaws));
        }
        let (mut tx, version) = definitions::begin_change(&self.mysql).await?;
        concert.version = version;
        for (at, schedule) in concert.schedules.iter().enumerate() {
            if sql::owner(&mut tx, &schedule.id)
                .await?
                .is_some_and(|owner| owner != concert.id.as_str())
            {
                let field = format!("schedules[{at}].id");
                return Err(Error::Unsound(vec![(field, "belongs to another concert".into())]));
            }
        }
        let before = sql::all(&mut tx).await?.into_iter().find(|known| known.id == concert.id);
        if before.as_ref().is_some_and(|before| before.archived) {
            return Err(Error::Archived);
        }
        self.queue.ensure(&mut tx, version, &concert.queue).await?;
        sql::put(&mut tx, &concert).await?;
        if let Some(before) = before {
            self.replace(&before, &concert).await?;
        }
        store::lay(&self.redis, &concert).await?;
        tx.commit().await.map_err(mysql::Error::from)?;
        self.queue.reload().await?;
        self.reload().await
    }

    /// Stops holds of the version before, then looks whether a seat that goes is taken. In that order no hold can slip in between.
    async fn replace(&self, before: &Concert, after: &Concert) -> Result<(), Error> {
        let removed = rules::removed(before, after);
        if removed.is_empty() {
            return Ok(());
        }
        store::take_out(&self.redis, &before.queue, &before.id).await?;
        for (schedule, range) in removed {
            if store::taken(&self.redis, &before.queue, &schedule, range).await? {
                store::lay(&self.redis, before).await?;
                return Err(Error::InUse);
            }
        }
        Ok(())
    }

    /// Reads everything from MySQL.
    pub async fn reload(&self) -> Result<(), Error> {
        // One after the other, so that what was read first is not stored last.
        let _turn = self.reloading.lock().await;
        let mut connection = self.mysql.acquire().await.map_err(mysql::Error::from)?;
        let concerts: Vec<_> = sql::all(&mut connection).await?.into_iter().map(Arc::new).collect();
        let dates = concerts
            .iter()
            .flat_map(ScheduledConcert::all_of)
            .map(|date| (date.schedule().id.clone(), date))
            .collect();
        self.known.store(Arc::new(CatalogueSnapshot { concerts, dates }));
        Ok(())
    }

    /// Ends the sale of a concert for good. First nothing of it can be booked any more; then `settled` looks whether anything is still under
    /// way, and if so the sale goes on.
    ///
    /// # Errors
    /// [`Error::InUse`] when something is under way; then nothing has changed.
    pub async fn archive<E: From<Error>>(
        &self,
        id: &ConcertId,
        settled: impl AsyncFnOnce(&Concert) -> Result<bool, E>,
    ) -> Result<(), E> {
        let (mut tx, version) =
            definitions::begin_change(&self.mysql).await.map_err(|error| E::from(error.into()))?;
        let all = sql::all(&mut tx).await.map_err(|error| E::from(error.into()))?;
        let concert = all.into_iter().find(|known| known.id == *id).ok_or(Error::NotFound)?;
        store::take_out(&self.redis, &concert.queue, id).await.map_err(Error::from)?;
        let outcome = settled(&concert).await;
        if !matches!(outcome, Ok(true)) {
            store::lay(&self.redis, &concert).await.map_err(Error::from)?;
            return Err(outcome.err().unwrap_or_else(|| Error::InUse.into()));
        }
        let written = async {
            sql::archive(&mut tx, id, version).await?;
            tx.commit().await.map_err(mysql::Error::from)?;
            self.reload().await
        };
        Ok(written.await?)
    }

    /// Brings this instance and Redis to the committed version of a concert and its queue, after a hold of `stale` was refused because
    /// Redis had another. Waits for a change that is under way.
    pub async fn renew(&self, stale: &Concert) -> Result<(), Error> {
        let seen = self.renewed.load(Ordering::Acquire);
        let mut renewals = self.renewals.lock().await;
        if *renewals != seen {
            return Ok(());
        }
        self.queue.lay(&stale.queue).await?;
        let (mut tx, _) = definitions::lock(&self.mysql).await?;
        let committed = sql::all(&mut tx).await?.into_iter().find(|concert| concert.id == stale.id);
        match &committed {
            Some(concert) if !concert.archived => store::lay(&self.redis, concert).await?,
            _ => store::take_out(&self.redis, &stale.queue, &stale.id).await?,
        }
        tx.commit().await.map_err(mysql::Error::from)?;
        self.reload().await?;
        *renewals += 1;
        self.renewed.store(*renewals, Ordering::Release);
        Ok(())
    }
}
