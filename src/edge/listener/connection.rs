//! One connection: from the handshake to its end, in either version of HTTP.

use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::connection_permits::ConnectionPermit;
use super::http2_streams::{CONCURRENT, RESET_UNSEEN, StreamProgress};
use super::{ListenerSettings, ServerCertificates};
use crate::edge::connection_timeouts::{ConnectionPhase, ConnectionTimeouts, TimedStream};
use crate::http::peer::PeerAddress;
use crate::telemetry::Metric;

/// The longest request line and headers, in bytes.
pub(super) const HEADER_BYTES: usize = 16 * 1024;
/// The most headers. It is hyper's own bound for HTTP/1.1, where it costs nothing; HTTP/2 is held to it here.
const HEADERS: usize = 100;
/// What hyper reads ahead, and what it keeps of an answer that the client does not fetch yet, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

type ConnectionFailure = Box<dyn std::error::Error + Send + Sync>;

/// What a connection needs.
pub(super) struct ConnectionContext {
    pub(super) router: Router,
    pub(super) peer: PeerAddress,
    pub(super) settings: ListenerSettings,
    pub(super) certificates: Option<Arc<ServerCertificates>>,
    /// From then on each answer says that it is the connection's last, so that no client is about to ask when the drain closes what is idle.
    pub(super) quiet: CancellationToken,
    pub(super) watcher: Watcher,
    pub(super) drain: CancellationToken,
    pub(super) cut: CancellationToken,
    /// Held as long as the connection stands.
    pub(super) slot: ConnectionPermit,
}

impl ConnectionContext {
    /// Serves it to its end.
    pub(super) async fn run(self, stream: TcpStream) {
        let (peer, cut) = (self.peer, self.cut.clone());
        // Answers are small and complete: waiting to fill a segment would only add latency.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        // Broken connections are the clients' affair: worth a look when one asks for it, not a line each.
        if let Some(Err(error)) = cut.run_until_cancelled_owned(self.shake_hands(stream)).await {
            tracing::debug!(%error, peer = %peer.0, "a connection broke");
        }
    }

    /// Each stage is boxed, so that a connection that stands in one does not carry the room of all.
    async fn shake_hands(self, stream: TcpStream) -> Result<(), ConnectionFailure> {
        match self.certificates.clone() {
            None => Box::pin(self.tell_version(stream)).await,
            Some(certificates) => Box::pin(self.encrypt(&certificates, stream)).await,
        }
    }

    async fn encrypt(
        self,
        certificates: &ServerCertificates,
        stream: TcpStream,
    ) -> Result<(), ConnectionFailure> {
        let shaking = timeout(self.settings.header_timeout, certificates.acceptor().accept(stream));
        let Some(shaken) = self.drain.run_until_cancelled(shaking).await else { return Ok(()) };
        let refused = |error: ConnectionFailure| {
            Metric::ConnectionsRefusedTotal.counter(&[("reason", "tls")]).increment(1);
            error
        };
        let stream =
            shaken.map_err(|late| refused(late.into()))?.map_err(|error| refused(error.into()))?;
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => {
                let stream =
                    TimedStream::new(stream, ConnectionPhase::default(), self.settings.limits());
                Box::pin(self.http2(stream)).await
            }
            Some(_) => {
                let phase = ConnectionPhase::default();
                let stream = TimedStream::new(stream, phase.clone(), self.settings.limits());
                Box::pin(self.http1(stream, phase)).await
            }
            None => Box::pin(self.tell_version(stream)).await,
        }
    }

    /// By what comes first: HTTP/2 has a preface that no request of HTTP/1.1 is like.
    async fn tell_version<T>(self, stream: T) -> Result<(), ConnectionFailure>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let phase = ConnectionPhase::default();
        let mut stream = TimedStream::new(stream, phase.clone(), self.settings.limits());
        match self.drain.run_until_cancelled(stream.begins_http2()).await {
            None => Ok(()),
            Some(true) => Box::pin(self.http2(stream)).await,
            Some(false) => Box::pin(self.http1(stream, phase)).await,
        }
    }

    async fn http1<T>(
        self,
        stream: TimedStream<T>,
        phase: ConnectionPhase,
    ) -> Result<(), ConnectionFailure>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { router, peer, quiet, watcher, slot, .. } = self;
        let service = service_fn(move |request: Request<Incoming>| {
            phase.answering();
            let (router, phase, quiet) = (router.clone(), phase.clone(), quiet.clone());
            async move {
                let mut response = router.oneshot(prepared(request, peer)).await;
                if let (Ok(response), true) = (&mut response, quiet.is_cancelled()) {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                phase.answered();
                response
            }
        });
        let connection = http1::Builder::new()
            .max_buf_size(BUFFER_BYTES)
            .max_header_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let outcome = watcher.watch(connection).await;
        drop(slot);
        Ok(outcome?)
    }

    async fn http2<T>(self, mut stream: TimedStream<T>) -> Result<(), ConnectionFailure>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { router, peer, settings, drain, slot, .. } = self;
        stream.multiplexed();
        let moves = StreamProgress::new();
        let seen = moves.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (router, asked) = (router.clone(), seen.asked());
            async move {
                let response = if request.headers().len() > HEADERS {
                    let mut refusal = Response::new(Body::empty());
                    *refusal.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                    refusal
                } else {
                    router.oneshot(prepared(request, peer)).await?
                };
                Ok::<_, std::convert::Infallible>(response.map(|body| asked.answered(body)))
            }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(CONCURRENT)
            .max_pending_accept_reset_streams(RESET_UNSEEN)
            .max_header_list_size(u32::try_from(HEADER_BYTES).unwrap_or(u32::MAX))
            .max_send_buf_size(BUFFER_BYTES)
            // A peer that is gone without a word is found out before the idle timer would.
            .keep_alive_interval(settings.idle_timeout / 3)
            .keep_alive_timeout(settings.header_timeout)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        tokio::select! {
            outcome = connection.as_mut() => {
                drop(slot);
                return Ok(outcome?);
            }
            () = drain.cancelled() => {
                GracefulConnection::graceful_shutdown(connection.as_mut());
                connection.await?;
            }
            why = moves.overdue(settings.idle_timeout) => {
                tracing::debug!(peer = %peer.0, why, "a connection is told to go");
                GracefulConnection::graceful_shutdown(connection.as_mut());
                timeout(settings.header_timeout, connection).await??;
            }
        }
        drop(slot);
        Ok(())
    }
}

impl ListenerSettings {
    fn limits(&self) -> ConnectionTimeouts {
        ConnectionTimeouts { headers: self.header_timeout, idle: self.idle_timeout }
    }
}

fn prepared(request: Request<Incoming>, peer: PeerAddress) -> Request<Body> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(peer);
    request
}
