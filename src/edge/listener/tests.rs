//! Tests of the listener over real sockets.

use super::connection::MAX_HEADER_BYTES;
use super::http2_streams::MAX_CONCURRENT_STREAMS;
use super::*;
use axum::extract::Extension;
use axum::http::StatusCode;
use axum::routing::{get, post};
use std::net::SocketAddr;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Long enough to read a complete request on a busy machine.
const SHORT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(600);
const REQUEST: &[u8] = b"GET /peer HTTP/1.1\r\nHost: x\r\n\r\n";
const CLOSING_REQUEST: &[u8] = b"GET /peer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

fn settings(header_timeout: Duration, idle_timeout: Duration) -> ListenerSettings {
    ListenerSettings { max_connections: 2, max_per_address: 0, header_timeout, idle_timeout }
}

struct TestServer {
    address: SocketAddr,
    shutdown: ShutdownSignal,
    task: JoinHandle<()>,
    /// Lets `/held` respond.
    release: Arc<Notify>,
    /// Signals a request to `/held`.
    reached: Arc<Notify>,
}

async fn start(settings: ListenerSettings) -> TestServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (release, reached) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let held = (release.clone(), reached.clone());
    let router =
        Router::new()
            .route(
                "/peer",
                get(|Extension(PeerAddress(peer)): Extension<PeerAddress>| async move {
                    peer.to_string()
                }),
            )
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
    let overflow = Router::new().fallback(|| async { StatusCode::SERVICE_UNAVAILABLE });
    let shutdown = ShutdownSignal::new();
    let task = tokio::spawn(serve(listener, router, overflow, settings, None, shutdown.clone()));
    TestServer { address, shutdown, task, release, reached }
}

async fn connect(server: &TestServer, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Reads until the server closes the connection.
async fn to_end(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let reading = stream.read_to_end(&mut bytes);
    // A reset counts as closed.
    let _end =
        tokio::time::timeout(Duration::from_secs(60), reading).await.expect("the server closes");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads one response of a connection that stays open.
async fn one_response(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4096];
    let count = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

#[tokio::test]
async fn quiet_listener_accepts_connections_and_closes_each_after_its_response() {
    let server = start(settings(LONG, LONG)).await;
    let mut before = connect(&server, REQUEST).await;
    assert!(!one_response(&mut before).await.contains("connection: close"));
    server.shutdown.quiet_token().cancel();
    before.write_all(REQUEST).await.unwrap();
    for stream in [before, connect(&server, REQUEST).await] {
        let response = to_end(stream).await;
        assert!(
            response.starts_with("HTTP/1.1 200") && response.contains("connection: close"),
            "{response}"
        );
    }
}

#[tokio::test]
async fn connection_serves_many_requests_and_knows_its_peer() {
    let server = start(settings(LONG, LONG)).await;
    let mut stream = connect(&server, REQUEST).await;
    let own = stream.local_addr().unwrap().to_string();
    assert!(one_response(&mut stream).await.ends_with(&own));
    stream.write_all(REQUEST).await.unwrap();
    assert!(one_response(&mut stream).await.ends_with(&own));
}

#[tokio::test]
async fn slow_headers_end_the_connection() {
    let server = start(settings(SHORT, LONG)).await;
    assert_eq!(to_end(connect(&server, b"GET /peer HTTP/1.1\r\nHost:").await).await, "");
    // Single bytes do not restart the timeout.
    let mut stream = connect(&server, b"GET /peer HTTP/1.1\r\n").await;
    let started = Instant::now();
    while stream.write_all(b"a").await.is_ok() {
        assert!(started.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The timeout covers the second request of a connection as well.
    let mut stream = connect(&server, REQUEST).await;
    one_response(&mut stream).await;
    stream.write_all(b"GET").await.unwrap();
    assert_eq!(to_end(stream).await, "");
}

#[tokio::test]
async fn idle_connection_is_closed_after_the_idle_timeout_only() {
    let idle = 8 * SHORT;
    let server = start(settings(SHORT, idle)).await;
    loop {
        let started = Instant::now();
        let mut stream = connect(&server, REQUEST).await;
        one_response(&mut stream).await;
        tokio::time::sleep(2 * SHORT).await;
        let sent = stream.write_all(REQUEST).await.is_ok();
        // Repeat when the machine paused for too long.
        if started.elapsed() < idle / 2 {
            assert!(sent && one_response(&mut stream).await.starts_with("HTTP/1.1 200"));
            assert_eq!(to_end(stream).await, "");
            break;
        }
    }
    assert_eq!(to_end(connect(&server, b"").await).await, "");
}

#[tokio::test]
async fn used_connection_outlives_the_idle_timeout() {
    let idle = 4 * SHORT;
    let server = start(settings(LONG, idle)).await;
    'retry: loop {
        let mut stream = connect(&server, b"").await;
        for _ in 0..10 {
            let started = Instant::now();
            let sent = stream.write_all(REQUEST).await.is_ok();
            let response = if sent { one_response(&mut stream).await } else { String::new() };
            tokio::time::sleep(SHORT).await;
            // Repeat when the machine paused for too long.
            if started.elapsed() > idle / 2 {
                continue 'retry;
            }
            assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        }
        break;
    }
}

#[tokio::test]
async fn slow_body_is_not_limited_by_the_header_timeout() {
    let server = start(settings(SHORT, LONG)).await;
    let mut stream =
        connect(&server, b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc").await;
    tokio::time::sleep(3 * SHORT).await;
    stream.write_all(b"def").await.unwrap();
    assert!(one_response(&mut stream).await.ends_with("abcdef"));
}

#[tokio::test]
async fn client_that_does_not_read_is_disconnected() {
    let server = start(ListenerSettings { max_connections: 1, ..settings(SHORT, LONG) }).await;
    let stream = connect(&server, b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n").await;
    // Its permit is free once it is disconnected.
    while !to_end(connect(&server, CLOSING_REQUEST).await).await.starts_with("HTTP/1.1 200") {
        tokio::time::sleep(SHORT / 10).await;
    }
    assert!(to_end(stream).await.len() < 64 << 20);
}

#[tokio::test]
async fn headers_are_limited() {
    let server = start(settings(LONG, LONG)).await;
    let long =
        format!("GET /peer HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(MAX_HEADER_BYTES));
    let many = format!("GET /peer HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: a\r\n".repeat(200));
    for request in [long, many] {
        let response = to_end(connect(&server, request.as_bytes()).await).await;
        assert!(response.is_empty() || response.starts_with("HTTP/1.1 431"), "{response}");
    }
}

#[tokio::test]
async fn connections_above_the_limit_get_one_503() {
    let server = start(settings(LONG, LONG)).await;
    let mut first = connect(&server, REQUEST).await;
    let mut second = connect(&server, REQUEST).await;
    one_response(&mut first).await;
    one_response(&mut second).await;
    for _ in 0..3 {
        let response = to_end(connect(&server, REQUEST).await).await;
        assert!(response.starts_with("HTTP/1.1 503"), "{response}");
        assert!(response.contains("connection: close"), "{response}");
    }
    drop(first);
    while !to_end(connect(&server, CLOSING_REQUEST).await).await.starts_with("HTTP/1.1 200") {
        tokio::time::sleep(SHORT / 10).await;
    }
}

#[tokio::test]
async fn draining_finishes_requests_in_flight_and_accepts_no_connections() {
    let server = start(settings(LONG, LONG)).await;
    let idle = connect(&server, b"").await;
    let busy = connect(&server, b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n").await;
    server.reached.notified().await;
    server.shutdown.drain_token().cancel();
    assert_eq!(to_end(idle).await, "");
    assert!(TcpStream::connect(server.address).await.is_err());
    assert!(!server.task.is_finished());
    server.release.notify_one();
    let response = to_end(busy).await;
    assert!(response.starts_with("HTTP/1.1 200") && response.ends_with("done"), "{response}");
    server.task.await.unwrap();
}

#[tokio::test]
async fn deadline_cuts_unfinished_requests() {
    let server = start(settings(LONG, LONG)).await;
    let busy = connect(&server, b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n").await;
    server.reached.notified().await;
    server.shutdown.drain_token().cancel();
    server.shutdown.stop();
    server.task.await.unwrap();
    assert_eq!(to_end(busy).await, "");
}

type RequestTask = hyper::client::conn::http2::SendRequest<http_body_util::Empty<bytes::Bytes>>;

/// Connects with HTTP/2. The second result ends with the connection.
async fn http2(server: &TestServer) -> (RequestTask, JoinHandle<Result<(), hyper::Error>>) {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (client, connection) =
        hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(stream))
            .await
            .unwrap();
    (client, tokio::spawn(connection))
}

fn get_of(path: &str) -> hyper::Request<http_body_util::Empty<bytes::Bytes>> {
    hyper::Request::get(format!("http://x{path}")).body(http_body_util::Empty::new()).unwrap()
}

/// Waits until the server closes the connection.
async fn wait_until_closed(connection: JoinHandle<Result<(), hyper::Error>>) {
    // A graceful close and a reset both count.
    let _end =
        tokio::time::timeout(Duration::from_secs(60), connection).await.expect("the server closes");
}

#[tokio::test]
async fn http2_is_detected_by_its_first_bytes() {
    let server = start(settings(LONG, LONG)).await;
    let (mut client, _connection) = http2(&server).await;
    let many = (0..50).map(|_| client.send_request(get_of("/peer")));
    let many: Vec<_> = many.collect();
    for response in futures::future::join_all(many).await {
        assert_eq!(response.unwrap().status(), 200);
    }
    // The bytes may arrive one by one. A different continuation is HTTP/1.1.
    let mut stream = connect(&server, b"P").await;
    tokio::time::sleep(SHORT).await;
    stream.write_all(b"OST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx").await.unwrap();
    assert!(one_response(&mut stream).await.ends_with('x'));
}

#[tokio::test]
async fn http2_has_the_header_limits_of_http1() {
    let server = start(settings(LONG, LONG)).await;
    let (mut client, _connection) = http2(&server).await;
    let mut many = get_of("/peer");
    for number in 0..200 {
        many.headers_mut().insert(
            hyper::header::HeaderName::try_from(format!("a{number}")).unwrap(),
            "a".parse().unwrap(),
        );
    }
    assert_eq!(client.send_request(many).await.unwrap().status(), 431);
    let mut long = get_of("/peer");
    long.headers_mut().insert("a", "a".repeat(MAX_HEADER_BYTES).parse().unwrap());
    let response = client.send_request(long).await;
    assert!(response.as_ref().map_or(true, |response| response.status() == 431), "{response:?}");
    let (mut client, _connection) = http2(&server).await;
    assert_eq!(client.send_request(get_of("/peer")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn idle_or_slow_http2_connection_is_closed() {
    let server = start(settings(4 * SHORT, 8 * SHORT)).await;
    let (mut client, connection) = http2(&server).await;
    assert_eq!(client.send_request(get_of("/peer")).await.unwrap().status(), 200);
    wait_until_closed(connection).await;
    let begun = connect(&server, b"PRI * HTTP/2.0\r\n\r\nSM").await;
    // An incomplete preface is handled as HTTP/1.1, which refuses the version.
    let response = to_end(begun).await;
    assert!(response.is_empty() || response.starts_with("HTTP/1.1 400"), "{response}");
    // A client that never reads a response is disconnected.
    let (mut client, connection) = http2(&server).await;
    let response = client.send_request(get_of("/long")).await.unwrap();
    wait_until_closed(connection).await;
    drop(response);
}

#[tokio::test]
async fn client_that_resets_its_requests_is_disconnected() {
    let server = start(settings(LONG, LONG)).await;
    let (client, connection) = http2(&server).await;
    for _ in 0..20 {
        let mut client = client.clone();
        if client.ready().await.is_err() {
            break;
        }
        let requests: Vec<_> =
            (0..MAX_CONCURRENT_STREAMS / 2).map(|_| client.send_request(get_of("/held"))).collect();
        // Wait until the server has the requests, unless it already refuses them.
        let _ = tokio::time::timeout(2 * SHORT, server.reached.notified()).await;
        drop(requests);
    }
    wait_until_closed(connection).await;
    let mut fresh = http2(&server).await.0;
    assert_eq!(fresh.send_request(get_of("/peer")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn draining_finishes_http2_requests_in_flight() {
    let server = start(settings(LONG, LONG)).await;
    let (_idle_client, idle) = http2(&server).await;
    let (mut client, connection) = http2(&server).await;
    let busy = tokio::spawn(client.send_request(get_of("/held")));
    server.reached.notified().await;
    server.shutdown.drain_token().cancel();
    wait_until_closed(idle).await;
    assert!(!server.task.is_finished());
    server.release.notify_one();
    assert_eq!(busy.await.unwrap().unwrap().status(), 200);
    wait_until_closed(connection).await;
    server.task.await.unwrap();
}

#[tokio::test]
async fn one_address_has_its_maximum_of_connections() {
    let server =
        start(ListenerSettings { max_connections: 5, max_per_address: 1, ..settings(LONG, LONG) })
            .await;
    let mut first = connect(&server, REQUEST).await;
    one_response(&mut first).await;
    let second = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(to_end(second).await, "");
    drop(first);
    // The server notices the close asynchronously.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut again = TcpStream::connect(server.address).await.unwrap();
        let mut bytes = [0; 12];
        let sent = again.write_all(REQUEST).await;
        if sent.is_ok() && again.read_exact(&mut bytes).await.is_ok() {
            assert_eq!(&bytes, b"HTTP/1.1 200");
            return;
        }
        assert!(Instant::now() < deadline);
        tokio::time::sleep(SHORT / 10).await;
    }
}
