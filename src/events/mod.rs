//! Events for other systems: what MySQL has, in order, readable from any point of the last days.
//!
//! The outbox writer inserts the entries that have any into `events`, in the transaction that
//! applies them. A reader keeps a cursor with one position for each partition. Positions are given
//! in the order of the commits, so nothing is skipped; see `src/outbox/event_log.rs`. The events of
//! one reservation, and those of one user's wallet, coupons and rewards, are in one partition and
//! so in order.
//!
//! - [`cursor`]: the cursor of a reader.
//! - `sql`, `stored_event`: rows and their events.
//! - `render`: what readers see of an event.
//! - `routes`: `GET /admin/events`.
//! - `retention`: deletes old events.

pub mod cursor;
mod render;
mod retention;
mod routes;
mod sql;
mod stored_event;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::MySqlPool;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::outbox::event_type::EventType;
use crate::partition::PartitionCount;
use crate::payment::PaymentService;
use crate::seats::SeatService;
use crate::store_error::{StoreError, from_store_errors};
use crate::users::UserDirectory;
use cursor::EventCursor;
use sql::LogExtent;
use stored_event::StoredEvent;

pub use render::EventDto;
pub use routes::{MAX_WAIT, router};
pub use stored_event::EventSubject;

/// Rows that one read looks at, so that a filter for rare types does not read without end.
const MAX_ROWS_PER_READ: usize = 4096;
/// How often a waiting reader looks for new events.
const WAIT_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the cursor belongs to another installation")]
    OtherInstallation,
    /// Events after the cursor are deleted, or the number of partitions has changed since.
    #[error("the cursor has expired")]
    Expired,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Seats(#[from] crate::seats::Error),
}

from_store_errors!(Error);

/// Reads events. One value per process.
pub struct EventService {
    mysql: MySqlPool,
    partitions: PartitionCount,
    retention_hours: u32,
    seats: Arc<SeatService>,
    payments: Arc<PaymentService>,
    users: Arc<UserDirectory>,
    /// Ends waits when the instance stops.
    drain: CancellationToken,
}

/// Some events and the cursor behind them.
struct EventPage {
    events: Vec<StoredEvent>,
    next: EventCursor,
}

impl EventService {
    pub fn new(
        mysql: MySqlPool,
        (partitions, retention_hours): (PartitionCount, u32),
        (seats, payments, users): (Arc<SeatService>, Arc<PaymentService>, Arc<UserDirectory>),
        drain: CancellationToken,
    ) -> Self {
        Self { mysql, partitions, retention_hours, seats, payments, users, drain }
    }

    /// The cursor before the oldest event.
    async fn oldest(&self) -> Result<EventCursor, Error> {
        self.cursor(|extent| extent.deleted_through).await
    }

    /// The cursor behind the newest event.
    ///
    /// # Errors
    /// From MySQL.
    pub async fn newest(&self) -> Result<EventCursor, Error> {
        self.cursor(|extent| extent.position).await
    }

    /// Whether events can be read from a cursor.
    ///
    /// # Errors
    /// [`Error::OtherInstallation`], [`Error::Expired`].
    pub async fn check_cursor(&self, cursor: &EventCursor) -> Result<(), Error> {
        self.check(cursor).await?;
        let extents = sql::extents(&self.mysql, self.partitions).await?;
        cursor.behind(&extents).map(drop)
    }

    /// At most `limit` events of some types after a cursor with what they are about, and the cursor
    /// behind them. Waits for an event for at most `patience`.
    ///
    /// # Errors
    /// [`Error::OtherInstallation`], [`Error::Expired`], and those of the stores.
    pub async fn window(
        &self,
        after: &EventCursor,
        limit: usize,
        types: &BTreeSet<EventType>,
        patience: Duration,
    ) -> Result<(Vec<(EventSubject, EventDto)>, EventCursor), Error> {
        let page = self.read(Some(after.clone()), limit, Some(types), patience).await?;
        Ok((self.render(page.events).await?, page.next))
    }

    async fn cursor(&self, position: impl Fn(&LogExtent) -> u64) -> Result<EventCursor, Error> {
        let installation = sql::installation(&self.mysql).await?;
        let extents = sql::extents(&self.mysql, self.partitions).await?;
        let positions = extents.iter().map(position).collect();
        Ok(EventCursor { installation, positions, within: None })
    }

    async fn check(&self, cursor: &EventCursor) -> Result<(), Error> {
        if cursor.installation != sql::installation(&self.mysql).await? {
            return Err(Error::OtherInstallation);
        }
        if cursor.positions.len() != usize::from(self.partitions.count()) {
            return Err(Error::Expired);
        }
        Ok(())
    }

    /// At most `limit` events of the wanted types after a cursor. If there is none, waits for one
    /// for at most `patience`.
    async fn read(
        &self,
        after: Option<EventCursor>,
        limit: usize,
        types: Option<&BTreeSet<EventType>>,
        patience: Duration,
    ) -> Result<EventPage, Error> {
        let mut cursor = match after {
            Some(cursor) => {
                self.check(&cursor).await?;
                cursor
            }
            None => self.oldest().await?,
        };
        let until = Instant::now() + patience;
        loop {
            let page = self.read_once(cursor, limit, types).await?;
            let pause = WAIT_INTERVAL.min(until.saturating_duration_since(Instant::now()));
            if !page.events.is_empty() || pause.is_zero() {
                return Ok(page);
            }
            if self.drain.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(page);
            }
            cursor = page.next;
        }
    }

    async fn read_once(
        &self,
        cursor: EventCursor,
        limit: usize,
        types: Option<&BTreeSet<EventType>>,
    ) -> Result<EventPage, Error> {
        let mut page = EventPage { events: Vec::new(), next: cursor };
        let mut rows_read = 0;
        while page.events.len() < limit && rows_read < MAX_ROWS_PER_READ {
            let extents = sql::extents(&self.mysql, self.partitions).await?;
            let behind = page.next.behind(&extents)?;
            if behind.is_empty() {
                break;
            }
            // An even share for each, and never the same partition first.
            let share = (limit - page.events.len()).div_ceil(behind.len());
            let first = match page.next.within {
                Some((partition, _)) => behind.iter().position(|it| *it == partition).unwrap_or(0),
                None => rand::random_range(0..behind.len()),
            };
            let before = rows_read;
            for partition in behind.iter().cycle().skip(first).take(behind.len()) {
                rows_read +=
                    self.read_partition(*partition, share, limit, types, &mut page).await?;
                if page.events.len() >= limit {
                    break;
                }
            }
            if rows_read == before {
                break;
            }
        }
        Ok(page)
    }

    /// Adds the events of the next `share` rows of a partition. Returns the number of rows.
    async fn read_partition(
        &self,
        partition: u16,
        share: usize,
        limit: usize,
        types: Option<&BTreeSet<EventType>>,
        page: &mut EventPage,
    ) -> Result<usize, Error> {
        let index = usize::from(partition);
        let after = page.next.positions[index];
        let rows = sql::rows(&self.mysql, partition, after, share).await?;
        for row in &rows {
            let events = match stored_event::events_of(partition, row) {
                Ok(events) => events,
                Err(error) => {
                    tracing::warn!(partition, n = row.n, %error, "can't read an event");
                    return Ok(0);
                }
            };
            let skipped = match page.next.within {
                Some((within, skipped)) if within == partition => usize::from(skipped),
                _ => 0,
            };
            for (nth, event) in events.into_iter().enumerate().skip(skipped) {
                if page.events.len() >= limit {
                    page.next.positions[index] = row.position - 1;
                    page.next.within = Some((partition, u16::try_from(nth).unwrap_or(u16::MAX)));
                    return Ok(rows.len());
                }
                if types.is_none_or(|types| types.contains(&event.kind)) {
                    page.events.push(event);
                }
            }
            page.next.positions[index] = row.position;
            page.next.within = page.next.within.filter(|(within, _)| *within != partition);
        }
        Ok(rows.len())
    }
}

impl EventCursor {
    /// The partitions with events after the cursor.
    fn behind(&self, extents: &[LogExtent]) -> Result<Vec<u16>, Error> {
        let mut behind = Vec::new();
        for (number, (position, extent)) in (0..).zip(self.positions.iter().zip(extents)) {
            if *position < extent.deleted_through {
                return Err(Error::Expired);
            }
            if *position < extent.position {
                behind.push(number);
            }
        }
        Ok(behind)
    }
}
