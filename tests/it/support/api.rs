//! A client for the HTTP API, for one instance or for several in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::servers::ADMIN_KEY;
use super::{new_key, new_user};

/// Cheap to clone. Every request goes to the next instance.
#[derive(Clone)]
pub(crate) struct ApiClient {
    http: reqwest::Client,
    instances: Arc<Vec<[String; 2]>>,
    next: Arc<AtomicUsize>,
}

/// A user with a place in the queue, and their queue token.
#[derive(Debug, Clone)]
pub(crate) struct TestUser {
    pub(crate) user: String,
    pub(crate) token: String,
}

pub(crate) struct ApiRequest(RequestBuilder);

#[derive(Debug, Clone)]
pub(crate) struct ApiResponse {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) body: Value,
}

impl ApiClient {
    /// One entry per instance: its public and its admin address.
    pub(crate) fn new(instances: Vec<[String; 2]>) -> Self {
        let http = reqwest::Client::builder().timeout(super::EVENT_TIMEOUT).build().unwrap();
        Self { http, instances: Arc::new(instances), next: Arc::default() }
    }

    /// A client for one of the instances.
    pub(crate) fn for_instance(&self, at: usize) -> Self {
        Self::new(vec![self.instances[at].clone()])
    }

    pub(crate) fn instances(&self) -> usize {
        self.instances.len()
    }

    pub(crate) fn public(&self) -> &str {
        &self.turn()[0]
    }

    pub(crate) fn admin(&self) -> &str {
        &self.turn()[1]
    }

    fn turn(&self) -> &[String; 2] {
        &self.instances[self.next.fetch_add(1, Ordering::Relaxed) % self.instances.len()]
    }

    pub(crate) fn call(&self, method: Method, path: &str) -> ApiRequest {
        ApiRequest(self.http.request(method, format!("{}{path}", self.public())))
    }

    /// A request to the admin listener, with the admin key.
    pub(crate) fn admin_call(&self, method: Method, path: &str) -> ApiRequest {
        self.keyless_admin_call(method, path)
            .header("authorization", &format!("Bearer {ADMIN_KEY}"))
    }

    /// A request to the admin listener without the admin key.
    pub(crate) fn keyless_admin_call(&self, method: Method, path: &str) -> ApiRequest {
        ApiRequest(self.http.request(method, format!("{}{path}", self.admin())))
    }

    pub(crate) fn get(&self, path: &str) -> ApiRequest {
        self.call(Method::GET, path)
    }

    pub(crate) fn post(&self, path: &str) -> ApiRequest {
        self.call(Method::POST, path)
    }

    pub(crate) fn delete(&self, path: &str) -> ApiRequest {
        self.call(Method::DELETE, path)
    }

    /// Creates or changes an object through the admin API.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> ApiResponse {
        self.admin_call(Method::PUT, path).json(body).send().await
    }

    pub(crate) async fn join(&self, queue: &str, user: &str) -> ApiResponse {
        self.post(&format!("/v1/queues/{queue}/tokens")).user(user).send().await
    }

    /// A new user with a place in the queue, waiting or active.
    pub(crate) async fn join_new_user(&self, queue: &str) -> TestUser {
        let user = new_user();
        let ticket = self.join(queue, &user).await.expect(201);
        TestUser { token: ticket["token"].as_str().unwrap().to_owned(), user }
    }

    /// A new user who is active.
    pub(crate) async fn active_user(&self, queue: &str) -> TestUser {
        let guest = self.join_new_user(queue).await;
        self.wait_until_active(queue, &guest).await;
        guest
    }

    /// Waits until a user is active and returns the ticket. Another instance may report it later,
    /// because it answers from a snapshot that is up to 250 ms old.
    pub(crate) async fn wait_until_active(&self, queue: &str, guest: &TestUser) -> Value {
        super::eventually("the guest is let in", || async {
            let ticket = self.poll(queue, &guest.token).await.expect(200);
            (ticket["status"] == "active").then_some(ticket)
        })
        .await
    }

    /// Waits until a token is refused as expired. As in [`Self::wait_until_active`], one instance
    /// may know it before another.
    pub(crate) async fn wait_until_expired(&self, queue: &str, token: &str) {
        super::eventually("the token is refused", || async {
            let answer = self.poll(queue, token).await;
            (answer.status != 200).then(|| answer.problem(410, "queue_token_expired"))
        })
        .await;
    }

    /// Polls the position of a token.
    pub(crate) async fn poll(&self, queue: &str, token: &str) -> ApiResponse {
        self.get(&format!("/v1/queues/{queue}/tokens/me")).token(token).send().await
    }

    pub(crate) async fn hold(&self, token: &str, schedule: &str, seats: &[u32]) -> ApiResponse {
        let body = json!({"schedule_id": schedule, "seats": seats});
        self.post("/v1/reservations").token(token).json(&body).send().await
    }

    /// Holds free seats and returns the id of the reservation.
    pub(crate) async fn hold_seats(&self, token: &str, schedule: &str, seats: &[u32]) -> String {
        let reservation = self.hold(token, schedule, seats).await.expect(201);
        reservation["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn charge(&self, user: &str, amount: i64) {
        self.charge_with_key(user, amount, &new_key()).await.expect(201);
    }

    /// Charges a wallet with a given idempotency key.
    pub(crate) async fn charge_with_key(&self, user: &str, amount: i64, key: &str) -> ApiResponse {
        self.post("/v1/wallet/charges")
            .user(user)
            .key(key)
            .json(&json!({"amount": amount}))
            .send()
            .await
    }

    pub(crate) async fn balance(&self, user: &str) -> i64 {
        self.get("/v1/wallet").user(user).send().await.expect(200)["balance"].as_i64().unwrap()
    }

    pub(crate) async fn pay(&self, token: &str, reservation: &str, key: &str) -> ApiResponse {
        self.payment(token, reservation, key).send().await
    }

    pub(crate) fn payment(&self, token: &str, reservation: &str, key: &str) -> ApiRequest {
        let body = json!({"reservation_id": reservation});
        self.post("/v1/payments").token(token).key(key).json(&body)
    }

    /// The seats of a schedule as `[status of seat 1, …]`.
    pub(crate) async fn seats(&self, token: &str, schedule: &str) -> Vec<String> {
        let map = self
            .get(&format!("/v1/schedules/{schedule}/seats"))
            .token(token)
            .send()
            .await
            .expect(200);
        let items = map["items"].as_array().unwrap();
        items.iter().map(|seat| seat["status"].as_str().unwrap().to_owned()).collect()
    }
}

impl ApiRequest {
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value))
    }

    pub(crate) fn user(self, user: &str) -> Self {
        self.header("usher-user", user)
    }

    pub(crate) fn token(self, token: &str) -> Self {
        self.header("queue-token", token)
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        Self(self.0.json(body))
    }

    /// A raw body. The content type is JSON unless a header sets another one.
    pub(crate) fn raw(self, content_type: &str, body: impl Into<reqwest::Body>) -> Self {
        self.header("content-type", content_type).body(body)
    }

    fn body(self, body: impl Into<reqwest::Body>) -> Self {
        Self(self.0.body(body))
    }

    /// Sends the request and reads the whole response.
    pub(crate) async fn send(self) -> ApiResponse {
        self.try_send().await.unwrap()
    }

    /// As [`Self::send`], but does not read the body of an event stream, which has no end.
    pub(crate) async fn send_head(self) -> ApiResponse {
        let response = self.0.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let kind =
            headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let text = if kind.starts_with("text/event-stream") {
            String::new()
        } else {
            response.text().await.unwrap()
        };
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        ApiResponse { status, headers, text, body }
    }

    /// As [`Self::send`], for requests that may fail.
    pub(crate) async fn try_send(self) -> Result<ApiResponse, reqwest::Error> {
        let response = self.0.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(ApiResponse { status, headers, text, body })
    }
}

impl ApiResponse {
    /// The body of a response that must have this status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert!(
            self.headers.contains_key("x-request-id"),
            "the response has no request id: {self:?}"
        );
        self.body.clone()
    }

    /// The text of a response that is not JSON.
    #[track_caller]
    pub(crate) fn expect_text(&self, status: u16) -> String {
        self.expect(status);
        self.text.clone()
    }

    /// The body of a problem (RFC 9457) that must have this status and code.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        match self.as_problem(status, code) {
            Ok(body) => body,
            Err(wrong) => panic!("{wrong}: {} {} {:?}", self.status, self.text, self.headers),
        }
    }

    /// As [`Self::problem`], or the first difference.
    pub(crate) fn as_problem(&self, status: u16, code: &str) -> Result<Value, String> {
        let retry_after = self.header("retry-after").and_then(|text| text.parse::<u32>().ok());
        let says_more = |member| self.body[member].as_str().is_some_and(|text| !text.is_empty());
        for (holds, what) in [
            (self.status == status, format!("the status is not {status}")),
            (self.body["code"] == code, format!("the code is not {code}")),
            (self.body["status"] == status, "the member `status` is wrong".into()),
            (self.body["type"] == format!("urn:usher:problem:{code}"), "the type is wrong".into()),
            (says_more("title") && says_more("detail"), "title or detail is missing".into()),
            (
                self.header("content-type") == Some("application/problem+json"),
                "the media type is wrong".into(),
            ),
            (self.header("cache-control") == Some("no-store"), "the problem may be cached".into()),
            (self.headers.contains_key("x-request-id"), "the request id is missing".into()),
            (
                retry_after.is_some_and(|s| s >= 1) || !matches!(status, 429 | 503),
                "Retry-After is missing".into(),
            ),
        ] {
            if !holds {
                return Err(what);
            }
        }
        Ok(self.body.clone())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}
