//! Caches one snapshot for each queue in use, and sends it to the event streams.
//!
//! Polls refresh a snapshot when it is older than [`SNAPSHOT_REFRESH_AGE`], with one call to Redis
//! at a time. Streams share one ticker per queue, which runs only while there are streams.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::rank_markers::marker_scores;
use super::snapshot::{MAX_SNAPSHOT_AGE, SNAPSHOT_REFRESH_AGE, Snapshot};
use super::vacated_scores::VacatedScores;
use super::{Error, QueueService, store};
use crate::ids::QueueId;

const STREAM_TICK_INTERVAL: Duration = Duration::from_millis(500);
/// When the markers are older than this, the snapshot is read twice, the second time with markers
/// computed from the first reply.
const MAX_MARKER_AGE: Duration = Duration::from_millis(500);
/// The maximum number of calls for one snapshot.
const MAX_VACATED_PAGES: u32 = 200;
/// `lua/queue/snapshot.lua` returns at most this many vacated scores in one call.
const VACATED_PAGE_SIZE: usize = 1_000;

#[derive(Default)]
pub(super) struct SnapshotCache(Mutex<HashMap<QueueId, Arc<CachedSnapshot>>>);

impl SnapshotCache {
    pub(super) fn of(&self, queue: &QueueId) -> Arc<CachedSnapshot> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = all.get(queue) {
            return cached.clone();
        }
        all.entry(queue.clone()).or_default().clone()
    }

    /// Drops all snapshots, also those that are being read, so that the next one has the changed
    /// settings, and what is known of queues that do not exist any more.
    pub(super) fn refresh_all(&self, exists: impl Fn(&QueueId) -> bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|queue, _| exists(queue));
        for cached in all.values() {
            let mut clears = cached.clears.lock().unwrap_or_else(PoisonError::into_inner);
            *clears += 1;
            cached.latest.store(None);
        }
    }
}

/// The snapshot of one queue.
#[derive(Default)]
pub(super) struct CachedSnapshot {
    latest: ArcSwapOption<Snapshot>,
    /// How often the snapshot was dropped.
    clears: Mutex<u64>,
    /// From which the next markers are computed. Held during a refresh, so that there is one at a
    /// time.
    marker_bounds: tokio::sync::Mutex<Option<MarkerBounds>>,
    /// Whether a refresh runs in the background.
    refreshing: AtomicBool,
    vacated: Mutex<VacatedScores>,
    ticks: Mutex<Option<watch::Sender<Arc<Snapshot>>>>,
}

/// The front and the newest score of the previous snapshot, and when it was taken by Redis' clock.
#[derive(Clone, Copy)]
struct MarkerBounds {
    front: u64,
    newest: u64,
    at: i64,
}

impl CachedSnapshot {
    /// Whether the place was or may have been given up, and whether that is certain.
    pub(super) fn is_vacated(&self, score: u64) -> (bool, bool) {
        let vacated = self.vacated.lock().unwrap_or_else(PoisonError::into_inner);
        let is_certain = vacated.scores.contains(&score);
        (is_certain || score <= vacated.forgotten_to, is_certain)
    }

    /// The stream id up to which given-up places are known.
    pub(super) fn vacated_cursor(&self) -> Option<String> {
        self.vacated.lock().unwrap_or_else(PoisonError::into_inner).cursor.clone()
    }

    /// Notes that a user joined a draw again, as Redis said after `cursor` was read. If further
    /// places were read since then, the user may have left again.
    pub(super) fn mark_taken(&self, score: u64, cursor: &Option<String>) {
        let mut vacated = self.vacated.lock().unwrap_or_else(PoisonError::into_inner);
        if vacated.cursor == *cursor {
            vacated.scores.remove(&score);
        }
    }

    /// Notes immediately a place that was given up here. Other instances read it with their next
    /// snapshot.
    pub(super) fn mark_vacated(&self, score: u64) {
        self.vacated.lock().unwrap_or_else(PoisonError::into_inner).scores.insert(score);
    }
}

impl QueueService {
    /// A snapshot that is at most [`MAX_SNAPSHOT_AGE`] old.
    pub(super) async fn snapshot(self: &Arc<Self>, id: &QueueId) -> Result<Arc<Snapshot>, Error> {
        let cached = self.snapshots.of(id);
        if let Some(latest) = cached.latest.load_full() {
            let age = latest.age();
            if age < MAX_SNAPSHOT_AGE {
                // The request does not wait for the refresh.
                if age >= SNAPSHOT_REFRESH_AGE && !cached.refreshing.swap(true, Ordering::AcqRel) {
                    let (queue, id, cached) = (self.clone(), id.clone(), cached.clone());
                    tokio::spawn(async move {
                        if let Err(error) = queue.refresh(&id, &cached).await {
                            tracing::warn!(queue = %id, %error, "refreshing the snapshot failed");
                        }
                        cached.refreshing.store(false, Ordering::Release);
                    });
                }
                return Ok(latest);
            }
        }
        Box::pin(self.refresh(id, &cached)).await
    }

    async fn refresh(&self, id: &QueueId, cached: &CachedSnapshot) -> Result<Arc<Snapshot>, Error> {
        self.refresh_unless(id, cached, |latest| latest.age() < SNAPSHOT_REFRESH_AGE).await
    }

    /// A snapshot taken after `score` was given to a user.
    pub(super) async fn snapshot_including(
        self: &Arc<Self>,
        id: &QueueId,
        score: u64,
    ) -> Result<Arc<Snapshot>, Error> {
        let snapshot = self.snapshot(id).await?;
        if !snapshot.predates(score) {
            return Ok(snapshot);
        }
        let cached = self.snapshots.of(id);
        Box::pin(self.refresh_unless(id, &cached, |latest| !latest.predates(score))).await
    }

    async fn refresh_unless(
        &self,
        id: &QueueId,
        cached: &CachedSnapshot,
        is_good_enough: impl Fn(&Snapshot) -> bool,
    ) -> Result<Arc<Snapshot>, Error> {
        let mut marker_bounds = cached.marker_bounds.lock().await;
        // Another request may have refreshed it while this one waited for the lock.
        let latest = cached.latest.load_full();
        if let Some(latest) = latest.as_ref().filter(|latest| is_good_enough(latest)) {
            return Ok(latest.clone());
        }
        let clears = *cached.clears.lock().unwrap_or_else(PoisonError::into_inner);
        let markers_are_old = latest.is_none_or(|latest| latest.age() > MAX_MARKER_AGE);
        if markers_are_old {
            self.read_snapshot(id, cached, &mut marker_bounds).await?;
        }
        let snapshot = Arc::new(self.read_snapshot(id, cached, &mut marker_bounds).await?);
        let clears_now = cached.clears.lock().unwrap_or_else(PoisonError::into_inner);
        // If the settings changed during the read, later requests read them.
        if *clears_now == clears {
            cached.latest.store(Some(snapshot.clone()));
        }
        Ok(snapshot)
    }

    /// Reads a snapshot from Redis, in as many calls as there are pages of vacated scores.
    async fn read_snapshot(
        &self,
        id: &QueueId,
        cached: &CachedSnapshot,
        marker_bounds: &mut Option<MarkerBounds>,
    ) -> Result<Snapshot, Error> {
        let scores = marker_bounds
            .map_or_else(Vec::new, |MarkerBounds { front, newest, .. }| {
                marker_scores(front, newest)
            });
        let markers_at = marker_bounds.map_or(0, |bounds| bounds.at);
        let mut cursor =
            cached.vacated.lock().unwrap_or_else(PoisonError::into_inner).cursor.clone();
        for _ in 0..MAX_VACATED_PAGES {
            let from = cursor.as_deref().unwrap_or("0-0");
            let mut reading =
                self.with_settings(id, || store::snapshot(self.redis(), id, from, &scores)).await?;
            reading.snapshot.markers_at = markers_at;
            let more = reading.vacated.len() >= VACATED_PAGE_SIZE;
            let mut vacated = cached.vacated.lock().unwrap_or_else(PoisonError::into_inner);
            let Snapshot { front, state, .. } = &reading.snapshot;
            vacated.add(reading.vacated, *front, state.before_opening);
            vacated.cursor = Some(reading.cursor.clone());
            cursor = Some(reading.cursor);
            if !more {
                // In an empty queue, the next arrival will be the front.
                let front = reading.snapshot.front.unwrap_or(reading.snapshot.newest + 1);
                let Snapshot { newest, state, .. } = &reading.snapshot;
                *marker_bounds = Some(MarkerBounds { front, newest: *newest, at: state.now });
                return Ok(reading.snapshot);
            }
        }
        Err(crate::redis::Error::Overloaded.into())
    }

    /// Subscribes to the snapshots of a queue. The first subscriber starts the ticker, which ends
    /// after the last one has gone.
    pub(super) fn ticks(
        self: &Arc<Self>,
        id: &QueueId,
        first: Arc<Snapshot>,
    ) -> watch::Receiver<Arc<Snapshot>> {
        let cached = self.snapshots.of(id);
        let mut ticks = cached.ticks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*ticks {
            return sender.subscribe();
        }
        let (sender, receiver) = watch::channel(first);
        *ticks = Some(sender);
        tokio::spawn(send_ticks(self.clone(), id.clone(), cached.clone()));
        receiver
    }
}

async fn send_ticks(queue: Arc<QueueService>, id: QueueId, cached: Arc<CachedSnapshot>) {
    let mut interval = tokio::time::interval(STREAM_TICK_INTERVAL);
    loop {
        interval.tick().await;
        let snapshot = queue.refresh(&id, &cached).await;
        let mut sender = cached.ticks.lock().unwrap_or_else(PoisonError::into_inner);
        let is_needed = |sender: &&watch::Sender<_>| {
            // The streams of a deleted queue end.
            sender.receiver_count() > 0 && queue.settings(&id).is_some()
        };
        let Some(subscribed) = sender.as_ref().filter(is_needed) else {
            *sender = None;
            return;
        };
        match snapshot {
            Ok(snapshot) => drop(subscribed.send_replace(snapshot)),
            Err(error) => {
                tracing::warn!(queue = %id, %error, "refreshing the snapshot failed");
                // Wake the streams without a new snapshot, so that they can send heartbeats.
                subscribed.send_modify(|_| {});
            }
        }
    }
}
