//! Keeps a snapshot of every queue that somebody asks about, and wakes those who listen to it.
//!
//! Polls renew a snapshot when it is older than [`FRESH`], one call at a time however many ask. Streams share one ticker a queue, which runs
//! exactly while there are streams.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::snapshot::{FRESH, STALE, Snapshot, VacatedScores, marks};
use super::{Error, QueueService, store};
use crate::ids::QueueId;

/// How often streams look for changes.
const TICK: Duration = Duration::from_millis(500);
/// A look whose marks are older than this is made twice, the second time with marks of now.
const OLD_MARKS: Duration = Duration::from_millis(500);
/// Looks in a row at places given up; each tells up to a thousand.
const LOOKS: u32 = 200;

/// The snapshots of all queues.
#[derive(Default)]
pub(super) struct SnapshotCache(Mutex<HashMap<QueueId, Arc<CachedSnapshot>>>);

impl SnapshotCache {
    pub(super) fn of(&self, queue: &QueueId) -> Arc<CachedSnapshot> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = all.get(queue) {
            return watch.clone();
        }
        all.entry(queue.clone()).or_default().clone()
    }

    /// Lets go of every snapshot, so that the next look sees what was changed.
    pub(super) fn forget(&self) {
        for watch in self.0.lock().unwrap_or_else(PoisonError::into_inner).values() {
            watch.latest.store(None);
        }
    }
}

/// The snapshot of one queue.
#[derive(Default)]
pub(super) struct CachedSnapshot {
    latest: ArcSwapOption<Snapshot>,
    /// Held during a look, so that there is one at a time.
    /// It guards the front and the newest score of the look before, from which the next look's marks are made.
    looking: tokio::sync::Mutex<Option<(u64, u64)>>,
    renewing: AtomicBool,
    given_up: Mutex<VacatedScores>,
    ticks: Mutex<Option<watch::Sender<Arc<Snapshot>>>>,
}

impl CachedSnapshot {
    /// Whether a place was given up, as far as is known here.
    pub(super) fn is_given_up(&self, score: u64) -> bool {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).scores.contains(&score)
    }

    /// Notes at once what this instance did itself; other instances learn it with their next look.
    pub(super) fn give_up(&self, score: u64) {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).scores.insert(score);
    }
}

impl QueueService {
    /// A snapshot that is at most 250 ms old.
    pub(super) async fn snapshot(self: &Arc<Self>, id: &QueueId) -> Result<Arc<Snapshot>, Error> {
        let watch = self.watches.of(id);
        if let Some(latest) = watch.latest.load_full() {
            let age = latest.age();
            if age < STALE {
                if age >= FRESH && !watch.renewing.swap(true, Ordering::AcqRel) {
                    let (queue, id, watch) = (self.clone(), id.clone(), watch.clone());
                    tokio::spawn(async move {
                        if let Err(error) = queue.look(&id, &watch).await {
                            tracing::warn!(queue = %id, %error, "looking at the line");
                        }
                        watch.renewing.store(false, Ordering::Release);
                    });
                }
                return Ok(latest);
            }
        }
        Box::pin(self.look(id, &watch)).await
    }

    /// Looks at the line, unless somebody else just did.
    async fn look(&self, id: &QueueId, watch: &CachedSnapshot) -> Result<Arc<Snapshot>, Error> {
        self.look_unless(id, watch, |latest| latest.age() < FRESH).await
    }

    /// A snapshot for the holder of a place, who may have got it a moment ago.
    pub(super) async fn snapshot_knowing(
        self: &Arc<Self>,
        id: &QueueId,
        score: u64,
    ) -> Result<Arc<Snapshot>, Error> {
        let snapshot = self.snapshot(id).await?;
        if !snapshot.is_older_than(score) {
            return Ok(snapshot);
        }
        let watch = self.watches.of(id);
        Box::pin(self.look_unless(id, &watch, |latest| !latest.is_older_than(score))).await
    }

    async fn look_unless(
        &self,
        id: &QueueId,
        watch: &CachedSnapshot,
        will_do: impl Fn(&Snapshot) -> bool,
    ) -> Result<Arc<Snapshot>, Error> {
        let mut marked = watch.looking.lock().await;
        let latest = watch.latest.load_full();
        if let Some(latest) = latest.as_ref().filter(|latest| will_do(latest)) {
            return Ok(latest.clone());
        }
        let marks_are_old = latest.is_none_or(|latest| latest.age() > OLD_MARKS);
        if marks_are_old {
            self.look_once(id, watch, &mut marked).await?;
        }
        let snapshot = Arc::new(self.look_once(id, watch, &mut marked).await?);
        watch.latest.store(Some(snapshot.clone()));
        Ok(snapshot)
    }

    async fn look_once(
        &self,
        id: &QueueId,
        watch: &CachedSnapshot,
        marked: &mut Option<(u64, u64)>,
    ) -> Result<Snapshot, Error> {
        let scores = marked.map_or_else(Vec::new, |(front, newest)| marks(front, newest));
        let mut cursor =
            watch.given_up.lock().unwrap_or_else(PoisonError::into_inner).cursor.clone();
        for _ in 0..LOOKS {
            let from = cursor.as_deref().unwrap_or("0-0");
            let look =
                self.with_settings(id, || store::snapshot(self.redis(), id, from, &scores)).await?;
            let more = look.given_up.len() >= 1_000;
            let mut given_up = watch.given_up.lock().unwrap_or_else(PoisonError::into_inner);
            given_up.add(look.given_up, look.snapshot.front);
            given_up.cursor = Some(look.cursor.clone());
            cursor = Some(look.cursor);
            if !more {
                // In an empty line the front is where the next arrival will stand.
                let front = look.snapshot.front.unwrap_or(look.snapshot.newest + 1);
                *marked = Some((front, look.snapshot.newest));
                return Ok(look.snapshot);
            }
        }
        Err(crate::redis::Error::Overloaded.into())
    }

    /// Listens to a queue's snapshots, one each half second. The first listener starts the ticker, which ends after the last.
    pub(super) fn ticks(
        self: &Arc<Self>,
        id: &QueueId,
        first: Arc<Snapshot>,
    ) -> watch::Receiver<Arc<Snapshot>> {
        let watch = self.watches.of(id);
        let mut ticks = watch.ticks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*ticks {
            return sender.subscribe();
        }
        let (sender, receiver) = watch::channel(first);
        *ticks = Some(sender);
        tokio::spawn(tick(self.clone(), id.clone(), watch.clone()));
        receiver
    }
}

async fn tick(queue: Arc<QueueService>, id: QueueId, watch: Arc<CachedSnapshot>) {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        let snapshot = queue.look(&id, &watch).await;
        let mut sender = watch.ticks.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(listened) = sender.as_ref().filter(|sender| sender.receiver_count() > 0) else {
            *sender = None;
            return;
        };
        match snapshot {
            Ok(snapshot) => drop(listened.send_replace(snapshot)),
            Err(error) => {
                tracing::warn!(queue = %id, %error, "looking at the line");
                // Nothing is new, but heartbeats are due.
                listened.send_modify(|_| {});
            }
        }
    }
}
