//! What one HTTP/2 connection may do: how much at once, how long without moving, and how often it may take back what it asked.
//!
//! HTTP/2 has no moment between requests, so the timers of HTTP/1.1 don't fit. Here a connection is overdue when no request is being answered and
//! nothing has moved on it for the idle time: no request came, and no part of an answer was fetched. A client that opens no window for its answers is
//! caught by the same clock. And one that resets most of what it asks (CVE-2023-44487, «rapid reset») makes work for nothing: it is told to go.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Requests of one connection that are answered at once, as many as browsers ask.
pub(super) const CONCURRENT: u32 = 100;
/// Streams that were reset before they were looked at; with more the connection is told to go (`ENHANCE_YOUR_CALM`).
pub(super) const RESET_UNSEEN: usize = 20;
/// Answers that a client may give up before it is looked at more closely.
const TAKEN_BACK: u64 = 100;

/// The moves of one connection.
pub(super) struct StreamProgress {
    began: Instant,
    /// When something moved, in milliseconds since it began.
    moved: AtomicU64,
    /// Requests whose answers have no head yet.
    answering: AtomicUsize,
    asked: AtomicU64,
    taken_back: AtomicU64,
    /// Somebody takes back too much.
    abused: Notify,
}

impl StreamProgress {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            moved: AtomicU64::new(0),
            answering: AtomicUsize::new(0),
            asked: AtomicU64::new(0),
            taken_back: AtomicU64::new(0),
            abused: Notify::new(),
        })
    }

    fn touch(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(millis, Ordering::Relaxed);
    }

    /// A request came. What is given is dropped when its answer has a head, or when the client has taken it back.
    pub(super) fn asked(self: &Arc<Self>) -> PendingRequest {
        self.touch();
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.answering.fetch_add(1, Ordering::Relaxed);
        PendingRequest { moves: self.clone(), answered: false }
    }

    /// Waits until the connection should go, and says why.
    pub(super) async fn overdue(&self, idle: Duration) -> &'static str {
        let quiet = async {
            loop {
                let moved = self.began + Duration::from_millis(self.moved.load(Ordering::Relaxed));
                let due = moved + idle;
                if due > Instant::now() {
                    tokio::time::sleep_until(due).await;
                } else if self.answering.load(Ordering::Relaxed) > 0 {
                    // The request's own timer ends it.
                    tokio::time::sleep(idle).await;
                } else {
                    return;
                }
            }
        };
        tokio::select! {
            () = quiet => "nothing moves on it",
            () = self.abused.notified() => "it takes back most of what it asks",
        }
    }
}

/// A request that has no answer yet.
pub(super) struct PendingRequest {
    moves: Arc<StreamProgress>,
    answered: bool,
}

impl PendingRequest {
    /// The answer, whose every part counts as a move.
    pub(super) fn answered(mut self, body: Body) -> ProgressBody {
        self.answered = true;
        self.moves.touch();
        ProgressBody { body, moves: self.moves.clone() }
    }
}

impl Drop for PendingRequest {
    fn drop(&mut self) {
        let moves = &self.moves;
        moves.answering.fetch_sub(1, Ordering::Relaxed);
        if self.answered {
            return;
        }
        let back = moves.taken_back.fetch_add(1, Ordering::Relaxed) + 1;
        if back > TAKEN_BACK && 2 * back > moves.asked.load(Ordering::Relaxed) {
            moves.abused.notify_one();
        }
    }
}

/// A body that tells when it is fetched.
pub(super) struct ProgressBody {
    body: Body,
    moves: Arc<StreamProgress>,
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
            self.moves.touch();
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
