//! Limits of one HTTP/2 connection: concurrent streams, idle time and reset streams.
//!
//! Requests of HTTP/2 overlap, so the timeouts of HTTP/1.1 do not fit. A connection is overdue when
//! no request is in progress and nothing happened on it for the idle timeout: no request arrived,
//! and no part of a response was read. This includes clients that open no window for their
//! responses. A client that resets most of its requests (CVE-2023-44487, "rapid reset") causes
//! useless work, and its connection is closed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::Instant;

/// As many as browsers use.
pub(super) const MAX_CONCURRENT_STREAMS: u32 = 100;
/// Streams that are reset before they are accepted. More of them close the connection
/// (`ENHANCE_YOUR_CALM`).
pub(super) const MAX_PENDING_RESETS: usize = 20;
/// With fewer resets a connection is never closed for them.
const TOLERATED_RESETS: u64 = 100;

/// The activity of one connection.
pub(super) struct StreamProgress {
    started: Instant,
    /// Time of the last activity, in milliseconds since `started`.
    last_activity: AtomicU64,
    /// Requests whose response has no headers yet.
    pending: AtomicUsize,
    requests: AtomicU64,
    resets: AtomicU64,
    /// The client resets most of its requests.
    reset_abuse: Notify,
}

impl StreamProgress {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            last_activity: AtomicU64::new(0),
            pending: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            resets: AtomicU64::new(0),
            reset_abuse: Notify::new(),
        })
    }

    fn record_activity(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_activity.store(millis, Ordering::Relaxed);
    }

    /// Counts a request as pending until the result is dropped: when its response has headers, or
    /// when the client resets the stream.
    pub(super) fn begin_request(self: &Arc<Self>) -> PendingRequest {
        self.record_activity();
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.pending.fetch_add(1, Ordering::Relaxed);
        PendingRequest { progress: self.clone(), responded: false }
    }

    /// Waits until the connection should be closed. Returns the reason.
    pub(super) async fn wait_until_overdue(&self, idle: Duration) -> &'static str {
        let idle_timeout = async {
            loop {
                let millis = self.last_activity.load(Ordering::Relaxed);
                let due = self.started + Duration::from_millis(millis) + idle;
                if due > Instant::now() {
                    tokio::time::sleep_until(due).await;
                } else if self.pending.load(Ordering::Relaxed) > 0 {
                    // The timeout of the request ends it.
                    tokio::time::sleep(idle).await;
                } else {
                    return;
                }
            }
        };
        tokio::select! {
            () = idle_timeout => "it is idle",
            () = self.reset_abuse.notified() => "it resets most of its requests",
        }
    }
}

/// A request without a response.
pub(super) struct PendingRequest {
    progress: Arc<StreamProgress>,
    responded: bool,
}

impl PendingRequest {
    /// The body of the response. Each part that the client reads counts as activity.
    pub(super) fn respond(mut self, body: Body) -> ProgressBody {
        self.responded = true;
        self.progress.record_activity();
        ProgressBody { body, progress: self.progress.clone() }
    }
}

impl Drop for PendingRequest {
    fn drop(&mut self) {
        let progress = &self.progress;
        progress.pending.fetch_sub(1, Ordering::Relaxed);
        if self.responded {
            return;
        }
        let resets = progress.resets.fetch_add(1, Ordering::Relaxed) + 1;
        if resets > TOLERATED_RESETS && 2 * resets > progress.requests.load(Ordering::Relaxed) {
            progress.reset_abuse.notify_one();
        }
    }
}

/// A body that records when the client reads it.
pub(super) struct ProgressBody {
    body: Body,
    progress: Arc<StreamProgress>,
}

impl hyper::body::Body for ProgressBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let part = Pin::new(&mut self.body).poll_frame(cx);
        if part.is_ready() {
            self.progress.record_activity();
        }
        part
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
