//! Lists of reservations, newest first.
//!
//! Open reservations are in Redis, ended and confirmed ones in MySQL, and the events between them
//! in the outbox. The lists read them in the order in which a reservation moves: Redis, outbox
//! ([`pending_events`]), MySQL. So no reservation is missed. When several places have the same
//! reservation, its latest status counts.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt};

use super::admin_routes::AdminReservationDto;
use super::dto::ReservationDto;
use super::reservation::{DatedReservation, Reservation, ReservationStatus};
use super::{Error, SeatService, open_store, sql};
use crate::http::page::{self, PageCursor, PageLimit};
use crate::ids::{ConcertId, QueueId, UserId, UserName};
use crate::outbox::event::{self, OutboxEvent, ReservationEventStatus};
use crate::outbox::pending_events;

const MAX_CONCURRENT_QUEUES: usize = 32;

/// Redis' clock, the reservations of a page, and the cursor of the next page.
pub(super) type ReservationPage = (i64, Vec<Reservation>, Option<PageCursor>);

impl SeatService {
    pub(super) async fn list_own(
        &self,
        user: UserId,
        limit: PageLimit,
        before: PageCursor,
    ) -> Result<ReservationPage, Error> {
        let (now, open) = self.list_open(user).await?;
        let open = open.into_iter().map(|reservation| (0, reservation));
        let all_queues = self.queue.ids();
        let mentioned = user.as_bytes();
        let pending = self.pending(&all_queues, mentioned, |event| event.user == user).await?;
        let written = sql::of_user(&self.mysql, user, before, limit.get() + 1).await?;
        let all = open.chain(pending).chain(written);
        let (items, next) = merge(all, |_| true, limit, before);
        Ok((now, items, next))
    }

    /// The newest reservations of a user.
    pub async fn recent_reservations(
        &self,
        user: UserId,
        limit: PageLimit,
    ) -> Result<Vec<ReservationDto>, Error> {
        let (now, items, _) = self.list_own(user, limit, PageCursor::START).await?;
        Ok(items.into_iter().map(|reservation| self.dto(reservation, now)).collect())
    }

    /// A reservation as it was after an event.
    pub fn dto_of_event(
        &self,
        event: event::ReservationEvent,
        user_id: UserName,
    ) -> Option<AdminReservationDto> {
        let (at, reservation) = dated(event)?;
        Some(AdminReservationDto { reservation: self.dto(reservation, at), user_id })
    }

    /// Redis' clock, and the reservations of a user that are held or being paid.
    pub async fn list_open(&self, user: UserId) -> Result<(i64, Vec<Reservation>), Error> {
        let busy = self.queue.busy_now().await?;
        let calls = busy.into_iter().map(|queue| self.open.submit(queue, user));
        let open: Vec<(i64, Vec<Reservation>)> = futures::stream::iter(calls)
            .buffer_unordered(MAX_CONCURRENT_QUEUES)
            .try_collect()
            .await?;
        let now = open.iter().map(|(now, _)| *now).max().unwrap_or(0);
        Ok((now, open.into_iter().flat_map(|(_, open)| open).collect()))
    }

    /// The reservations of a concert, or those with this status.
    pub(super) async fn list_by_concert(
        &self,
        concert: &ConcertId,
        status: Option<ReservationStatus>,
        limit: PageLimit,
        before: PageCursor,
    ) -> Result<ReservationPage, Error> {
        let queue = self.catalogue.find_concert(concert).await?.queue.clone();
        let (now, open) = self.open_of_concert(&queue, concert).await?;
        let mentioned = concert.as_str().as_bytes();
        let pending = self.pending(&[queue], mentioned, |event| event.concert == *concert).await?;
        // Each pending event may give another status to one of the rows.
        let rows = limit.get() + 1 + pending.len();
        let written = sql::of_concert(&self.mysql, concert, status, before, rows).await?;
        let all = open.into_iter().map(|it| (0, it)).chain(pending).chain(written);
        let is_wanted = |it: &Reservation| status.is_none_or(|status| it.status_at(now) == status);
        let (items, next) = merge(all, is_wanted, limit, before);
        Ok((now, items, next))
    }

    /// Redis' clock, and the reservations of a concert that are held or being paid.
    async fn open_of_concert(
        &self,
        queue: &QueueId,
        concert: &ConcertId,
    ) -> Result<(i64, Vec<Reservation>), Error> {
        let (mut cursor, mut open) = ("0".to_owned(), Vec::new());
        loop {
            let page = open_store::scan_open(&self.redis, queue, concert, &cursor).await?;
            open.extend(page.reservations);
            cursor = page.cursor;
            if cursor == "0" {
                return Ok((page.now, open));
            }
        }
    }

    /// The reservations whose events are still in the outbox, in entries that contain `mentioned`.
    async fn pending(
        &self,
        queues: &[QueueId],
        mentioned: &[u8],
        wanted: impl Fn(&event::ReservationEvent) -> bool,
    ) -> Result<Vec<DatedReservation>, Error> {
        let partitions = queues.iter().map(|queue| self.redis.keys().partition(queue.slot()));
        let (redis, mysql, writer) = (&self.redis, &self.mysql, &self.writer);
        let events = pending_events::load_all(redis, mysql, writer, partitions, mentioned).await?;
        let found = events.into_iter().filter_map(|(_, event)| match event {
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
        title: event.title,
        starts_at: event.starts_at.map(|time| time.timestamp_millis()),
        payment: event.payment,
        paid: event.paid,
        discount: event.discount,
        cancellations: event.cancellations.unwrap_or_default(),
    };
    Some((event.at.timestamp_millis(), reservation))
}

fn cursor(reservation: &Reservation) -> PageCursor {
    PageCursor { at: reservation.created_at, id: reservation.id.uuid() }
}

/// Each wanted reservation once with its latest status, newest first.
fn merge(
    all: impl Iterator<Item = DatedReservation>,
    is_wanted: impl Fn(&Reservation) -> bool,
    limit: PageLimit,
    before: PageCursor,
) -> (Vec<Reservation>, Option<PageCursor>) {
    let mut latest = HashMap::new();
    for (at, reservation) in all.filter(|(_, reservation)| cursor(reservation) < before) {
        let known = latest.entry(reservation.id).or_insert_with(|| (at, reservation.clone()));
        if known.0 < at {
            *known = (at, reservation);
        }
    }
    let latest = latest.into_values().map(|(_, reservation)| reservation);
    let mut items: Vec<Reservation> = latest.filter(|it| is_wanted(it)).collect();
    items.sort_unstable_by_key(|reservation| std::cmp::Reverse(cursor(reservation)));
    page::cut(items, limit, cursor)
}
