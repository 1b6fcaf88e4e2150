//! The seats of a schedule as server-sent events: the whole state first, then what has changed.
//!
//! The events come from one source per schedule ([`super::seat_stream_source`]). What belongs to
//! one client is the version that it knows, the checksum of its compressed stream, and the check of
//! its queue token, which also extends a sliding visit.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_ENCODING;
use axum::response::{AppendHeaders, IntoResponse, Response};
use tokio::sync::watch;
use tokio::time::Instant;

use super::SeatService;
use super::map_routes::SeatStatusesDto;
use super::seat_stream_source::SeatMapFrame;
use crate::edge::stream_permits::{StreamPermit, StreamPermits};
use crate::http::ProblemDetails;
use crate::http::path::PathParams;
use crate::http::query::QueryParams;
use crate::http::shared_event::EventEncoder;
use crate::ids::ScheduleId;
use crate::queue::{self, Claims, QueueService, StreamQuery, TokenHolder};
use crate::telemetry::Metric;

/// An empty comment after this time without an event keeps proxies from closing the connection.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);
/// How often Redis is asked about the token. More often if a visit is shorter.
const MAX_TOKEN_CHECK_INTERVAL: Duration = Duration::from_secs(5);
const MIN_TOKEN_CHECK_INTERVAL: Duration = Duration::from_millis(300);
/// The last one disables buffering in nginx.
const RESPONSE_HEADERS: [(&str, &str); 4] = [
    ("content-type", "text/event-stream"),
    ("cache-control", "no-store"),
    ("vary", "accept-encoding"),
    ("x-accel-buffering", "no"),
];
/// The reconnection time sent to a client. It is random, so that clients do not reconnect all at
/// the same time.
const RECONNECT_DELAY_MS: std::ops::Range<u64> = 2_000..6_000;

/// Stream the seats as server-sent events
///
/// The first event `status` has the whole state, as `view=status` returns it. An event `seats`, at
/// most one a second, has what has changed since: `{"items": [{"number": 7, "status": "held"}]}`. A
/// client that was too slow, and every client after a change of the layout, gets another event
/// `status`. A comment follows after 15 seconds without an event. The stream counts as use of a
/// sliding visit. It ends when the queue token is over, which is then refused with 410, so that an
/// `EventSource` does not reconnect. It is compressed (gzip) when the client accepts that.
#[utoipa::path(
    get,
    path = "/v1/schedules/{schedule}/seats/events",
    operation_id = "streamSeats",
    tag = "catalogue",
    params(("schedule" = ScheduleId, Path), StreamQuery),
    responses(
        (status = 200, body = SeatStatusesDto, content_type = "text/event-stream"),
        (status = 401, body = ProblemDetails),
        (status = 403, body = ProblemDetails,
            description = "`not_admitted`, `wrong_queue`, or `booking_not_open` when the concert is archived"),
        (status = 404, body = ProblemDetails),
        (status = 410, body = ProblemDetails, description = "`queue_token_expired`"),
        (status = 503, body = ProblemDetails,
            description = "`overloaded`: the instance or the user has too many streams"),
    ),
    security(("queue_token" = []))
)]
pub(super) async fn events(
    State(seats): State<Arc<SeatService>>,
    Extension(permits): Extension<Arc<StreamPermits>>,
    PathParams(id): PathParams<ScheduleId>,
    QueryParams(query): QueryParams<StreamQuery>,
    request: axum::extract::Request,
) -> Result<Response, ProblemDetails> {
    let (mut parts, _) = request.into_parts();
    let TokenHolder { claims, .. } = query.token_holder(&mut parts).await?;
    let permit = match permits.acquire(claims.user) {
        Ok(permit) => permit,
        Err(refusal) => return Ok(refusal.into_response()),
    };
    let scheduled = seats.bookable_schedule(&claims, &id).await?;
    seats.queue.require_active(&claims).await?;
    let frames = seats.subscribe(&scheduled).await?;
    let encoder = EventEncoder::for_client(&parts.headers);
    let encoding = AppendHeaders(encoder.name().map(|name| (CONTENT_ENCODING, name)));
    let stream = SeatStream::new(seats.queue.clone(), claims, frames, encoder, permit);
    Ok((RESPONSE_HEADERS, encoding, stream.into_body()).into_response())
}

/// The stream of one client.
struct SeatStream {
    queue: Arc<QueueService>,
    claims: Claims,
    frames: watch::Receiver<Arc<SeatMapFrame>>,
    /// The version that the client knows.
    known: Option<u64>,
    encoder: EventEncoder,
    heartbeat_at: Instant,
    check_interval: Duration,
    check_at: Instant,
    /// Held as long as the stream is open.
    _permit: StreamPermit,
}

impl SeatStream {
    fn new(
        queue: Arc<QueueService>,
        claims: Claims,
        frames: watch::Receiver<Arc<SeatMapFrame>>,
        encoder: EventEncoder,
        permit: StreamPermit,
    ) -> Self {
        let now = Instant::now();
        let visit = queue.settings(&claims.queue).map(|it| it.settings.active_seconds);
        let check_interval = (Duration::from_secs(visit.unwrap_or_default().into()) / 3)
            .clamp(MIN_TOKEN_CHECK_INTERVAL, MAX_TOKEN_CHECK_INTERVAL);
        Self {
            queue,
            claims,
            frames,
            known: None,
            encoder,
            heartbeat_at: now + HEARTBEAT_INTERVAL,
            check_interval,
            check_at: now + check_interval,
            _permit: permit,
        }
    }

    fn into_body(self) -> Body {
        Body::from_stream(futures::stream::unfold(Some(self), async |stream| {
            let mut stream = stream?;
            let (chunk, rest) = match stream.next().await {
                Some(chunk) => (chunk, Some(stream)),
                None => (stream.encoder.end(), None),
            };
            Some((Ok::<_, Infallible>(Bytes::from(chunk)), rest))
        }))
    }

    /// What is sent next. `None` when the token or the schedule is over, or the service shuts down.
    async fn next(&mut self) -> Option<Vec<u8>> {
        let shutdown = self.queue.shutdown().clone();
        loop {
            if let Some(events) = self.new_events() {
                self.heartbeat_at = Instant::now() + HEARTBEAT_INTERVAL;
                return Some(events);
            }
            let due = self.check_at.min(self.heartbeat_at);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep_until(due) => {}
                changed = self.frames.changed() => changed.ok()?,
            }
            let now = Instant::now();
            if now >= self.check_at {
                self.check_at = now + self.check_interval;
                if !self.is_admitted().await {
                    return None;
                }
            }
            if now >= self.heartbeat_at {
                self.heartbeat_at = now + HEARTBEAT_INTERVAL;
                return Some(self.encoder.heartbeat());
            }
        }
    }

    fn new_events(&mut self) -> Option<Vec<u8>> {
        let frame = self.frames.borrow_and_update().clone();
        let (events, is_whole) = frame.events_since(self.known);
        if events.is_empty() {
            return None;
        }
        let mut body = if self.known.is_some() {
            if is_whole {
                Metric::SeatStreamResendsTotal.counter(&[]).increment(1);
            }
            Vec::new()
        } else {
            self.encoder.start(rand::random_range(RECONNECT_DELAY_MS))
        };
        for event in events {
            self.encoder.write(&event, &mut body);
        }
        self.known = Some(frame.version());
        Some(body)
    }

    /// Whether the user is still active. Extends a sliding visit. A store that fails ends no
    /// stream.
    async fn is_admitted(&self) -> bool {
        match self.queue.require_active(&self.claims).await {
            Ok(()) => true,
            Err(queue::Error::Store(error)) => {
                tracing::debug!(queue = %self.claims.queue, %error, "checking a stream failed");
                true
            }
            Err(_) => false,
        }
    }
}
