//! Timeouts of a connection: idle, slow headers, and writes without progress.
//!
//! hyper has a single timer for the headers of a request, and it also runs while a kept connection
//! is idle. Clients and load balancers keep connections for a minute, so that timer would have to
//! be long, and a client could keep a connection open by sending a header per minute. This wrapper
//! separates the two: the idle timeout applies without a request, and the header timeout from the
//! first byte of a request until hyper has its headers. A third timer ends connections whose client
//! does not read its response. (A body that no handler read counts as the start of the next
//! request. hyper usually closes such a connection anyway.)
//!
//! Setting a tokio timer takes a lock that all connections share, so a request that arrives
//! complete sets none. A deadline is only stored. The timer behind it is moved forward when it
//! would fire late, and moved back when it fired too early.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// The state of a connection. Only the task of the connection accesses it, so relaxed ordering is
/// enough.
#[derive(Clone, Default)]
pub(super) struct ConnectionPhase(Arc<AtomicU8>);

/// The connection preface (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const IDLE: u8 = 0;
const READING_HEADERS: u8 = 1;
const RESPONDING: u8 = 2;

impl ConnectionPhase {
    /// hyper has the headers of a request.
    pub(super) fn set_responding(&self) {
        self.0.store(RESPONDING, Ordering::Relaxed);
    }

    /// The response has started. The next bytes begin a new request.
    pub(super) fn set_idle(&self) {
        self.0.store(IDLE, Ordering::Relaxed);
    }

    fn current(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Copy)]
pub(super) struct ConnectionTimeouts {
    /// From the first byte of a request to the end of its headers. Also limits a write without
    /// progress.
    pub(super) headers: Duration,
    /// How long a connection may be idle.
    pub(super) idle: Duration,
}

/// A stream with a read timer and a write timer.
pub(super) struct TimedStream<T> {
    stream: T,
    phase: ConnectionPhase,
    timeouts: ConnectionTimeouts,
    /// The phase that `deadline` belongs to. [`RESPONDING`] has no deadline.
    deadline_phase: u8,
    deadline: Instant,
    /// Bytes read to detect the version, and how many of them hyper has consumed.
    buffered: Vec<u8>,
    consumed: usize,
    read_timer: Pin<Box<Sleep>>,
    write_timer: Pin<Box<Sleep>>,
    write_stalled: bool,
}

impl<T> TimedStream<T> {
    /// The connection starts idle.
    pub(super) fn new(stream: T, phase: ConnectionPhase, timeouts: ConnectionTimeouts) -> Self {
        let deadline = Instant::now() + timeouts.idle;
        let (buffered, consumed, deadline_phase) = (Vec::new(), 0, IDLE);
        let (read_timer, write_timer) =
            (Box::pin(sleep_until(deadline)), Box::pin(sleep_until(deadline)));
        Self {
            stream,
            phase,
            timeouts,
            deadline_phase,
            deadline,
            buffered,
            consumed,
            read_timer,
            write_timer,
            write_stalled: false,
        }
    }

    /// Disables the read timer: requests overlap on this connection. `http2_streams` limits it
    /// instead.
    pub(super) fn set_multiplexed(&mut self) {
        self.phase.set_responding();
    }

    /// Starts the write timer when a write makes no progress, and stops it when one does.
    fn check_write<R>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if outcome.is_ready() {
            self.write_stalled = false;
            return outcome;
        }
        if !std::mem::replace(&mut self.write_stalled, true) {
            self.write_timer.as_mut().reset(Instant::now() + self.timeouts.headers);
        }
        ready!(self.write_timer.as_mut().poll(cx));
        Poll::Ready(Err(timed_out("the client does not read its response")))
    }

    /// Ready when the deadline of the current phase has passed.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let phase = self.phase.current();
        if std::mem::replace(&mut self.deadline_phase, phase) != phase {
            self.deadline = Instant::now()
                + if phase == IDLE { self.timeouts.idle } else { self.timeouts.headers };
        }
        if self.read_timer.deadline() > self.deadline {
            self.read_timer.as_mut().reset(self.deadline);
        }
        loop {
            ready!(self.read_timer.as_mut().poll(cx));
            if self.read_timer.deadline() >= self.deadline {
                return Poll::Ready(());
            }
            self.read_timer.as_mut().reset(self.deadline);
        }
    }
}

impl<T: AsyncRead + Unpin> TimedStream<T> {
    /// Whether the stream starts with the HTTP/2 preface. The bytes stay readable. A connection
    /// that fails or is too slow counts as HTTP/1.1, which then fails with the same error.
    pub(super) async fn starts_with_http2_preface(&mut self) -> bool {
        let mut first = [0; HTTP2_PREFACE.len()];
        let mut count = 0;
        while count < HTTP2_PREFACE.len() {
            match self.read(&mut first[count..]).await {
                Ok(0) | Err(_) => break,
                Ok(more) => count += more,
            }
            if first[..count] != HTTP2_PREFACE[..count] {
                break;
            }
        }
        self.buffered = first[..count].to_vec();
        count == HTTP2_PREFACE.len() && first == *HTTP2_PREFACE
    }
}

fn timed_out(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, reason)
}

impl<T: AsyncRead + Unpin> AsyncRead for TimedStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.consumed < self.buffered.len() {
            let count = buffer.remaining().min(self.buffered.len() - self.consumed);
            buffer.put_slice(&self.buffered[self.consumed..self.consumed + count]);
            self.consumed += count;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        match self.phase.current() {
            IDLE if buffer.filled().len() > before => {
                // hyper reads again if the headers are incomplete, and that read starts the header
                // timeout.
                self.phase.0.store(READING_HEADERS, Ordering::Relaxed);
                self.deadline_phase = RESPONDING;
                outcome
            }
            IDLE if outcome.is_pending() => {
                ready!(self.poll_deadline(cx));
                Poll::Ready(Err(timed_out("idle timeout")))
            }
            // The deadline applies even if the read returned some bytes.
            READING_HEADERS if self.poll_deadline(cx).is_ready() => {
                Poll::Ready(Err(timed_out("header timeout")))
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
        self.check_write(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.check_write(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TCP stream has nothing to flush, so this does not affect the write timer.
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
