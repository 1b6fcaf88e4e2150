//! A client of the HTTP contract, over one instance or several in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::servers::ADMIN_KEY;
use super::{new_key, new_user};

/// Cheap to clone; every request goes to the next instance.
#[derive(Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    instances: Arc<Vec<[String; 2]>>,
    next: Arc<AtomicUsize>,
}

/// A user in line, and what proves it.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub(crate) user: String,
    pub(crate) token: String,
}

/// A request in the making.
pub(crate) struct Call(RequestBuilder);

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) body: Value,
}

impl Api {
    /// Over instances, each given as its public and its admin address.
    pub(crate) fn new(instances: Vec<[String; 2]>) -> Self {
        let http = reqwest::Client::builder().timeout(super::PATIENCE).build().unwrap();
        Self { http, instances: Arc::new(instances), next: Arc::default() }
    }

    /// The same client on one of the instances only.
    pub(crate) fn only(&self, at: usize) -> Self {
        Self::new(vec![self.instances[at].clone()])
    }

    /// How many instances there are.
    pub(crate) fn instances(&self) -> usize {
        self.instances.len()
    }

    /// The public address of the next instance.
    pub(crate) fn public(&self) -> &str {
        &self.turn()[0]
    }

    /// The admin address of the next instance.
    pub(crate) fn admin(&self) -> &str {
        &self.turn()[1]
    }

    fn turn(&self) -> &[String; 2] {
        &self.instances[self.next.fetch_add(1, Ordering::Relaxed) % self.instances.len()]
    }

    /// A request to the public listener.
    pub(crate) fn call(&self, method: Method, path: &str) -> Call {
        Call(self.http.request(method, format!("{}{path}", self.public())))
    }

    /// A request to the admin listener, with its key.
    pub(crate) fn admin_call(&self, method: Method, path: &str) -> Call {
        self.keyless_admin_call(method, path)
            .header("authorization", &format!("Bearer {ADMIN_KEY}"))
    }

    /// A request to the admin listener without the key.
    pub(crate) fn keyless_admin_call(&self, method: Method, path: &str) -> Call {
        Call(self.http.request(method, format!("{}{path}", self.admin())))
    }

    pub(crate) fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    pub(crate) fn post(&self, path: &str) -> Call {
        self.call(Method::POST, path)
    }

    pub(crate) fn delete(&self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }

    /// Makes or changes something by the admin API.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.admin_call(Method::PUT, path).json(body).send().await
    }

    /// Asks for a place in line.
    pub(crate) async fn join(&self, queue: &str, user: &str) -> Answer {
        self.post(&format!("/v1/queues/{queue}/tokens")).user(user).send().await
    }

    /// A new user with a place in line, waiting or active.
    pub(crate) async fn guest(&self, queue: &str) -> Guest {
        let user = new_user();
        let ticket = self.join(queue, &user).await.expect(201);
        Guest { token: ticket["token"].as_str().unwrap().to_owned(), user }
    }

    /// A new user who is active.
    pub(crate) async fn active_guest(&self, queue: &str) -> Guest {
        let guest = self.guest(queue).await;
        self.until_active(queue, &guest).await;
        guest
    }

    /// Waits until a guest has been let in.
    /// Returns the ticket that says so. Another instance may not know it yet: it answers from a look that may be a quarter of a second old.
    pub(crate) async fn until_active(&self, queue: &str, guest: &Guest) -> Value {
        super::eventually("the guest is let in", || async {
            let ticket = self.poll(queue, &guest.token).await.expect(200);
            (ticket["status"] == "active").then_some(ticket)
        })
        .await
    }

    /// Waits until a token that is of no use any more is refused; as with [`Api::until_active`], one instance may know it before the other.
    pub(crate) async fn until_expired(&self, queue: &str, token: &str) {
        super::eventually("the token is refused", || async {
            let answer = self.poll(queue, token).await;
            (answer.status != 200).then(|| answer.problem(410, "queue_token_expired"))
        })
        .await;
    }

    /// Asks where a token stands.
    pub(crate) async fn poll(&self, queue: &str, token: &str) -> Answer {
        self.get(&format!("/v1/queues/{queue}/tokens/me")).token(token).send().await
    }

    /// Asks for seats.
    pub(crate) async fn hold(&self, token: &str, schedule: &str, seats: &[u32]) -> Answer {
        let body = json!({"schedule_id": schedule, "seats": seats});
        self.post("/v1/reservations").token(token).json(&body).send().await
    }

    /// Holds seats that are free and gives the reservation's id.
    pub(crate) async fn held(&self, token: &str, schedule: &str, seats: &[u32]) -> String {
        let reservation = self.hold(token, schedule, seats).await.expect(201);
        reservation["id"].as_str().unwrap().to_owned()
    }

    /// Puts money into a wallet.
    pub(crate) async fn charge(&self, user: &str, amount: i64) {
        self.charge_as(user, amount, &new_key()).await.expect(201);
    }

    /// Puts money into a wallet under a key.
    pub(crate) async fn charge_as(&self, user: &str, amount: i64, key: &str) -> Answer {
        self.post("/v1/wallet/charges")
            .user(user)
            .key(key)
            .json(&json!({"amount": amount}))
            .send()
            .await
    }

    /// What a wallet holds.
    pub(crate) async fn balance(&self, user: &str) -> i64 {
        self.get("/v1/wallet").user(user).send().await.expect(200)["balance"].as_i64().unwrap()
    }

    /// Pays for a reservation.
    pub(crate) async fn pay(&self, token: &str, reservation: &str, key: &str) -> Answer {
        self.payment(token, reservation, key).send().await
    }

    /// The request that pays for a reservation.
    pub(crate) fn payment(&self, token: &str, reservation: &str, key: &str) -> Call {
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

impl Call {
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

    /// A body that need not be JSON, of the type of JSON unless a header says otherwise.
    pub(crate) fn raw(self, content_type: &str, body: impl Into<reqwest::Body>) -> Self {
        self.header("content-type", content_type).body(body)
    }

    fn body(self, body: impl Into<reqwest::Body>) -> Self {
        Self(self.0.body(body))
    }

    /// Sends it and reads the whole answer.
    pub(crate) async fn send(self) -> Answer {
        self.try_send().await.unwrap()
    }

    /// Sends it, and reads the whole answer unless that is a stream, which has no end.
    pub(crate) async fn send_head(self) -> Answer {
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
        Answer { status, headers, text, body }
    }

    /// Sends it, perhaps in vain.
    pub(crate) async fn try_send(self) -> Result<Answer, reqwest::Error> {
        let response = self.0.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status, headers, text, body })
    }
}

impl Answer {
    /// The body of an answer that must have this status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert!(
            self.headers.contains_key("x-request-id"),
            "every answer bears a request id: {self:?}"
        );
        self.body.clone()
    }

    /// The text of an answer that is not JSON.
    #[track_caller]
    pub(crate) fn expect_text(&self, status: u16) -> String {
        self.expect(status);
        self.text.clone()
    }

    /// The body of a refusal that must have this status and code, in the form of RFC 9457.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        match self.as_problem(status, code) {
            Ok(body) => body,
            Err(wrong) => panic!("{wrong}: {} {} {:?}", self.status, self.text, self.headers),
        }
    }

    /// The same, or what is wrong with it.
    pub(crate) fn as_problem(&self, status: u16, code: &str) -> Result<Value, String> {
        let retry_after = self.header("retry-after").and_then(|text| text.parse::<u32>().ok());
        let says_more = |member| self.body[member].as_str().is_some_and(|text| !text.is_empty());
        for (holds, what) in [
            (self.status == status, format!("the status is not {status}")),
            (self.body["code"] == code, format!("the code is not {code}")),
            (self.body["status"] == status, "the member `status` is another".into()),
            (
                self.body["type"] == format!("urn:usher:problem:{code}"),
                "the type is another".into(),
            ),
            (says_more("title") && says_more("detail"), "title or detail is missing".into()),
            (
                self.header("content-type") == Some("application/problem+json"),
                "the media type".into(),
            ),
            (self.header("cache-control") == Some("no-store"), "it may be cached".into()),
            (self.headers.contains_key("x-request-id"), "no request id".into()),
            (
                retry_after.is_some_and(|s| s >= 1) || !matches!(status, 429 | 503),
                "no Retry-After".into(),
            ),
        ] {
            if !holds {
                return Err(what);
            }
        }
        Ok(self.body.clone())
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}
