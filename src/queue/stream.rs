//! A user's place as server-sent events, fed by the same snapshots as polls.
//!
//! There is one ticker a queue, not one a client: twenty thousand streams cost Redis two looks a second. Only a stream whose score has passed the
//! front asks Redis, and those asks are coalesced.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use tokio::sync::watch;

use super::dto::{TicketDto, ticket};
use super::{AdmissionState, Claims, Error, QueueService, Snapshot, Ticket};

/// A line that says nothing, so that nothing in between takes the connection for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often Redis is asked about a slot that is not about to lapse.
const SLOT_CHECK: Duration = Duration::from_secs(5);
/// Nobody keeps a user's place; proxies that gather answers before they pass them on (nginx) are told not to.
const HEADERS: [(&str, &str); 2] = [("cache-control", "no-store"), ("x-accel-buffering", "no")];
/// What a client that was cut off waits before it comes back, so that a crowd does not come back at once: two to six seconds.
const RETRY_MS: std::ops::Range<u64> = 2_000..6_000;

/// The part of a ticket whose change is worth an event.
type SentTicket = (AdmissionState, Option<u64>, bool);

struct StreamState {
    queue: Arc<QueueService>,
    claims: Claims,
    /// For the first ticket: one that knows the place, which a tick of half a second ago may not.
    first: Option<Arc<Snapshot>>,
    ticks: watch::Receiver<Arc<Snapshot>>,
    told: Option<SentTicket>,
    sent: Instant,
    asked: Instant,
}

/// The stream of one client: the ticket at once and whenever it changes, until it has expired or the service ends.
pub(super) async fn events(
    queue: Arc<QueueService>,
    claims: Claims,
) -> Result<impl IntoResponse, Error> {
    queue.settings(&claims.queue).ok_or(Error::NotFound)?;
    let snapshot = queue.snapshot_knowing(&claims.queue, claims.score).await?;
    let ticks = queue.ticks(&claims.queue, snapshot.clone());
    let now = Instant::now();
    let state = StreamState {
        queue,
        claims,
        first: Some(snapshot),
        ticks,
        told: None,
        sent: now,
        asked: now,
    };
    let events = futures::stream::unfold(Some(state), async |state| {
        let mut state = state?;
        let (event, last) = state.next().await?;
        Some((Ok::<_, Infallible>(event), (!last).then_some(state)))
    });
    Ok((HEADERS, Sse::new(events)))
}

impl StreamState {
    /// The next event, and whether it is the last. `None` when the service ends.
    async fn next(&mut self) -> Option<(Event, bool)> {
        let ending = self.queue.ending().clone();
        loop {
            if self.told.is_some() {
                ending.run_until_cancelled(self.ticks.changed()).await?.ok()?;
            }
            if let Some(place) = self.look().await {
                let told = (place.standing, place.estimated_wait_seconds, place.line.sold_out);
                if self.told != Some(told) {
                    let first = self.told.replace(told).is_none();
                    self.sent = Instant::now();
                    return Some((
                        event(&ticket(&self.queue, &place, None), first),
                        place.standing == AdmissionState::Expired,
                    ));
                }
            } else if self.told.is_none() {
                return None;
            }
            if self.sent.elapsed() >= HEARTBEAT {
                self.sent = Instant::now();
                return Some((Event::default().comment(""), false));
            }
        }
    }

    /// Where the user stands; `None` when there is nothing new to ask for, or the stores did not answer.
    async fn look(&mut self) -> Option<Ticket> {
        let tick = self.ticks.borrow_and_update().clone();
        let snapshot = self.first.take().unwrap_or(tick);
        if let Some((AdmissionState::Active { until }, ..)) = self.told
            && snapshot.line.now < until
            && self.asked.elapsed() < SLOT_CHECK
        {
            return None;
        }
        self.asked = Instant::now();
        match self.queue.stand(&self.claims, &snapshot).await {
            Ok(place) => Some(place),
            Err(error) => {
                tracing::debug!(queue = %self.claims.queue, %error, "a stream could not look");
                None
            }
        }
    }
}

fn event(ticket: &TicketDto, first: bool) -> Event {
    let event = Event::default().event("ticket").json_data(ticket).unwrap_or_default();
    if first { event.retry(Duration::from_millis(rand::random_range(RETRY_MS))) } else { event }
}
