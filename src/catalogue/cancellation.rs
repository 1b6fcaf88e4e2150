//! Calls a schedule off.
//!
//! The concert gets a new version, so holds that an instance makes from the old definition are
//! refused from then on. A hold that was made before stays; the caller ends it.

use sqlx::mysql::MySql;
use sqlx::{MySqlConnection, Transaction};

use super::{CatalogueService, Concert, Error, ScheduledConcert, sql, store};
use crate::ids::{ReservationId, ScheduleId};
use crate::mysql::{self, definitions};

/// The change of a schedule that is called off, before its commit.
pub struct ScheduleCancellation {
    tx: Transaction<'static, MySql>,
    concert: Concert,
    schedule: ScheduleId,
}

impl ScheduleCancellation {
    /// For what else belongs to the change.
    pub fn connection(&mut self) -> &mut MySqlConnection {
        &mut self.tx
    }
}

impl CatalogueService {
    /// Locks the definitions and finds the schedule.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Archived`].
    pub async fn begin_cancellation(
        &self,
        schedule: &ScheduleId,
    ) -> Result<ScheduleCancellation, Error> {
        let (mut tx, version) = definitions::begin_change(&self.mysql).await?;
        let has_schedule =
            |concert: &Concert| concert.schedules.iter().any(|it| it.id == *schedule);
        let all = sql::load_all(&mut tx).await?;
        let concert = all.into_iter().find(has_schedule).ok_or(Error::NotFound)?;
        if concert.archived {
            return Err(Error::Archived);
        }
        let concert = Concert { version, ..concert };
        Ok(ScheduleCancellation { tx, concert, schedule: schedule.clone() })
    }

    /// Commits the cancellation. From now on no seat of the schedule can be held. A schedule that
    /// was called off before stays so.
    ///
    /// # Errors
    /// Those of the stores.
    pub async fn commit_cancellation(
        &self,
        cancellation: ScheduleCancellation,
        reason: &str,
    ) -> Result<(), Error> {
        let ScheduleCancellation { mut tx, concert, schedule } = cancellation;
        if !concert.cancelled.contains(&schedule) {
            sql::cancel_schedule(&mut tx, &concert, &schedule, reason).await?;
            store::publish(&self.redis, &concert).await?;
        }
        tx.commit().await.map_err(mysql::Error::from)?;
        self.reload().await
    }

    /// The reservations that hold or have bought seats of a schedule, each once.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn reservations_in_use(
        &self,
        scheduled: &ScheduledConcert,
    ) -> Result<Vec<ReservationId>, Error> {
        let (queue, schedule) = (&scheduled.concert.queue, scheduled.schedule());
        let range = 1..=schedule.seats();
        let seats =
            store::seats_in_use(&self.redis, queue, &schedule.id, range, usize::MAX).await?;
        let mut ids: Vec<_> = seats.into_iter().map(|seat| seat.reservation).collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}
