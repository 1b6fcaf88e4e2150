//! A concert that moves between queues of two partitions while it is sold in each. Meanwhile other
//! faults may strike, so any call may fail. The audit after the round checks what is left.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::environment::ChaosSite;
use crate::support::new_key;
use crate::support::servers::ADMIN_KEY;

const CONCERT: &str = "moving";
const SCHEDULE: &str = "moving-night";
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
const RETRY_PAUSE: Duration = Duration::from_millis(50);

struct MovingConcert<'a> {
    site: &'a ChaosSite<'a>,
    http: reqwest::Client,
    until: Instant,
}

/// Moves the concert and sells a seat in each queue, for some time.
pub(super) async fn move_around(site: &ChaosSite<'_>, random: &mut SmallRng, long: Duration) {
    let concert =
        MovingConcert { site, http: reqwest::Client::new(), until: Instant::now() + long };
    let first = "roam0".to_owned();
    let other = (1..)
        .map(|n| format!("roam{n}"))
        .find(|queue| site.stores.partition_of(queue) != site.stores.partition_of(&first))
        .unwrap();
    for queue in [&first, &other].into_iter().cycle() {
        if Instant::now() >= concert.until || concert.visit(queue, random).await.is_none() {
            break;
        }
    }
}

impl MovingConcert<'_> {
    /// Moves the concert to a queue, then sells a seat there and cancels the purchase. `None` when
    /// the time is over.
    async fn visit(&self, queue: &str, random: &mut SmallRng) -> Option<()> {
        let settings = json!({"promote_per_interval": 100, "interval_ms": 100, "max_active": 100,
            "restore_seconds": 0});
        self.admin_put(&format!("/admin/queues/{queue}"), &settings).await?;
        let definition = json!({"title": "Moving", "queue_id": queue, "schedules": [{
            "id": SCHEDULE, "starts_at": "2100-01-01T19:00:00.000Z",
            "sections": [{"name": "A", "from": 1, "to": 3, "price": 10}]}]});
        self.admin_put(&format!("/admin/concerts/{CONCERT}"), &definition).await?;
        let user = Uuid::from_bytes(random.random()).to_string();
        let path = format!("/v1/queues/{queue}/tokens");
        let token = self
            .until_done(&[200, 201], || self.post(&path, &[("usher-user", &user)], None))
            .await?["token"]
            .as_str()?
            .to_owned();
        let (charge, pay, cancel) = (new_key(), new_key(), new_key());
        self.until_done(&[201], || {
            let headers = [("usher-user", user.as_str()), ("idempotency-key", &charge)];
            self.post("/v1/wallet/charges", &headers, Some(json!({"amount": 10})))
        })
        .await?;
        // With a key, a hold whose answer was lost is the same hold again.
        let hold = new_key();
        let body = json!({"schedule_id": SCHEDULE, "seats": [random.random_range(1..=3)]});
        let held = self
            .until_done(&[201], || {
                let headers = [("queue-token", token.as_str()), ("idempotency-key", &hold)];
                self.post("/v1/reservations", &headers, Some(body.clone()))
            })
            .await?;
        let id = held["id"].as_str()?.to_owned();
        let paid = self
            .until_done(&[201], || {
                let headers = [("queue-token", token.as_str()), ("idempotency-key", &pay)];
                self.post("/v1/payments", &headers, Some(json!({"reservation_id": id})))
            })
            .await;
        paid?;
        let path = format!("/v1/reservations/{id}/cancel");
        self.until_done(&[200], || {
            let headers = [("usher-user", user.as_str()), ("idempotency-key", &cancel)];
            self.post(&path, &headers, None)
        })
        .await
        .map(drop)
    }

    async fn admin_put(&self, path: &str, body: &Value) -> Option<Value> {
        self.until_done(&[200], || {
            let admin = self.site.seats[0].address.read().unwrap()[1].clone();
            self.http.put(format!("{admin}{path}")).bearer_auth(ADMIN_KEY).json(body)
        })
        .await
    }

    fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> reqwest::RequestBuilder {
        let public = self.site.seats[0].address.read().unwrap()[0].clone();
        let mut request = self.http.request(Method::POST, format!("{public}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match body {
            Some(body) => request.json(&body),
            None => request,
        }
    }

    /// Repeats a call until it has one of the statuses. `None` when the time is over.
    async fn until_done(
        &self,
        done: &[u16],
        request: impl Fn() -> reqwest::RequestBuilder,
    ) -> Option<Value> {
        while Instant::now() < self.until {
            let answer = request().timeout(CALL_TIMEOUT).send().await;
            if let Ok(answer) = answer
                && done.contains(&answer.status().as_u16())
            {
                return Some(answer.json().await.unwrap_or(Value::Null));
            }
            sleep(RETRY_PAUSE).await;
        }
        None
    }
}
