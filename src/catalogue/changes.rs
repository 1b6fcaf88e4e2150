//! Changes of concerts: in MySQL under the row lock of the definitions, and in Redis before the
//! commit.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{CatalogueService, Concert, ConcertDefinition, Error, rules, sql, store};
use crate::definition::{
    ChangePreconditions, ChangedDefinition, DefinitionEtag, DefinitionViolation, InUseItem,
    MAX_IN_USE_ITEMS,
};
use crate::http::merge_patch::DefinitionChange;
use crate::ids::{ConcertId, QueueId, ScheduleId};
use crate::mysql::{self, definitions};
use crate::outbox::{self, dead_letters};
use crate::time::UnixMillis;

/// How long a change that takes a schedule out of its queue waits until MySQL has everything of the
/// queue's partition. Other changes wait meanwhile, five seconds at most.
const MOVE_PATIENCE: Duration = Duration::from_secs(2);

impl CatalogueService {
    /// Creates a concert, or replaces or patches its definition, and creates its queue if that is
    /// missing.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every violation, [`Error::PreconditionFailed`], [`Error::NotFound`]
    /// for a patch, [`Error::InUse`] when a held or sold seat would be removed,
    /// [`Error::NotWritten`] when MySQL lacks changes of a queue that a schedule would leave,
    /// [`Error::Archived`]. Nothing has changed then.
    pub async fn change(
        &self,
        id: &ConcertId,
        change: DefinitionChange<ConcertDefinition>,
        preconditions: &ChangePreconditions,
    ) -> Result<ChangedDefinition<ConcertDefinition>, Error> {
        if let DefinitionChange::Replace(definition) = &change {
            definition.clone().validate(id).map_err(Error::Invalid)?;
        }
        let (mut tx, version) = definitions::begin_change(&self.mysql).await?;
        let all = sql::load_all(&mut tx).await?;
        let before = all.into_iter().find(|stored| stored.id == *id);
        let stored = before.as_ref().map(ConcertDefinition::from);
        let definition = change.resolve(id.as_str(), stored.as_ref(), preconditions)?;
        let concert = Concert { version, ..definition.validate(id).map_err(Error::Invalid)? };
        for (at, schedule) in concert.schedules.iter().enumerate() {
            if sql::concert_of_schedule(&mut tx, &schedule.id)
                .await?
                .is_some_and(|owner| owner != concert.id.as_str())
            {
                let field = format!("schedules[{at}].id");
                let violation = DefinitionViolation::new(field, "belongs to another concert");
                return Err(Error::Invalid(vec![violation]));
            }
        }
        if before.as_ref().is_some_and(|before| before.archived) {
            return Err(Error::Archived);
        }
        self.queue.create_if_missing(&mut tx, version, &concert.queue).await?;
        sql::save(&mut tx, &concert).await?;
        if let Some(before) = &before {
            self.withdraw_removed_seats(before, &concert).await?;
        }
        store::publish(&self.redis, &concert).await?;
        tx.commit().await.map_err(mysql::Error::from)?;
        self.queue.reload().await?;
        self.reload().await?;
        Ok(ChangedDefinition { before: stored, after: ConcertDefinition::from(&concert) })
    }

    /// Deletes a concert. What MySQL has of its reservations stays.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PreconditionFailed`], [`Error::InUse`] while a seat is held or
    /// sold, [`Error::NotWritten`] as in [`CatalogueService::change`].
    pub async fn delete(
        &self,
        id: &ConcertId,
        preconditions: &ChangePreconditions,
    ) -> Result<ConcertDefinition, Error> {
        let (mut tx, _) = definitions::begin_change(&self.mysql).await?;
        let all = sql::load_all(&mut tx).await?;
        let before = all.into_iter().find(|stored| stored.id == *id).ok_or(Error::NotFound)?;
        let stored = ConcertDefinition::from(&before);
        preconditions.check(Some(&DefinitionEtag::of(id.as_str(), &stored)))?;
        if before.archived {
            let sold = sql::sold_reservations(&mut tx, id, MAX_IN_USE_ITEMS).await?;
            if !sold.is_empty() {
                let item = |(id, seats)| InUseItem::SeatSold { id, seats };
                return Err(Error::InUse(sold.into_iter().map(item).collect()));
            }
        } else {
            let empty = Concert { schedules: Vec::new(), ..before.clone() };
            self.withdraw_removed_seats(&before, &empty).await?;
        }
        sql::delete(&mut tx, id).await?;
        tx.commit().await.map_err(mysql::Error::from)?;
        self.reload().await?;
        Ok(stored)
    }

    /// Checks that the seats which the change removes may go, and leaves the concert withdrawn from
    /// sale. Without removed seats it does nothing.
    async fn withdraw_removed_seats(&self, before: &Concert, after: &Concert) -> Result<(), Error> {
        let removed = rules::removed_seats(before, after);
        if removed.is_empty() {
            return Ok(());
        }
        // First stop new holds, then check: no hold can be made in between.
        store::withdraw(&self.redis, &before.queue, &before.id).await?;
        let checked = self.check_removable(before, after, removed).await;
        if checked.is_err() {
            store::publish(&self.redis, before).await?;
        }
        checked
    }

    async fn check_removable(
        &self,
        before: &Concert,
        after: &Concert,
        removed: Vec<(ScheduleId, RangeInclusive<u32>)>,
    ) -> Result<(), Error> {
        let mut in_use = Vec::new();
        for (schedule, range) in removed {
            let limit = MAX_IN_USE_ITEMS - in_use.len();
            let seats =
                store::seats_in_use(&self.redis, &before.queue, &schedule, range, limit).await?;
            in_use.extend(by_reservation(seats));
            if in_use.len() >= MAX_IN_USE_ITEMS {
                break;
            }
        }
        if !in_use.is_empty() {
            return Err(Error::InUse(in_use));
        }
        if rules::schedule_leaves_queue(before, after) && !self.has_written(&before.queue).await? {
            return Err(Error::NotWritten);
        }
        Ok(())
    }

    /// Whether MySQL has everything that the queue's partition has recorded. Waits for it for
    /// [`MOVE_PATIENCE`].
    async fn has_written(&self, queue: &QueueId) -> Result<bool, Error> {
        let partition = self.redis.keys().partition(queue.slot());
        let (redis, mysql) = (&self.redis, &self.mysql);
        let partitions = [partition];
        let written =
            outbox::wait_until_written(redis, mysql, &self.writer, &partitions, MOVE_PATIENCE);
        Ok(written.await? && !dead_letters::has_any(mysql, partition).await?)
    }
}

/// One item for each reservation, in the order of its first seat.
fn by_reservation(seats: Vec<store::SeatInUse>) -> Vec<InUseItem> {
    let mut items: Vec<InUseItem> = Vec::new();
    for store::SeatInUse { number, reservation, held_until } in seats {
        let known = items.iter_mut().find_map(|item| match item {
            InUseItem::SeatHeld { id, seats, .. } | InUseItem::SeatSold { id, seats }
                if *id == reservation =>
            {
                Some(seats)
            }
            _ => None,
        });
        match (known, held_until) {
            (Some(numbers), _) => numbers.push(number),
            (None, None) => {
                items.push(InUseItem::SeatSold { id: reservation, seats: vec![number] });
            }
            (None, Some(until)) => items.push(InUseItem::SeatHeld {
                id: reservation,
                seats: vec![number],
                until: UnixMillis(until),
            }),
        }
    }
    items
}
