//! A small HTTP client for simulated users.

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

/// Concurrent requests of all users together.
const MAX_CONCURRENT_REQUESTS: usize = 64;
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);
/// Attempts of one call that is refused with 429 or 503, or has no response.
const MAX_ATTEMPTS: u32 = 6;
const MAX_RETRY_SECONDS: u64 = 10;
const MAX_RESPONSE_BYTES: usize = 1 << 20;

#[derive(Clone)]
pub(super) struct SimulatedClient {
    http: hyper_util::client::legacy::Client<HttpConnector, Body>,
    base: String,
    permits: Arc<Semaphore>,
}

/// A response; status 0 means that there was none.
pub(super) struct ClientResponse {
    pub(super) status: u16,
    pub(super) body: Value,
    retry_after: Option<u64>,
}

impl ClientResponse {
    pub(super) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// A request under construction.
pub(super) struct ClientRequest<'a> {
    client: &'a SimulatedClient,
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Value>,
}

impl SimulatedClient {
    pub(super) fn new(address: SocketAddr) -> Self {
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(MAX_CONCURRENT_REQUESTS)
            .build(HttpConnector::new());
        Self {
            http,
            base: format!("http://{address}"),
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT_REQUESTS)),
        }
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

    /// Sends the request. Repeats it after 429, 503 or a lost response: every call is idempotent.
    pub(super) async fn send(&self) -> ClientResponse {
        let mut attempts_left = MAX_ATTEMPTS;
        loop {
            let response = self.send_once().await;
            attempts_left -= 1;
            if attempts_left == 0 || !matches!(response.status, 0 | 429 | 503) {
                return response;
            }
            let seconds = response.retry_after.unwrap_or(1).clamp(1, MAX_RETRY_SECONDS);
            let jitter = rand::random_range(1.0..1.5);
            tokio::time::sleep(Duration::from_secs(seconds).mul_f64(jitter)).await;
        }
    }

    async fn send_once(&self) -> ClientResponse {
        let none = ClientResponse { status: 0, body: Value::Null, retry_after: None };
        let Ok(_permit) = self.client.permits.acquire().await else { return none };
        let Ok(request) = self.request() else { return none };
        let exchange = async {
            let response = self.client.http.request(request).await.ok()?;
            let status = response.status().as_u16();
            let retry_after = response.headers().get(RETRY_AFTER);
            let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
            let bytes = to_bytes(Body::new(response.into_body()), MAX_RESPONSE_BYTES).await.ok()?;
            Some(ClientResponse {
                status,
                retry_after,
                body: serde_json::from_slice(&bytes).unwrap_or_default(),
            })
        };
        tokio::time::timeout(RESPONSE_TIMEOUT, exchange).await.ok().flatten().unwrap_or(none)
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
