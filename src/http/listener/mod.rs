//! The accept loop: how many connections there are, how slowly they may speak, and how they end.
//!
//! `axum::serve` arms no timers, so a client that sends half a header would hold its slot for ever. Here each stage has a bound: the
//! count of connections, the size and time of headers, the idle time, stalled writes (`stall`), and, in `layers`, the body and the
//! request as a whole. The socket and the shutdown are handed in.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::peer::Peer;
use super::stall::{Phase, Watched};
use crate::shutdown::Shutdown;

/// After a failed accept (no file descriptor is left, mostly) trying again at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The longest request line and headers, in bytes.
const HEADER_BYTES: usize = 16 * 1024;
/// What hyper reads ahead, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// Bounds on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Connections that stand at once; further ones wait in the kernel's backlog.
    pub max_connections: usize,
    /// From the first byte of a request to the last of its headers; also how long a write may make no progress.
    pub header_timeout: Duration,
    /// How long a connection may stand without a request. Longer than the minute for which load balancers keep theirs, so that
    /// they close first and never send into a closed one.
    pub idle_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_connections: 25_000,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
        }
    }
}

/// Serves `router` on `listener` until the shutdown drains, then lets requests in flight finish, and returns when none is left or when
/// the shutdown stops, which cuts them.
pub async fn serve(listener: TcpListener, router: Router, settings: Settings, shutdown: Shutdown) {
    let slots = Arc::new(Semaphore::new(settings.max_connections));
    let graceful = GracefulShutdown::new();
    let accepting = async {
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let quiet = shutdown.quiet_token().clone();
                    let connection =
                        Connection { router: router.clone(), peer: Peer(peer), settings, quiet, slot };
                    tokio::spawn(connection.run(stream, graceful.watcher(), shutdown.stop_token().clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    shutdown.drain_token().run_until_cancelled(accepting).await;
    drop(listener);
    shutdown.stop_token().run_until_cancelled(graceful.shutdown()).await;
}

struct Connection {
    router: Router,
    peer: Peer,
    settings: Settings,
    /// From then on each answer says that it is the connection's last, so that no client is about to ask when the drain closes what is idle.
    quiet: CancellationToken,
    /// Held as long as the connection stands.
    slot: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, stream: TcpStream, watcher: Watcher, cut: CancellationToken) {
        let Self { router, peer, settings, quiet, slot } = self;
        // Answers are small and complete: waiting to fill a segment would only add latency.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let phase = Phase::default();
        let stream = TokioIo::new(Watched::new(stream, phase.clone(), settings.header_timeout));
        let service = service_fn(move |request: Request<Incoming>| {
            phase.answering();
            let (router, phase, quiet) = (router.clone(), phase.clone(), quiet.clone());
            async move {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(peer);
                let mut response = router.oneshot(request).await;
                if let (Ok(response), true) = (&mut response, quiet.is_cancelled()) {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                phase.answered();
                response
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(settings.idle_timeout)
            .max_buf_size(BUFFER_BYTES)
            .max_header_size(HEADER_BYTES)
            .serve_connection(stream, service);
        // Broken connections are the clients' affair: worth a look when one asks for it, not a line each.
        if let Some(Err(error)) = cut.run_until_cancelled_owned(watcher.watch(connection)).await {
            tracing::debug!(%error, peer = %peer.0, "a connection broke");
        }
        drop(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::Extension;
    use axum::routing::{get, post};
    use std::net::SocketAddr;
    use std::time::Instant;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(600);
    const REQUEST: &[u8] = b"GET /peer HTTP/1.1\r\nHost: x\r\n\r\n";

    fn settings(header_timeout: Duration, idle_timeout: Duration) -> Settings {
        Settings { max_connections: 2, header_timeout, idle_timeout }
    }

    struct Server {
        address: SocketAddr,
        shutdown: Shutdown,
        task: JoinHandle<()>,
        /// Lets `/held` answer.
        release: Arc<Notify>,
        /// Says that `/held` was reached.
        reached: Arc<Notify>,
    }

    async fn start(settings: Settings) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (release, reached) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let held = (release.clone(), reached.clone());
        let router = Router::new()
            .route("/peer", get(|Extension(Peer(peer)): Extension<Peer>| async move { peer.to_string() }))
            .route("/long", get(|| async { vec![b'x'; 64 << 20] }))
            .route("/body", post(|body: String| async move { body }))
            .route(
                "/held",
                get(move || async move {
                    held.1.notify_one();
                    held.0.notified().await;
                    "done"
                }),
            );
        let shutdown = Shutdown::new();
        let task = tokio::spawn(serve(listener, router, settings, shutdown.clone()));
        Server { address, shutdown, task, release, reached }
    }

    async fn connect(server: &Server, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    /// Everything up to the end of the connection, which must come.
    async fn to_end(mut stream: TcpStream) -> String {
        let mut bytes = Vec::new();
        let reading = stream.read_to_end(&mut bytes);
        // A reset is an end as well.
        let _end = tokio::time::timeout(Duration::from_secs(20), reading).await.expect("the server closes");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// One answer of a connection that stays open.
    async fn one_answer(stream: &mut TcpStream) -> String {
        let mut bytes = vec![0; 4096];
        let count =
            tokio::time::timeout(Duration::from_secs(20), stream.read(&mut bytes)).await.unwrap().unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    #[tokio::test]
    async fn a_quiet_listener_takes_connections_and_lets_each_go_with_its_answer() {
        let server = start(settings(LONG, LONG)).await;
        let mut before = connect(&server, REQUEST).await;
        assert!(!one_answer(&mut before).await.contains("connection: close"));
        server.shutdown.quiet_token().cancel();
        before.write_all(REQUEST).await.unwrap();
        for stream in [before, connect(&server, REQUEST).await] {
            let said = to_end(stream).await;
            assert!(said.starts_with("HTTP/1.1 200") && said.contains("connection: close"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_connection_serves_many_requests_and_knows_its_peer() {
        let server = start(settings(LONG, LONG)).await;
        let mut stream = connect(&server, REQUEST).await;
        let own = stream.local_addr().unwrap().to_string();
        assert!(one_answer(&mut stream).await.ends_with(&own));
        stream.write_all(REQUEST).await.unwrap();
        assert!(one_answer(&mut stream).await.ends_with(&own));
    }

    #[tokio::test]
    async fn slow_headers_end_the_connection() {
        let server = start(settings(SHORT, LONG)).await;
        assert_eq!(to_end(connect(&server, b"GET /peer HTTP/1.1\r\nHost:").await).await, "");
        // A byte now and then is no excuse.
        let mut stream = connect(&server, b"GET /peer HTTP/1.1\r\n").await;
        let started = Instant::now();
        while stream.write_all(b"a").await.is_ok() {
            assert!(started.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The second request of a connection is watched like the first.
        let mut stream = connect(&server, REQUEST).await;
        one_answer(&mut stream).await;
        stream.write_all(b"GET").await.unwrap();
        assert_eq!(to_end(stream).await, "");
    }

    #[tokio::test]
    async fn an_idle_connection_may_stand_longer_than_slow_headers_but_not_for_ever() {
        let server = start(settings(SHORT, 20 * SHORT)).await;
        let mut stream = connect(&server, REQUEST).await;
        one_answer(&mut stream).await;
        tokio::time::sleep(3 * SHORT).await;
        stream.write_all(REQUEST).await.unwrap();
        assert!(one_answer(&mut stream).await.starts_with("HTTP/1.1 200"));
        assert_eq!(to_end(stream).await, "");
        assert_eq!(to_end(connect(&server, b"").await).await, "");
    }

    #[tokio::test]
    async fn a_slow_body_is_not_taken_for_slow_headers() {
        let server = start(settings(SHORT, LONG)).await;
        let mut stream =
            connect(&server, b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc").await;
        tokio::time::sleep(3 * SHORT).await;
        stream.write_all(b"def").await.unwrap();
        assert!(one_answer(&mut stream).await.ends_with("abcdef"));
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_cut() {
        let server = start(settings(SHORT, LONG)).await;
        let stream = connect(&server, b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n").await;
        tokio::time::sleep(10 * SHORT).await;
        assert!(to_end(stream).await.len() < 64 << 20);
    }

    #[tokio::test]
    async fn headers_are_bounded() {
        let server = start(settings(LONG, LONG)).await;
        let long = format!("GET /peer HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(HEADER_BYTES));
        let many = format!("GET /peer HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: a\r\n".repeat(200));
        for request in [long, many] {
            let answer = to_end(connect(&server, request.as_bytes()).await).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
        }
    }

    #[tokio::test]
    async fn connections_above_the_cap_wait_for_a_slot() {
        let server = start(settings(LONG, LONG)).await;
        let mut first = connect(&server, REQUEST).await;
        let mut second = connect(&server, REQUEST).await;
        one_answer(&mut first).await;
        one_answer(&mut second).await;
        let mut third = connect(&server, REQUEST).await;
        let mut byte = [0];
        assert!(tokio::time::timeout(2 * SHORT, third.read(&mut byte)).await.is_err(), "no slot is free");
        drop(first);
        assert!(one_answer(&mut third).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn draining_finishes_what_is_in_flight_and_accepts_nothing_new() {
        let server = start(settings(LONG, LONG)).await;
        let idle = connect(&server, b"").await;
        let busy = connect(&server, b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n").await;
        server.reached.notified().await;
        server.shutdown.drain_token().cancel();
        assert_eq!(to_end(idle).await, "");
        assert!(TcpStream::connect(server.address).await.is_err());
        assert!(!server.task.is_finished());
        server.release.notify_one();
        let answer = to_end(busy).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
        server.task.await.unwrap();
    }

    #[tokio::test]
    async fn the_deadline_cuts_what_does_not_finish() {
        let server = start(settings(LONG, LONG)).await;
        let busy = connect(&server, b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n").await;
        server.reached.notified().await;
        server.shutdown.drain_token().cancel();
        server.shutdown.stop();
        server.task.await.unwrap();
        assert_eq!(to_end(busy).await, "");
    }
}
