//! A connection that may not be slow.
//!
//! hyper has one timer for a request's headers, and it runs while a kept connection is idle too. Clients and load balancers keep
//! connections for a minute, so that timer has to be long, and a client that sends a header a minute would hold its place by it.
//! This wrapper tells the two apart: without a request the long limit holds, and from the first byte of one until hyper has its headers the short one.
//! Another timer runs while a write makes no progress: a client that does not read its answer is cut as well. (A body that no handler read counts as
//! the beginning of the next request; hyper mostly closes such a connection anyway.)
//!
//! Setting a timer takes a lock that all connections share, so a request that comes whole sets none: a limit is a moment that is noted, the timer behind it
//! is only brought forward when it would be late, and moved on when it rang too early.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// What the connection is waiting for. Written by the connection's own task only, so the order of accesses is the program's.
#[derive(Clone, Default)]
pub(super) struct ConnectionPhase(Arc<AtomicU8>);

/// What a client of HTTP/2 says first (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const IDLE: u8 = 0;
const HEADERS: u8 = 1;
const ANSWERING: u8 = 2;

impl ConnectionPhase {
    /// hyper has the headers of a request.
    pub(super) fn answering(&self) {
        self.0.store(ANSWERING, Ordering::Relaxed);
    }

    /// The head of the answer is on its way; what is read next begins a new request.
    pub(super) fn answered(&self) {
        self.0.store(IDLE, Ordering::Relaxed);
    }

    /// Requests overlap on this connection, so there is no phase; `listener` watches it by other means.
    fn none(&self) {
        self.answering();
    }

    fn now(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How slow a connection may be.
#[derive(Clone, Copy)]
pub(super) struct ConnectionTimeouts {
    /// From the first byte of a request to the last of its headers; also how long a write may make no progress.
    pub(super) headers: Duration,
    /// How long a connection may stand without a request.
    pub(super) idle: Duration,
}

/// A stream with a timer for what is to come and one for stalled writes.
pub(super) struct TimedStream<T> {
    stream: T,
    phase: ConnectionPhase,
    limits: ConnectionTimeouts,
    /// The phase that `due` belongs to; [`ANSWERING`] has no limit.
    timed: u8,
    /// When that phase must be over.
    due: Instant,
    /// What was read to tell the version, and how much of it hyper has.
    ahead: Vec<u8>,
    taken: usize,
    reading: Pin<Box<Sleep>>,
    writing: Pin<Box<Sleep>>,
    write_stalled: bool,
}

impl<T> TimedStream<T> {
    /// A connection that is idle so far.
    pub(super) fn new(stream: T, phase: ConnectionPhase, limits: ConnectionTimeouts) -> Self {
        let due = Instant::now() + limits.idle;
        let (ahead, taken, timed) = (Vec::new(), 0, IDLE);
        let (reading, writing) = (Box::pin(sleep_until(due)), Box::pin(sleep_until(due)));
        Self {
            stream,
            phase,
            limits,
            timed,
            due,
            ahead,
            taken,
            reading,
            writing,
            write_stalled: false,
        }
    }

    /// From here on only the timer for writes runs.
    pub(super) fn multiplexed(&mut self) {
        self.phase.none();
    }

    /// What a write that came to `outcome` means: progress, waiting, or too long a wait.
    fn written<R>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if outcome.is_ready() {
            self.write_stalled = false;
            return outcome;
        }
        if !std::mem::replace(&mut self.write_stalled, true) {
            self.writing.as_mut().reset(Instant::now() + self.limits.headers);
        }
        ready!(self.writing.as_mut().poll(cx));
        Poll::Ready(Err(timed_out("the client does not read its answer")))
    }

    /// Whether what is to come is late.
    fn late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let phase = self.phase.now();
        if std::mem::replace(&mut self.timed, phase) != phase {
            self.due =
                Instant::now() + if phase == IDLE { self.limits.idle } else { self.limits.headers };
        }
        if self.reading.deadline() > self.due {
            self.reading.as_mut().reset(self.due);
        }
        loop {
            ready!(self.reading.as_mut().poll(cx));
            if self.reading.deadline() >= self.due {
                return Poll::Ready(());
            }
            self.reading.as_mut().reset(self.due);
        }
    }
}

impl<T: AsyncRead + Unpin> TimedStream<T> {
    /// Whether what comes begins as HTTP/2 does. What was read stays to be read. A connection that breaks or is too slow meanwhile begins as HTTP/1.1, which
    /// finds out by itself.
    pub(super) async fn begins_http2(&mut self) -> bool {
        let mut first = [0; PREFACE.len()];
        let mut count = 0;
        while count < PREFACE.len() {
            match self.read(&mut first[count..]).await {
                Ok(0) | Err(_) => break,
                Ok(more) => count += more,
            }
            if first[..count] != PREFACE[..count] {
                break;
            }
        }
        self.ahead = first[..count].to_vec();
        count == PREFACE.len() && first == *PREFACE
    }
}

fn timed_out(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

impl<T: AsyncRead + Unpin> AsyncRead for TimedStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.taken < self.ahead.len() {
            let count = buffer.remaining().min(self.ahead.len() - self.taken);
            buffer.put_slice(&self.ahead[self.taken..self.taken + count]);
            self.taken += count;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        match self.phase.now() {
            IDLE if buffer.filled().len() > before => {
                // hyper reads again where this was not all of the headers, and then they are timed.
                self.phase.0.store(HEADERS, Ordering::Relaxed);
                self.timed = ANSWERING;
                outcome
            }
            IDLE if outcome.is_pending() => {
                ready!(self.late(cx));
                Poll::Ready(Err(timed_out("no request came in time")))
            }
            // Bytes that trickle in are no excuse: the timer is looked at whether or not some came.
            HEADERS if self.late(cx).is_ready() => {
                Poll::Ready(Err(timed_out("the headers of a request did not come in time")))
            }
            _ => outcome,
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for TimedStream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TCP stream has nothing to flush, so this neither stalls nor clears a stall.
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
