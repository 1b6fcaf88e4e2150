//! The public listener on real sockets: TLS, HTTP/2, renewed certificates, slow clients, and
//! shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use usher::app::UsherApp;
use usher::config::UsherConfig;
use usher::config::args::ServeArgs;
use usher::shutdown::ShutdownSignal;

use crate::support::certs::CertificateAuthority;
use crate::support::{
    ApiClient, CONCERT, EVENT_TIMEOUT, SCHEDULE, TempDir, TestInstance, TestStores, TestWorld,
    eventually, new_key, new_user,
};

/// One connection of either version.
enum TestConnection {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl TestConnection {
    async fn one(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (send, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self::One(send)
    }

    async fn two(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (send, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self::Two(send)
    }

    /// Sends a request and returns status and body.
    async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> (u16, Value) {
        let uri = match self {
            Self::One(_) => path.to_owned(),
            Self::Two(_) => format!("https://localhost{path}"),
        };
        let mut request = Request::builder().method(method).uri(uri);
        if matches!(self, Self::One(_)) {
            request = request.header("host", "localhost");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Full::default() } else { Full::from(body.to_string()) };
        let request = request.header("content-type", "application/json").body(body).unwrap();
        // The previous connection may have its response and still be closing.
        let answer = match self {
            Self::One(send) => {
                send.ready().await.unwrap();
                send.send_request(request).await
            }
            Self::Two(send) => {
                send.ready().await.unwrap();
                send.send_request(request).await
            }
        };
        let answer = answer.unwrap();
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// Joins, holds a seat, charges and pays.
    async fn buys(&mut self, seat: u32) {
        let user = new_user();
        let joined = format!("/v1/queues/{CONCERT}/tokens");
        let (status, ticket) =
            self.ask("POST", &joined, &[("usher-user", &user)], Value::Null).await;
        assert_eq!(status, 201, "{ticket}");
        let token = ticket["token"].as_str().unwrap().to_owned();
        let poll = format!("/v1/queues/{CONCERT}/tokens/me");
        let deadline = std::time::Instant::now() + EVENT_TIMEOUT;
        while self.ask("GET", &poll, &[("queue-token", &token)], Value::Null).await.1["status"]
            != "active"
        {
            assert!(std::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let hold = json!({"schedule_id": SCHEDULE, "seats": [seat]});
        let (status, held) =
            self.ask("POST", "/v1/reservations", &[("queue-token", &token)], hold).await;
        assert_eq!(status, 201, "{held}");
        let key = new_key();
        let charge = [("usher-user", user.as_str()), ("idempotency-key", &key)];
        assert_eq!(
            self.ask("POST", "/v1/wallet/charges", &charge, json!({"amount": 1_000})).await.0,
            201
        );
        let key = new_key();
        let pay = [("queue-token", token.as_str()), ("idempotency-key", &key)];
        let (status, paid) =
            self.ask("POST", "/v1/payments", &pay, json!({"reservation_id": held["id"]})).await;
        assert_eq!((status, &paid["status"]), (201, &json!("confirmed")), "{paid}");
    }
}

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().unwrap()
}

async fn plain(instance: &TestInstance) -> TcpStream {
    TcpStream::connect(address(&instance.public)).await.unwrap()
}

async fn start_instance(stores: &TestStores, change: impl FnOnce(&mut ServeArgs)) -> TestInstance {
    let mut args = stores.args();
    change(&mut args);
    TestInstance::start_with(&args).await
}

/// Reads to the end of the stream, which must come.
async fn to_end(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end, too.
    let _end = tokio::time::timeout(EVENT_TIMEOUT, stream.read_to_end(&mut bytes))
        .await
        .expect("the connection is closed");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purchase_over_http1_and_http2() {
    let world = TestWorld::start(1).await;
    world.put_show(10, 1_000).await;
    TestConnection::one(plain(&world.instances[0]).await).await.buys(1).await;
    TestConnection::two(plain(&world.instances[0]).await).await.buys(2).await;
    world.stores.wait_until_idle().await;
}

async fn encrypted(
    to: &str,
    authority: &CertificateAuthority,
    protocol: Option<&[u8]>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = usher::tls::client_config(Some(&authority.file)).unwrap();
    config.alpn_protocols = protocol.map(<[u8]>::to_vec).into_iter().collect();
    let stream = TcpStream::connect(address(to)).await.unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purchase_over_tls_survives_a_renewed_certificate() {
    let stores = TestStores::new().await;
    let dir = TempDir::new("it-listener").unwrap();
    let (old, new) = (
        CertificateAuthority::new(dir.path(), "old"),
        CertificateAuthority::new(dir.path(), "new"),
    );
    let files = old.sign(dir.path(), "listener", &["localhost"]);
    let path = |path: &std::path::Path| Some(path.to_str().unwrap().to_owned());
    let instance = start_instance(&stores, |args| {
        args.listen.tls_cert_file = path(&files.chain);
        args.listen.tls_key_file = path(&files.key);
        // This test does not check the speed of a busy machine.
        args.http.idle_timeout_seconds = Some("3600".into());
        args.http.header_timeout_ms = Some("60000".into());
    })
    .await;
    let admin = ApiClient::new(vec![[instance.admin.clone(), instance.admin.clone()]]);
    admin.put(&format!("/admin/queues/{CONCERT}"), &json!({"interval_ms": 100})).await.expect(200);
    let concert = crate::support::world::concert_definition(10, 1_000);
    admin.put(&format!("/admin/concerts/{CONCERT}"), &concert).await.expect(200);

    let to = instance.public.as_str();
    for path in [format!("/v1/queues/{CONCERT}"), format!("/v1/concerts/{CONCERT}")] {
        eventually("the concert is known", || async {
            let mut line = TestConnection::one(encrypted(to, &old, None).await.ok()?).await;
            (line.ask("GET", &path, &[], Value::Null).await.0 == 200).then_some(())
        })
        .await;
    }
    TestConnection::two(encrypted(to, &old, Some(b"h2")).await.unwrap()).await.buys(1).await;
    TestConnection::one(encrypted(to, &old, Some(b"http/1.1")).await.unwrap()).await.buys(2).await;
    // Without ALPN the first bytes decide.
    let mut kept = TestConnection::one(encrypted(to, &old, None).await.unwrap()).await;
    kept.buys(3).await;
    TestConnection::two(encrypted(to, &old, None).await.unwrap()).await.buys(4).await;
    assert!(encrypted(to, &new, None).await.is_err(), "other authorities do not sign it");
    // Plain HTTP gets no response, and a failed handshake does not affect others.
    let mut clear = plain(&instance).await;
    clear.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(!to_end(clear).await.contains("HTTP/1.1 200"));

    // A half-written file: the old certificate stays.
    std::fs::write(&files.chain, "half a certifi").unwrap();
    new.sign(dir.path(), "listener", &["localhost"]);
    eventually("the new certificate is shown", || async { encrypted(to, &new, None).await.ok() })
        .await;
    assert!(encrypted(to, &old, None).await.is_err());
    kept.buys(5).await;
    TestConnection::two(encrypted(to, &new, Some(b"h2")).await.unwrap()).await.buys(6).await;
    instance.stop().await;
}

#[tokio::test]
async fn invalid_certificate_is_reported_at_start() {
    let stores = TestStores::new().await;
    let dir = TempDir::new("it-listener").unwrap();
    let authority = CertificateAuthority::new(dir.path(), "ours");
    let (one, other) =
        (authority.sign(dir.path(), "one", &["a"]), authority.sign(dir.path(), "other", &["a"]));
    let empty = dir.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    for (chain, key) in [(&one.chain, &other.key), (&empty, &one.key), (&one.chain, &empty)] {
        let mut args = stores.args();
        args.listen.tls_cert_file = chain.to_str().map(str::to_owned);
        args.listen.tls_key_file = key.to_str().map(str::to_owned);
        let outcome =
            Box::pin(UsherApp::build(UsherConfig::new(&args).unwrap(), ShutdownSignal::new()))
                .await;
        let error = outcome.err().expect("it must not start").to_string();
        assert!(error.starts_with("TLS: "), "{error}");
    }
}

/// One bad client at each stage: all are disconnected after a while, and others are served
/// meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_and_oversized_clients_are_disconnected_and_others_served() {
    let stores = TestStores::new().await;
    let instance = start_instance(&stores, |args| {
        args.http.header_timeout_ms = Some("1000".into());
        args.http.idle_timeout_seconds = Some("4".into());
        args.http.request_timeout_ms = Some("5000".into());
    })
    .await;
    let send = async |bytes: &[u8]| {
        let mut stream = plain(&instance).await;
        stream.write_all(bytes).await.unwrap();
        stream
    };
    let user = new_user();
    let body = format!(
        "POST /v1/wallet/charges HTTP/1.1\r\nHost: x\r\nUsher-User: {user}\r\nIdempotency-Key: \
             k\r\n\
         Content-Type: application/json\r\nContent-Length: 20\r\n\r\n{{\"am"
    );
    let many = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: a\r\n".repeat(200));
    let long = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(100_000));
    let silent = send(b"").await;
    let half = send(b"GET /healthz HTTP/1.1\r\nHo").await;
    let slow_body = send(body.as_bytes()).await;
    let many = send(many.as_bytes()).await;
    let mut long_sent = plain(&instance).await;
    // The server may close before it has read everything.
    let _ = long_sent.write_all(long.as_bytes()).await;
    let preface = send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;

    let api = ApiClient::new(vec![[instance.public.clone(), instance.admin.clone()]]);
    api.get("/v1/wallet").user(&user).send().await.expect(200);
    for (what, stream) in [("silent", silent), ("half", half), ("preface", preface)] {
        let said = to_end(stream).await;
        assert!(!said.contains("HTTP/1.1"), "{what}: {said}");
    }
    for stream in [many, long_sent] {
        let said = to_end(stream).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "{said}");
    }
    let said = to_end(slow_body).await;
    assert!(said.starts_with("HTTP/1.1 503") && said.contains("overloaded"), "{said}");
    assert_eq!(api.balance(&user).await, 0);
    let metrics =
        api.keyless_admin_call(reqwest::Method::GET, "/metrics").send().await.expect_text(200);
    assert!(metrics.contains("usher_connections "), "{metrics}");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_above_the_address_limit_are_refused_immediately() {
    let stores = TestStores::new().await;
    let instance =
        start_instance(&stores, |args| args.http.max_connections_per_address = Some("3".into()))
            .await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut line = TestConnection::one(plain(&instance).await).await;
        assert_eq!(line.ask("GET", "/healthz", &[], Value::Null).await.0, 200);
        held.push(line);
    }
    let mut fourth = plain(&instance).await;
    let _ = fourth.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(to_end(fourth).await, "");
    for line in &mut held {
        assert_eq!(line.ask("GET", "/healthz", &[], Value::Null).await.0, 200);
    }
    held.pop();
    eventually("a connection is free again", || async {
        let mut stream = plain(&instance).await;
        let asked = stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await;
        (asked.is_ok() && to_end(stream).await.starts_with("HTTP/1.1 200")).then_some(())
    })
    .await;
    let admin = ApiClient::new(vec![[instance.public.clone(), instance.admin.clone()]]);
    let metrics =
        admin.keyless_admin_call(reqwest::Method::GET, "/metrics").send().await.expect_text(200);
    assert!(metrics.contains("usher_connections_refused_total{reason=\"address\"}"), "{metrics}");
}

/// Sends a request on a new connection and returns it with the start of the response.
async fn begin(instance: &TestInstance, path: &str, token: &str) -> (TcpStream, String) {
    let mut stream = plain(instance).await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nQueue-Token: {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = vec![0; 4096];
    let reading = tokio::time::timeout(EVENT_TIMEOUT, stream.read(&mut bytes));
    let count = reading.await.expect("the instance responds").unwrap();
    (stream, String::from_utf8_lossy(&bytes[..count]).into_owned())
}

fn assert_refused(response: &str) {
    assert!(response.starts_with("HTTP/1.1 503") && response.contains("overloaded"), "{response}");
    for header in ["retry-after: ", "connection: close"] {
        assert!(response.contains(header), "{header}: {response}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_leave_connections_for_payments() {
    let stores = TestStores::new().await;
    let mut args = stores.args();
    // So 16 streams.
    args.http.max_connections = Some("20".into());
    let world = TestWorld::with_args(stores, &[args]).await;
    world.put_show(10, 1_000).await;
    let events = format!("/v1/queues/{CONCERT}/tokens/me/events");
    let instance = &world.instances[0];

    let mut streams = Vec::new();
    while streams.len() < 16 {
        let user = world.api.join_new_user(CONCERT).await;
        for _ in 0..3.min(16 - streams.len()) {
            let (stream, response) = begin(instance, &events, &user.token).await;
            assert!(response.starts_with("HTTP/1.1 200"), "{response}");
            streams.push(stream);
        }
        if streams.len() == 3 {
            let (_, response) = begin(instance, &events, &user.token).await;
            assert_refused(&response);
            assert!(response.contains("The user has too many"), "{response}");
        }
    }
    let user = world.api.join_new_user(CONCERT).await;
    let (refused, response) = begin(instance, &events, &user.token).await;
    assert_refused(&response);
    assert!(response.contains("The instance has too many"), "{response}");
    assert_eq!(to_end(refused).await, "", "the connection is free for others");

    let mut other = TestConnection::one(plain(instance).await).await;
    assert_eq!(other.ask("GET", "/readyz", &[], Value::Null).await.0, 200);
    other.buys(1).await;

    streams.pop();
    let again = eventually("a stream is free", async || {
        let (stream, response) = begin(instance, &events, &user.token).await;
        response.starts_with("HTTP/1.1 200").then_some(stream)
    })
    .await;
    streams.push(again);

    // Further connections get an answer even when idle ones use the rest.
    let (refused, response) = loop {
        let (stream, response) = begin(instance, "/v1/concerts", "").await;
        if !response.starts_with("HTTP/1.1 200") {
            break (stream, response);
        }
        streams.push(stream);
        assert!(streams.len() <= 20, "there are at most 20 connections");
    };
    assert_refused(&response);
    assert_eq!(to_end(refused).await, "");
    let (_, response) = begin(instance, "/healthz", "").await;
    assert!(response.starts_with("HTTP/1.1 200"), "a full instance is alive: {response}");
    let metrics = world.api.keyless_admin_call(reqwest::Method::GET, "/metrics");
    let metrics = metrics.send().await.expect_text(200);
    for counted in [
        "usher_streams ",
        "usher_streams_refused_total{limit=\"user\"}",
        "usher_streams_refused_total{limit=\"total\"}",
        "usher_connections_refused_total{reason=\"total\"}",
    ] {
        assert!(metrics.contains(counted), "{counted} is missing");
    }
}
