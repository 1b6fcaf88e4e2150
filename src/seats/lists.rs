//! Lists of reservations, newest first: what runs is in Redis, what has come to something is in MySQL, and what lies between them is in the outbox.
//!
//! They are read in the order in which a reservation moves, so none slips through: what is no longer open in Redis was told to the outbox before, and
//! what has left the outbox is in MySQL ([`tail`]). A reservation found in several places is told as the latest of them has it.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt};

use super::reservation::{Reservation, ReservationStatus};
use super::{Error, SeatService, sql};
use crate::http::page::{self, PageCursor, PageLimit};
use crate::ids::{ConcertId, QueueId, UserId};
use crate::outbox::event::{self, OutboxEvent, ReservationEventStatus};
use crate::outbox::pending_events;
use crate::partition::Partition;

/// Queues that are asked side by side.
const PARALLEL: usize = 32;

/// A reservation, and when it came to where it stands; 0 while it runs.
pub(super) type DatedReservation = (i64, Reservation);

/// A page of reservations, Redis' clock, and where the next page begins.
pub(super) type ReservationPage = (i64, Vec<Reservation>, Option<PageCursor>);

impl SeatService {
    /// A user's reservations.
    pub(super) async fn mine(
        &self,
        user: UserId,
        limit: PageLimit,
        before: PageCursor,
    ) -> Result<ReservationPage, Error> {
        let queues = self.queue.ids();
        let asked = queues.iter().cloned().map(|queue| self.open.submit(queue, user));
        let open: Vec<(i64, Vec<Reservation>)> =
            futures::stream::iter(asked).buffer_unordered(PARALLEL).try_collect().await?;
        let now = open.iter().map(|(now, _)| *now).max().unwrap_or(0);
        let running =
            open.into_iter().flat_map(|(_, open)| open).map(|reservation| (0, reservation));
        let unwritten = self.unwritten(&queues, |event| event.user == user).await?;
        let written = sql::of_user(&self.mysql, user, before, limit.get() + 1).await?;
        let all = running.chain(unwritten).chain(written);
        let (items, next) = merge(all, limit, before);
        Ok((now, items, next))
    }

    /// The reservations of a concert that have come to something; holds that run are in the seat map.
    pub(super) async fn of_concert(
        &self,
        concert: &ConcertId,
        limit: PageLimit,
        before: PageCursor,
    ) -> Result<ReservationPage, Error> {
        let queue = self.catalogue.concert(concert).ok_or(Error::NotFound)?.queue.clone();
        let unwritten = self.unwritten(&[queue], |event| event.concert == *concert).await?;
        let written = sql::of_concert(&self.mysql, concert, before, limit.get() + 1).await?;
        let (items, next) = merge(unwritten.into_iter().chain(written), limit, before);
        Ok((0, items, next))
    }

    async fn unwritten(
        &self,
        queues: &[QueueId],
        wanted: impl Fn(&event::ReservationEvent) -> bool,
    ) -> Result<Vec<DatedReservation>, Error> {
        let mut partitions: Vec<Partition> =
            queues.iter().map(|queue| self.redis.keys().partition(queue.slot())).collect();
        partitions.sort_unstable();
        partitions.dedup();
        let tails =
            pending_events::load_all(&self.redis, &self.mysql, &self.nudge, &partitions).await?;
        let found = tails.into_iter().filter_map(|(_, event)| match event {
            OutboxEvent::Reservation(event) if wanted(&event) => dated(event),
            _ => None,
        });
        Ok(found.collect())
    }
}

fn dated(event: event::ReservationEvent) -> Option<DatedReservation> {
    let status = match event.status {
        ReservationEventStatus::Confirmed => ReservationStatus::Confirmed,
        ReservationEventStatus::Released => ReservationStatus::Released,
        ReservationEventStatus::Expired => ReservationStatus::Expired,
        ReservationEventStatus::Cancelled => ReservationStatus::Cancelled,
    };
    let reservation = Reservation {
        id: event.id,
        user: event.user,
        queue: event.queue,
        concert: event.concert,
        schedule: event.schedule,
        seats: serde_json::from_str(&event.detail).ok()?,
        amount: event.amount,
        status,
        held_until: event.held_until.timestamp_millis(),
        created_at: event.created_at.timestamp_millis(),
    };
    Some((event.at.timestamp_millis(), reservation))
}

fn place(reservation: &Reservation) -> PageCursor {
    PageCursor { at: reservation.created_at, id: reservation.id.uuid() }
}

/// Each reservation once, as the latest has it, newest first.
fn merge(
    all: impl Iterator<Item = DatedReservation>,
    limit: PageLimit,
    before: PageCursor,
) -> (Vec<Reservation>, Option<PageCursor>) {
    let mut latest = HashMap::new();
    for (at, reservation) in all.filter(|(_, reservation)| place(reservation) < before) {
        let known = latest.entry(reservation.id).or_insert_with(|| (at, reservation.clone()));
        if known.0 < at {
            *known = (at, reservation);
        }
    }
    let mut items: Vec<Reservation> =
        latest.into_values().map(|(_, reservation)| reservation).collect();
    items.sort_unstable_by_key(|reservation| std::cmp::Reverse(place(reservation)));
    page::cut(items, limit, place)
}
