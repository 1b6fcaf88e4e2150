//! A user's ticket as server-sent events, from the same snapshots as polls.
//!
//! There is one ticker per queue, not one per client: 20,000 streams need two snapshots per second.
//! Only streams whose score is below the front ask Redis, and these requests are coalesced.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use tokio::sync::watch;

use super::dto::{TicketDto, ticket_dto};
use super::languages::PreferredLanguages;
use super::{AdmissionState, Claims, Error, QueueMode, QueueService, Snapshot, Ticket};
use crate::edge::stream_permits::StreamPermit;

/// An empty comment after this time without an event keeps proxies from closing the connection.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);
/// How often Redis is asked about an active slot before its end.
const ACTIVE_SLOT_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Tickets must not be cached. `x-accel-buffering` disables buffering in nginx.
const RESPONSE_HEADERS: [(&str, &str); 2] =
    [("cache-control", "no-store"), ("x-accel-buffering", "no")];
/// The reconnection time sent to a client. It is random, so that clients do not reconnect all at
/// the same time.
const RECONNECT_DELAY_MS: std::ops::Range<u64> = 2_000..6_000;

/// The parts of a ticket whose change causes an event.
/// The last two are the mode and the version of the settings, which include the message.
type SentTicket = (AdmissionState, Option<u64>, bool, QueueMode, Option<u64>);

struct StreamState {
    queue: Arc<QueueService>,
    claims: Claims,
    languages: PreferredLanguages,
    /// For the first ticket. It includes the user's score, which the last tick may not.
    first_snapshot: Option<Arc<Snapshot>>,
    ticks: watch::Receiver<Arc<Snapshot>>,
    last_ticket: Option<SentTicket>,
    sent_at: Instant,
    checked_at: Instant,
    /// Held as long as the stream is open.
    _permit: StreamPermit,
}

/// The stream of one client. It sends the ticket immediately and after each change, until the
/// ticket has expired or the service shuts down.
pub(super) async fn events(
    queue: Arc<QueueService>,
    claims: Claims,
    languages: PreferredLanguages,
    permit: StreamPermit,
) -> Result<impl IntoResponse, Error> {
    queue.find_settings(&claims.queue).await?;
    let snapshot = queue.snapshot_including(&claims.queue, claims.score).await?;
    if queue.ticket_from(&claims, &snapshot).await?.admission == AdmissionState::Expired {
        return Err(Error::TokenExpired);
    }
    let ticks = queue.ticks(&claims.queue, snapshot.clone());
    let now = Instant::now();
    let state = StreamState {
        queue,
        claims,
        languages,
        first_snapshot: Some(snapshot),
        ticks,
        last_ticket: None,
        sent_at: now,
        checked_at: now,
        _permit: permit,
    };
    let events = futures::stream::unfold(Some(state), async |state| {
        let mut state = state?;
        let (event, last) = state.next().await?;
        Some((Ok::<_, Infallible>(event), (!last).then_some(state)))
    });
    Ok((RESPONSE_HEADERS, Sse::new(events)))
}

impl StreamState {
    /// The next event, and whether it is the last one. `None` when the service shuts down.
    async fn next(&mut self) -> Option<(Event, bool)> {
        let shutdown = self.queue.shutdown().clone();
        loop {
            // The first ticket is sent without waiting for a tick.
            if self.last_ticket.is_some() {
                shutdown.run_until_cancelled(self.ticks.changed()).await?.ok()?;
            }
            if let Some(ticket) = self.current_ticket().await {
                let version = self.queue.settings(&self.claims.queue).map(|it| it.version);
                let sent = (
                    ticket.admission,
                    ticket.estimated_wait_seconds,
                    ticket.queue_state.sold_out,
                    ticket.queue_state.mode,
                    version,
                );
                if self.last_ticket != Some(sent) {
                    let first = self.last_ticket.replace(sent).is_none();
                    self.sent_at = Instant::now();
                    return Some((
                        event(&ticket_dto(&self.queue, &ticket, None, &self.languages), first),
                        ticket.admission == AdmissionState::Expired,
                    ));
                }
            } else if self.last_ticket.is_none() {
                return None;
            }
            if self.sent_at.elapsed() >= HEARTBEAT_INTERVAL {
                self.sent_at = Instant::now();
                return Some((Event::default().comment(""), false));
            }
        }
    }

    /// The current ticket. `None` when no change is possible yet, or when a store fails.
    async fn current_ticket(&mut self) -> Option<Ticket> {
        let tick = self.ticks.borrow_and_update().clone();
        let snapshot = self.first_snapshot.take().unwrap_or(tick);
        // An active ticket changes only at its end, or when the user leaves.
        if let Some((AdmissionState::Active { until }, ..)) = self.last_ticket
            && snapshot.state.now < until
            && self.checked_at.elapsed() < ACTIVE_SLOT_CHECK_INTERVAL
        {
            return None;
        }
        self.checked_at = Instant::now();
        match self.queue.ticket_from(&self.claims, &snapshot).await {
            Ok(ticket) => Some(ticket),
            Err(error) => {
                tracing::debug!(queue = %self.claims.queue, %error, "updating a stream failed");
                None
            }
        }
    }
}

fn event(ticket: &TicketDto, first: bool) -> Event {
    let event = Event::default().event("ticket").json_data(ticket).unwrap_or_default();
    if first {
        event.retry(Duration::from_millis(rand::random_range(RECONNECT_DELAY_MS)))
    } else {
        event
    }
}
