//! The little of HTTP that the crowd needs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::request::Builder;
use axum::http::{Method, Request};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::sync::Semaphore;

/// Requests under way at once: a crowd of thousands needs no thousands of connections.
const AT_ONCE: usize = 64;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a refusal that says «later» is asked again, and the longest such wait.
const TRIES: u32 = 6;
const LONGEST_PAUSE: u64 = 10;
/// The longest answer, in bytes.
const LONGEST: usize = 1 << 20;

/// Calls one listener.
#[derive(Clone)]
pub(super) struct SimulatedClient {
    http: hyper_util::client::legacy::Client<HttpConnector, Body>,
    base: String,
    under_way: Arc<Semaphore>,
}

/// What was answered; status 0 is none.
pub(super) struct ClientResponse {
    pub(super) status: u16,
    pub(super) body: Value,
    later: Option<u64>,
}

impl ClientResponse {
    pub(super) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// A call that is being written.
pub(super) struct ClientRequest<'a> {
    client: &'a SimulatedClient,
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Value>,
}

impl SimulatedClient {
    pub(super) fn new(at: SocketAddr) -> Self {
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(AT_ONCE)
            .build(HttpConnector::new());
        Self { http, base: format!("http://{at}"), under_way: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    fn call(&self, method: Method, path: impl Into<String>) -> ClientRequest<'_> {
        ClientRequest { client: self, method, path: path.into(), headers: Vec::new(), body: None }
    }

    pub(super) fn get(&self, path: impl Into<String>) -> ClientRequest<'_> {
        self.call(Method::GET, path)
    }

    pub(super) fn post(&self, path: impl Into<String>) -> ClientRequest<'_> {
        self.call(Method::POST, path)
    }

    pub(super) fn delete(&self, path: impl Into<String>) -> ClientRequest<'_> {
        self.call(Method::DELETE, path)
    }
}

impl ClientRequest<'_> {
    pub(super) fn user(self, user: &str) -> Self {
        self.header("usher-user", user)
    }

    pub(super) fn token(self, token: &str) -> Self {
        self.header("queue-token", token)
    }

    pub(super) fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    pub(super) fn json(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// One answer. Refusals that ask for patience get it, a few times; so do answers that were lost, since every call can be repeated.
    pub(super) async fn send(&self) -> ClientResponse {
        let mut left = TRIES;
        loop {
            let answer = self.once().await;
            left -= 1;
            if left == 0 || !matches!(answer.status, 0 | 429 | 503) {
                return answer;
            }
            let pause = Duration::from_secs(answer.later.unwrap_or(1).clamp(1, LONGEST_PAUSE));
            tokio::time::sleep(pause.mul_f64(rand::random_range(1.0..1.5))).await;
        }
    }

    async fn once(&self) -> ClientResponse {
        let none = ClientResponse { status: 0, body: Value::Null, later: None };
        let Ok(_turn) = self.client.under_way.acquire().await else { return none };
        let Ok(request) = self.request() else { return none };
        let work = async {
            let response = self.client.http.request(request).await.ok()?;
            let status = response.status().as_u16();
            let later = response.headers().get(RETRY_AFTER);
            let later = later.and_then(|value| value.to_str().ok()?.parse().ok());
            let bytes = to_bytes(Body::new(response.into_body()), LONGEST).await.ok()?;
            Some(ClientResponse {
                status,
                later,
                body: serde_json::from_slice(&bytes).unwrap_or_default(),
            })
        };
        tokio::time::timeout(PATIENCE, work).await.ok().flatten().unwrap_or(none)
    }

    fn request(&self) -> Result<Request<Body>, axum::http::Error> {
        let builder: Builder = Request::builder()
            .method(&self.method)
            .uri(format!("{}{}", self.client.base, self.path));
        let builder = self
            .headers
            .iter()
            .fold(builder, |builder, (name, value)| builder.header(*name, value));
        match &self.body {
            None => builder.body(Body::empty()),
            Some(body) => {
                builder.header(CONTENT_TYPE, "application/json").body(Body::from(body.to_string()))
            }
        }
    }
}
