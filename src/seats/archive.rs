//! Archiving of a concert whose sale has ended: its data is removed from Redis and kept in MySQL.
//!
//! The steps:
//! 1. Withdraw the concert from Redis, so that no new hold is possible.
//! 2. Check that all reservations and payments have ended and that MySQL has all of them.
//! 3. Mark the concert as archived in MySQL.
//! 4. Remove its keys from Redis.
//!
//! After a crash between the last two steps, unused keys stay in Redis until the concert is
//! archived again. The seats of an archived concert are read from MySQL. It can't be held, changed
//! or cancelled: without its entries in `s:seats`, sold seats would seem to be free.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::{Instant, sleep};

use super::{Error, SeatService, archive_store as store, sql};
use crate::catalogue::{self, Concert};
use crate::ids::ConcertId;
use crate::mysql::checkpoint;

/// How long after its queue has closed a concert is archived automatically.
const ARCHIVE_DELAY: TimeDelta = TimeDelta::days(1);
/// How long to wait until MySQL has everything.
const CHECKPOINT_WAIT: Duration = Duration::from_secs(10);
const CHECKPOINT_POLL_INTERVAL: Duration = Duration::from_millis(20);

impl SeatService {
    /// Ends the sale of a concert and removes it from Redis. This can't be undone.
    ///
    /// # Errors
    /// [`catalogue::Error::InUse`] while a seat is held, being paid or being cancelled, or while
    /// MySQL lacks something. The sale continues then.
    pub async fn archive(&self, id: &ConcertId) -> Result<(), Error> {
        let concert = self.catalogue.find_concert(id).await?;
        if !concert.archived {
            self.catalogue
                .archive(id, async |concert: &Concert| self.has_ended(concert).await)
                .await?;
        }
        self.remove_archived(&concert).await
    }

    /// Archives the concerts whose queue has been closed for [`ARCHIVE_DELAY`] and whose
    /// reservations can't be cancelled any more. `now` is the time of Redis.
    pub async fn archive_due(&self, now: DateTime<Utc>) -> Result<Vec<ConcertId>, Error> {
        let mut archived = Vec::new();
        for concert in self.catalogue.concerts() {
            let closes_at = self
                .queue
                .settings(&concert.queue)
                .and_then(|published| published.settings.closes_at);
            let over = closes_at.is_some_and(|closes_at| closes_at + ARCHIVE_DELAY <= now);
            let mut starts = concert.schedules.iter().map(|schedule| schedule.starts_at);
            let cancellable =
                starts.any(|starts_at| concert.cancel_until.unwrap_or(starts_at) > now);
            if over && !cancellable && !concert.archived {
                match self.archive(&concert.id).await {
                    Ok(()) => archived.push(concert.id.clone()),
                    // Holds and payments end, so a later round archives it.
                    Err(Error::Catalogue(catalogue::Error::InUse(_))) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(archived)
    }

    /// Whether all reservations and payments of a withdrawn concert have ended and are in MySQL.
    async fn has_ended(&self, concert: &Concert) -> Result<bool, Error> {
        let partition = self.redis.keys().partition(concert.queue.slot());
        let mut cursor = "0".to_owned();
        loop {
            let page = store::count_running(&self.redis, partition, &cursor, &concert.id).await?;
            if page.dropped > 0 {
                return Ok(false);
            }
            let Some(next) = page.next else { break };
            cursor = next;
        }
        let newest =
            self.redis.fence_marks(&[partition]).await?.first().map_or(0, |marks| marks.seq);
        let deadline = Instant::now() + CHECKPOINT_WAIT;
        while checkpoint::load(&self.mysql, partition).await?.n < newest {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            self.writer.wake();
            sleep(CHECKPOINT_POLL_INTERVAL).await;
        }
        Ok(true)
    }

    /// Removes an archived concert from Redis, and its queue when no other concert uses it.
    async fn remove_archived(&self, concert: &Concert) -> Result<(), Error> {
        for schedule in &concert.schedules {
            let sold = sql::sold(&self.mysql, &schedule.id).await?.len();
            store::archive_seats(&self.redis, &concert.queue, &schedule.id, sold).await?;
        }
        let partition = self.redis.keys().partition(concert.queue.slot());
        let mut cursor = Some("0".to_owned());
        while let Some(at) = cursor {
            cursor =
                store::archive_reservations(&self.redis, partition, &at, &concert.id).await?.next;
        }
        let mut cursor = Some("0".to_owned());
        while let Some(at) = cursor {
            cursor = store::archive_purchase_counts(&self.redis, concert, &at).await?.next;
        }
        let uses_queue = |other: &Concert| {
            other.queue == concert.queue && !other.archived && other.id != concert.id
        };
        if !self.catalogue.concerts().iter().any(|other| uses_queue(other)) {
            store::archive_queue(&self.redis, &concert.queue).await?;
        }
        Ok(())
    }
}
