//! Archiving: of a sale that is over for good Redis keeps nothing, MySQL everything.
//!
//! Nothing new can begin once the concert is taken out of Redis; what runs must have come to its end, and MySQL must have all of it. Only then is the concert
//! archived in MySQL, and after that its keys go. A crash in between leaves keys that nothing reads any more; archiving again drops them. From then
//! on seats are told from MySQL, and nothing of the concert can be held, changed or cancelled: its marks are gone, and without them a
//! seat would look free.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::{Instant, sleep};

use super::{Error, SeatService, archive_store as store, sql};
use crate::catalogue::{self, Concert};
use crate::ids::ConcertId;
use crate::mysql::checkpoint;

/// By itself a sale is archived so long after its queue has closed.
const AFTER_CLOSING: TimeDelta = TimeDelta::days(1);
/// For so long it is waited until MySQL has everything, looking this often.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

impl SeatService {
    /// Ends the sale of a concert for good and clears it out of Redis.
    ///
    /// # Errors
    /// [`catalogue::Error::InUse`] while something is held, being paid or being cancelled, or not in MySQL yet; then the sale goes on.
    pub async fn archive(&self, id: &ConcertId) -> Result<(), Error> {
        let concert = self.catalogue.concert(id).ok_or(Error::NotFound)?;
        if !concert.archived {
            self.catalogue
                .archive(id, async |concert: &Concert| self.is_settled(concert).await)
                .await?;
        }
        self.forget(&concert).await
    }

    /// Archives the sales that are due by a moment of Redis' clock: a day after the queue has closed, once nothing can be cancelled any more.
    pub async fn archive_due(&self, now: DateTime<Utc>) -> Result<Vec<ConcertId>, Error> {
        let mut archived = Vec::new();
        for concert in self.catalogue.concerts() {
            let closed =
                self.queue.settings(&concert.queue).and_then(|laid| laid.settings.closes_at);
            let over = closed.is_some_and(|closed| closed + AFTER_CLOSING <= now);
            let mut starts = concert.schedules.iter().map(|schedule| schedule.starts_at);
            let cancellable =
                starts.any(|starts_at| concert.cancel_until.unwrap_or(starts_at) > now);
            if over && !cancellable && !concert.archived {
                match self.archive(&concert.id).await {
                    Ok(()) => archived.push(concert.id.clone()),
                    // What is under way comes to its end; the next round finds it so.
                    Err(Error::Catalogue(catalogue::Error::InUse)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(archived)
    }

    /// Whether everything of a concert that was taken out has come to its end and is in MySQL.
    async fn is_settled(&self, concert: &Concert) -> Result<bool, Error> {
        let partition = self.redis.keys().partition(concert.queue.slot());
        let mut cursor = "0".to_owned();
        loop {
            let part = store::running(&self.redis, partition, &cursor, &concert.id).await?;
            if part.dropped > 0 {
                return Ok(false);
            }
            let Some(next) = part.next else { break };
            cursor = next;
        }
        let newest = self.redis.marks(&[partition]).await?.first().map_or(0, |marks| marks.seq);
        let deadline = Instant::now() + PATIENCE;
        while checkpoint::load(&self.mysql, partition).await?.n < newest {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            self.nudge.poke();
            sleep(LOOK).await;
        }
        Ok(true)
    }

    /// Drops everything of an archived concert, and its queue when that admits to nothing else.
    async fn forget(&self, concert: &Concert) -> Result<(), Error> {
        for schedule in &concert.schedules {
            let sold = sql::sold(&self.mysql, &schedule.id).await?.len();
            store::forget_seats(&self.redis, &concert.queue, &schedule.id, sold).await?;
        }
        let partition = self.redis.keys().partition(concert.queue.slot());
        let mut cursor = Some("0".to_owned());
        while let Some(at) = cursor {
            cursor = store::forget(&self.redis, partition, &at, &concert.id).await?.next;
        }
        let mut cursor = Some("0".to_owned());
        while let Some(at) = cursor {
            cursor = store::forget_counts(&self.redis, concert, &at).await?.next;
        }
        let shared = |other: &Concert| {
            other.queue == concert.queue && !other.archived && other.id != concert.id
        };
        if !self.catalogue.concerts().iter().any(|other| shared(other)) {
            store::forget_queue(&self.redis, &concert.queue).await?;
        }
        Ok(())
    }
}
