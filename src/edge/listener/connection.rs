//! One connection, from the handshake to its end, over HTTP/1.1 or HTTP/2.

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

use super::certificates::ServerCertificates;
use super::connection_permits::ConnectionPermit;
use super::http2_streams::{MAX_CONCURRENT_STREAMS, MAX_PENDING_RESETS, StreamProgress};
use super::settings::ListenerSettings;
use crate::edge::connection_timeouts::{ConnectionPhase, TimedStream};
use crate::http::peer::PeerAddress;
use crate::telemetry::Metric;

/// Limit of the request line and the headers.
pub(super) const MAX_HEADER_BYTES: usize = 16 * 1024;
/// hyper has the same limit for HTTP/1.1. HTTP/2 is limited here.
const MAX_HEADER_COUNT: usize = 100;
/// Limits what hyper reads ahead, and what it buffers of a response that the client does not read.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

type ConnectionFailure = Box<dyn std::error::Error + Send + Sync>;

pub(super) struct ConnectionContext {
    pub(super) router: Router,
    pub(super) peer: PeerAddress,
    pub(super) settings: ListenerSettings,
    pub(super) certificates: Option<Arc<ServerCertificates>>,
    /// Once cancelled, each response closes its connection. So no client sends a request when the
    /// drain closes idle connections.
    pub(super) quiet: CancellationToken,
    pub(super) watcher: Watcher,
    pub(super) drain: CancellationToken,
    pub(super) cut: CancellationToken,
    /// Held as long as the connection is open.
    pub(super) permit: ConnectionPermit,
}

impl ConnectionContext {
    /// Serves the connection to its end.
    pub(super) async fn run(self, stream: TcpStream) {
        let (peer, cut) = (self.peer, self.cut.clone());
        // Responses are small and complete, so waiting for full segments would only add latency.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY can't be set");
        }
        // Clients can break connections at will, so this is no warning.
        if let Some(Err(error)) = cut.run_until_cancelled_owned(self.handshake(stream)).await {
            tracing::debug!(%error, peer = %peer.0, "connection failed");
        }
    }

    /// Each stage is boxed, so that a connection does not need memory for all stages at once.
    async fn handshake(self, stream: TcpStream) -> Result<(), ConnectionFailure> {
        match self.certificates.clone() {
            None => Box::pin(self.detect_version(stream)).await,
            Some(certificates) => Box::pin(self.tls_handshake(&certificates, stream)).await,
        }
    }

    async fn tls_handshake(
        self,
        certificates: &ServerCertificates,
        stream: TcpStream,
    ) -> Result<(), ConnectionFailure> {
        let handshake =
            timeout(self.settings.header_timeout, certificates.acceptor().accept(stream));
        let Some(outcome) = self.drain.run_until_cancelled(handshake).await else { return Ok(()) };
        let count_failure = |error: ConnectionFailure| {
            Metric::ConnectionsRefusedTotal.counter(&[("reason", "tls")]).increment(1);
            error
        };
        let stream = outcome
            .map_err(|late| count_failure(late.into()))?
            .map_err(|error| count_failure(error.into()))?;
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => {
                let stream = TimedStream::new(
                    stream,
                    ConnectionPhase::default(),
                    self.settings.connection_timeouts(),
                );
                Box::pin(self.http2(stream)).await
            }
            Some(_) => {
                let phase = ConnectionPhase::default();
                let stream =
                    TimedStream::new(stream, phase.clone(), self.settings.connection_timeouts());
                Box::pin(self.http1(stream, phase)).await
            }
            None => Box::pin(self.detect_version(stream)).await,
        }
    }

    /// Detects the version by the first bytes: HTTP/2 has a preface that no HTTP/1.1 request starts
    /// with.
    async fn detect_version<T>(self, stream: T) -> Result<(), ConnectionFailure>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let phase = ConnectionPhase::default();
        let mut stream =
            TimedStream::new(stream, phase.clone(), self.settings.connection_timeouts());
        match self.drain.run_until_cancelled(stream.starts_with_http2_preface()).await {
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
        let Self { router, peer, quiet, watcher, permit, .. } = self;
        let service = service_fn(move |request: Request<Incoming>| {
            phase.set_responding();
            let (router, phase, quiet) = (router.clone(), phase.clone(), quiet.clone());
            async move {
                let mut response = router.oneshot(with_peer(request, peer)).await;
                if let (Ok(response), true) = (&mut response, quiet.is_cancelled()) {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                phase.set_idle();
                response
            }
        });
        let connection = http1::Builder::new()
            .max_buf_size(MAX_BUFFER_BYTES)
            .max_header_size(MAX_HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let outcome = watcher.watch(connection).await;
        drop(permit);
        Ok(outcome?)
    }

    async fn http2<T>(self, mut stream: TimedStream<T>) -> Result<(), ConnectionFailure>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { router, peer, settings, drain, permit, .. } = self;
        stream.set_multiplexed();
        let progress = StreamProgress::new();
        let service_progress = progress.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (router, pending) = (router.clone(), service_progress.begin_request());
            async move {
                let response = if request.headers().len() > MAX_HEADER_COUNT {
                    let mut refusal = Response::new(Body::empty());
                    *refusal.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                    refusal
                } else {
                    router.oneshot(with_peer(request, peer)).await?
                };
                Ok::<_, std::convert::Infallible>(response.map(|body| pending.respond(body)))
            }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX))
            .max_send_buf_size(MAX_BUFFER_BYTES)
            // Pings detect a vanished peer earlier than the idle timeout.
            .keep_alive_interval(settings.idle_timeout / 3)
            .keep_alive_timeout(settings.header_timeout)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        tokio::select! {
            outcome = connection.as_mut() => {
                drop(permit);
                return Ok(outcome?);
            }
            () = drain.cancelled() => {
                GracefulConnection::graceful_shutdown(connection.as_mut());
                connection.await?;
            }
            reason = progress.wait_until_overdue(settings.idle_timeout) => {
                tracing::debug!(peer = %peer.0, reason, "closing a connection");
                GracefulConnection::graceful_shutdown(connection.as_mut());
                timeout(settings.header_timeout, connection).await??;
            }
        }
        drop(permit);
        Ok(())
    }
}

fn with_peer(request: Request<Incoming>, peer: PeerAddress) -> Request<Body> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(peer);
    request
}
