//! The source of the streams of one schedule: reads the seats once a second, whatever the number of
//! streams, and encodes what has changed once for all of them.
//!
//! Each instance reads for its own streams, so instances need not know of each other. A source runs
//! only while there are streams. Redis frees a lapsed hold without a write, so there is no list of
//! changes to follow: the source compares what it reads with what it read before.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::map_routes::{SeatStatusesDto, layout_tag};
use super::seat_statuses::SeatStatus;
use super::{Error, SeatService, SeatStatuses};
use crate::catalogue::ScheduledConcert;
use crate::http::entity_tag::EntityTag;
use crate::http::shared_event::SharedEvent;
use crate::ids::{QueueId, ScheduleId};
use crate::telemetry::Metric;

const SEAT_READ_INTERVAL: Duration = Duration::from_secs(1);
/// A client that is further behind gets the whole state.
const MAX_KEPT_EVENTS: usize = 10;
/// With more changes at once, the whole state is shorter.
const MAX_CHANGES_PER_EVENT: usize = 2_000;

/// The data of an event `seats`.
#[derive(Debug, Serialize)]
struct SeatChangesDto {
    items: Vec<SeatChangeDto>,
}

#[derive(Debug, Serialize)]
struct SeatChangeDto {
    number: u32,
    status: SeatStatus,
}

/// The seats of a schedule at one time, with what a stream sends about them.
#[derive(Debug)]
pub(super) struct SeatMapFrame {
    schedule: ScheduleId,
    /// Grows by one with each change.
    version: u64,
    statuses: Arc<SeatStatuses>,
    layout: EntityTag,
    /// The last changes, oldest first. The last one led to this version.
    changes: VecDeque<Arc<SharedEvent>>,
    whole: OnceLock<Arc<SharedEvent>>,
}

impl SeatMapFrame {
    pub(super) fn new(
        schedule: ScheduleId,
        statuses: Arc<SeatStatuses>,
        layout: EntityTag,
    ) -> Self {
        let (changes, whole) = (VecDeque::new(), OnceLock::new());
        Self { schedule, version: 1, statuses, layout, changes, whole }
    }

    /// The frame after this one and the number of changed seats, or `None` if nothing has changed.
    fn followed_by(&self, statuses: Arc<SeatStatuses>, layout: EntityTag) -> Option<(Self, usize)> {
        let items = statuses.changes_since(&self.statuses);
        let is_same_layout = self.layout == layout && self.statuses.len() == statuses.len();
        if items.is_empty() && is_same_layout {
            return None;
        }
        let count = items.len();
        let mut next = Self::new(self.schedule.clone(), statuses, layout);
        next.version = self.version + 1;
        if is_same_layout && count <= MAX_CHANGES_PER_EVENT {
            let kept = self.changes.len().saturating_sub(MAX_KEPT_EVENTS - 1);
            next.changes.extend(self.changes.iter().skip(kept).cloned());
            let items = items
                .into_iter()
                .map(|(number, status)| SeatChangeDto { number, status })
                .collect();
            let event = SharedEvent::new("seats", &SeatChangesDto { items });
            next.changes.push_back(Arc::new(event));
        }
        Some((next, count))
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The events for a client that knows an earlier version, or nothing yet. The flag is whether
    /// they contain the whole state.
    pub(super) fn events_since(&self, known: Option<u64>) -> (Vec<Arc<SharedEvent>>, bool) {
        let behind = known.map(|known| self.version.saturating_sub(known));
        match behind.and_then(|behind| usize::try_from(behind).ok()) {
            Some(behind) if behind <= self.changes.len() => {
                let first = self.changes.len() - behind;
                (self.changes.iter().skip(first).cloned().collect(), false)
            }
            _ => (vec![self.whole()], true),
        }
    }

    fn whole(&self) -> Arc<SharedEvent> {
        let encode = || {
            let letters = self.statuses.as_letters().to_owned();
            let data = SeatStatusesDto::new(self.schedule.clone(), self.layout, letters);
            Arc::new(SharedEvent::new("status", &data))
        };
        self.whole.get_or_init(encode).clone()
    }
}

type FrameSenders = HashMap<ScheduleId, watch::Sender<Arc<SeatMapFrame>>>;

/// The sources that run on this instance.
pub(super) struct SeatStreamSources {
    senders: Mutex<FrameSenders>,
    running: Gauge,
    changes: Counter,
}

impl Default for SeatStreamSources {
    fn default() -> Self {
        Metric::SeatStreamResendsTotal.counter(&[]).increment(0);
        let (running, changes) =
            (Metric::SeatStreamSources.gauge(&[]), Metric::SeatStreamChangesTotal.counter(&[]));
        running.set(0.0);
        changes.increment(0);
        Self { senders: Mutex::default(), running, changes }
    }
}

impl SeatStreamSources {
    fn senders(&self) -> MutexGuard<'_, FrameSenders> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SeatService {
    /// Subscribes to the seats of a schedule. The first subscriber starts the source, which ends
    /// after the last one has gone.
    pub(super) async fn subscribe(
        self: &Arc<Self>,
        scheduled: &ScheduledConcert,
    ) -> Result<watch::Receiver<Arc<SeatMapFrame>>, Error> {
        let id = &scheduled.schedule().id;
        if let Some(sender) = self.streams.senders().get(id) {
            return Ok(sender.subscribe());
        }
        let statuses = self.seat_statuses(scheduled).await?;
        let mut senders = self.streams.senders();
        if let Some(sender) = senders.get(id) {
            return Ok(sender.subscribe());
        }
        let first = SeatMapFrame::new(id.clone(), statuses, layout_tag(scheduled));
        let (sender, receiver) = watch::channel(Arc::new(first));
        senders.insert(id.clone(), sender);
        self.streams.running.increment(1.0);
        tokio::spawn(run_source(self.clone(), scheduled.concert.queue.clone(), id.clone()));
        Ok(receiver)
    }

    /// A schedule that can still be sold through this queue.
    fn streamed_schedule(&self, queue: &QueueId, id: &ScheduleId) -> Option<ScheduledConcert> {
        let scheduled = self.catalogue.schedule(id)?;
        (scheduled.concert.queue == *queue && !scheduled.concert.archived).then_some(scheduled)
    }

    async fn read_changes(
        &self,
        scheduled: &ScheduledConcert,
        latest: &SeatMapFrame,
    ) -> Result<Option<SeatMapFrame>, Error> {
        let statuses = self.seat_statuses(scheduled).await?;
        let next = latest.followed_by(statuses, layout_tag(scheduled));
        Ok(next.map(|(frame, count)| {
            self.streams.changes.increment(count as u64);
            frame
        }))
    }
}

async fn run_source(seats: Arc<SeatService>, queue: QueueId, id: ScheduleId) {
    let mut ticks = tokio::time::interval(SEAT_READ_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is immediate, and the first frame was just read.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let (latest, scheduled) = {
            let mut senders = seats.streams.senders();
            let sender = senders.get(&id).filter(|sender| sender.receiver_count() > 0);
            // Its streams end with the schedule.
            let scheduled = seats.streamed_schedule(&queue, &id);
            let Some((sender, scheduled)) = sender.zip(scheduled) else {
                senders.remove(&id);
                seats.streams.running.decrement(1.0);
                return;
            };
            let latest = sender.borrow().clone();
            (latest, scheduled)
        };
        match seats.read_changes(&scheduled, &latest).await {
            Ok(Some(frame)) => {
                if let Some(sender) = seats.streams.senders().get(&id) {
                    sender.send_replace(Arc::new(frame));
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(schedule = %id, %error, "reading the seats for streams failed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(letters: &str) -> SeatMapFrame {
        let statuses = SeatStatuses::parse(letters.into()).unwrap();
        SeatMapFrame::new("s".parse().unwrap(), Arc::new(statuses), EntityTag::of(b"1"))
    }

    fn next(frame: &SeatMapFrame, letters: &str) -> Option<SeatMapFrame> {
        let statuses = Arc::new(SeatStatuses::parse(letters.into()).unwrap());
        frame.followed_by(statuses, frame.layout).map(|(frame, _)| frame)
    }

    #[test]
    fn client_gets_what_it_has_missed() {
        let first = frame("aaaa");
        assert!(next(&first, "aaaa").is_none());
        let second = next(&first, "ahaa").unwrap();
        let third = next(&second, "ssaa").unwrap();
        let of = |frame: &SeatMapFrame, known| {
            let (events, is_whole) = frame.events_since(known);
            (events.len(), is_whole)
        };
        assert_eq!(of(&third, Some(3)), (0, false));
        assert_eq!(of(&third, Some(2)), (1, false));
        assert_eq!(of(&third, Some(1)), (2, false));
        assert_eq!(of(&third, None), (1, true));
        let (missed, _) = third.events_since(Some(1));
        assert!(Arc::ptr_eq(&missed[0], &second.changes[0]), "an event is encoded once");
    }

    #[test]
    fn client_far_behind_gets_the_whole_state() {
        let mut latest = frame("a");
        for nth in 0..MAX_KEPT_EVENTS + 5 {
            latest = next(&latest, if nth % 2 == 0 { "h" } else { "a" }).unwrap();
            assert!(latest.changes.len() <= MAX_KEPT_EVENTS);
        }
        let kept = MAX_KEPT_EVENTS as u64;
        assert!(!latest.events_since(Some(latest.version - kept)).1);
        assert!(latest.events_since(Some(latest.version - kept - 1)).1);
    }

    #[test]
    fn other_layout_and_many_changes_are_sent_as_the_whole_state() {
        let count = MAX_CHANGES_PER_EVENT + 1;
        let first = frame(&"a".repeat(count));
        let all_held = next(&first, &"h".repeat(count)).unwrap();
        assert!(all_held.events_since(Some(first.version)).1);
        let second = next(&first, &"s".repeat(count + 1)).unwrap();
        assert!(second.events_since(Some(first.version)).1, "another number of seats");
        let other = EntityTag::of(b"2");
        let (third, changes) = first.followed_by(first.statuses.clone(), other).unwrap();
        assert_eq!((third.events_since(Some(first.version)).1, changes), (true, 0));
    }
}
