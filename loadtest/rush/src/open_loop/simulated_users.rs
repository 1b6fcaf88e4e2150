//! Simulated users: what each of them does, from the first click to the last response.
//!
//! Inside a user, none means a response that the API contract does not allow.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep_until;

use super::client::{LoadClient, ServiceAnswer, UserRequest};
use super::generator::LoadPlan;
use super::latency::RequestStep;
use super::observation::{UserObservation, UserOutcome};
use crate::scenario::{SEAT_PRICE, user_id};

/// One in this many users sends the join twice.
const DOUBLE_CLICK_EVERY: u64 = 10;
const MAX_WAIT: Duration = Duration::from_secs(120);
/// Polls of a payment that is still pending, and the pause between them.
const MAX_PAYMENT_POLLS: usize = 40;
const PAYMENT_POLL_INTERVAL: Duration = Duration::from_millis(500);

fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A new user joins, waits, holds a seat, charges, pays and reads the wallet.
pub(super) async fn run_journey(client: &LoadClient, plan: &LoadPlan, number: u64, due: Instant) {
    let mut journey = PurchaseJourney {
        client,
        plan,
        user: user_id(plan.seed, number),
        token: String::new(),
        observed: UserObservation::new(number),
    };
    increment(&client.progress.arrived);
    journey.observed.outcome = journey.run(due).await.unwrap_or(UserOutcome::Failed);
    increment(&client.progress.finished);
    client.observations.borrow_mut().push(journey.observed);
}

/// A new user requests a coupon twice.
pub(super) async fn request_coupon(
    client: &LoadClient,
    plan: &LoadPlan,
    number: u64,
    due: Instant,
) {
    let mut observed = UserObservation::new(number);
    increment(&client.progress.arrived);
    observed.outcome =
        request_twice(client, plan, &mut observed, due).await.unwrap_or(UserOutcome::Failed);
    increment(&client.progress.finished);
    client.observations.borrow_mut().push(observed);
}

async fn request_twice(
    client: &LoadClient,
    plan: &LoadPlan,
    observed: &mut UserObservation,
    due: Instant,
) -> Option<UserOutcome> {
    let path = format!("/v1/coupons/{}/issues", plan.name);
    let user = user_id(plan.seed, observed.number);
    let headers = [("usher-user", user.as_str())];
    let request = |expected| UserRequest {
        step: RequestStep::Issue,
        method: "POST",
        path: &path,
        headers: &headers,
        body: "",
        expected,
    };
    let first = client.send(due, request(&[200, 201, 409])).await?;
    observed.arrival = (client.since_begin(first.sent), client.since_begin(first.answered));
    let won = first.status != 409;
    if won {
        increment(&client.progress.won);
        observed.issue = Some(first.body["id"].as_str()?.to_owned());
    }
    let second = client.send(Instant::now(), request(&[200, 409])).await?;
    observed.repeat_differed =
        (second.status == 200) != won || won && second.body["id"] != first.body["id"];
    Some(if won { UserOutcome::Won } else { UserOutcome::SoldOut })
}

fn join_request<'a>(path: &'a str, headers: &'a [(&'a str, &'a str)]) -> UserRequest<'a> {
    let step = RequestStep::Join;
    UserRequest { step, method: "POST", path, headers, body: "", expected: &[200, 201] }
}

struct PurchaseJourney<'a> {
    client: &'a LoadClient,
    plan: &'a LoadPlan,
    user: String,
    token: String,
    observed: UserObservation,
}

impl PurchaseJourney<'_> {
    async fn run(&mut self, due: Instant) -> Option<UserOutcome> {
        let joined = self.join(due).await?;
        if let Some(outcome) = self.wait(joined).await? {
            return self.leave(outcome).await;
        }
        let Some((reservation, seat)) = self.hold().await? else {
            return self.leave(UserOutcome::SoldOut).await;
        };
        self.charge().await?;
        let payment = self.pay(&reservation).await?;
        increment(&self.client.progress.won);
        self.observed.paid = payment.body["paid"].as_u64()?;
        self.observed.seat = Some(seat);
        let headers = [("usher-user", self.user.as_str())];
        let wallet =
            self.send_now(RequestStep::Wallet, "GET", "/v1/wallet", &headers, "", &[200]).await?;
        self.observed.balance = wallet.body["balance"].as_u64();
        Some(UserOutcome::Won)
    }

    async fn send_now(
        &self,
        step: RequestStep,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
        expected: &[u16],
    ) -> Option<ServiceAnswer> {
        let request = UserRequest { step, method, path, headers, body, expected };
        self.client.send(Instant::now(), request).await
    }

    async fn join(&mut self, due: Instant) -> Option<ServiceAnswer> {
        let path = format!("/v1/queues/{}/tokens", self.plan.name);
        let headers = [("usher-user", self.user.as_str())];
        let request = join_request(&path, &headers);
        let joined = self.client.send(due, request).await?;
        self.observed.arrival =
            (self.client.since_begin(joined.sent), self.client.since_begin(joined.answered));
        self.token = joined.body["token"].as_str()?.to_owned();
        if self.observed.number.is_multiple_of(DOUBLE_CLICK_EVERY) {
            let repeat = self.client.send(Instant::now(), request).await?;
            self.observed.repeat_differed =
                repeat.status != 200 || repeat.body["token"] != joined.body["token"];
        }
        Some(joined)
    }

    /// Polls as advised. The inner option is the outcome of a user who leaves, none if admitted.
    async fn wait(&mut self, joined: ServiceAnswer) -> Option<Option<UserOutcome>> {
        let path = format!("/v1/queues/{}/tokens/me", self.plan.name);
        let deadline = joined.answered + MAX_WAIT;
        let (mut ticket, mut last_position) = (joined, u64::MAX);
        loop {
            match ticket.body["status"].as_str()? {
                "active" => {
                    self.observed.active = Some(self.client.since_begin(ticket.answered));
                    increment(&self.client.progress.admitted);
                    return Some(None);
                }
                "waiting" => {
                    self.observed.last_waiting = Some(self.client.since_begin(ticket.sent));
                }
                _ => return None,
            }
            let position = ticket.body["position"].as_u64()?;
            self.observed.position_rose |= position > last_position;
            last_position = position;
            let due =
                ticket.answered + Duration::from_millis(ticket.body["poll_after_ms"].as_u64()?);
            if ticket.body["sold_out"] == Value::Bool(true) {
                return Some(Some(UserOutcome::SoldOut));
            } else if due > deadline {
                return Some(Some(UserOutcome::GaveUp));
            }
            sleep_until(due.into()).await;
            let headers = [("queue-token", self.token.as_str())];
            let request = UserRequest {
                step: RequestStep::Poll,
                method: "GET",
                path: &path,
                headers: &headers,
                body: "",
                expected: &[200],
            };
            ticket = self.client.send(due, request).await?;
        }
    }

    /// Holds a preferred seat, else the best one that is left. The inner option is reservation and
    /// seat, none if the concert is sold out.
    async fn hold(&self) -> Option<Option<(String, u64)>> {
        let headers = [("queue-token", self.token.as_str())];
        let (step, schedule) = (RequestStep::Hold, &self.plan.schedule);
        let preferred =
            1 + self.observed.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.plan.seats;
        let body = format!(r#"{{"schedule_id":"{schedule}","seats":[{preferred}]}}"#);
        let path = "/v1/reservations";
        let mut held = self.send_now(step, "POST", path, &headers, &body, &[201, 409]).await?;
        if held.status == 409 {
            let body = format!(r#"{{"schedule_id":"{schedule}","quantity":1}}"#);
            let path = "/v1/reservations/best";
            held = self.send_now(step, "POST", path, &headers, &body, &[201, 409]).await?;
        }
        if held.status == 409 {
            return Some(None);
        }
        let seat = held.body["seats"][0]["number"].as_u64()?;
        Some(Some((held.body["id"].as_str()?.to_owned(), seat)))
    }

    async fn charge(&mut self) -> Option<()> {
        // Each user charges once, so the user id can serve as the idempotency key.
        let headers = [("usher-user", self.user.as_str()), ("idempotency-key", &self.user)];
        let (path, body) = ("/v1/wallet/charges", format!(r#"{{"amount":{SEAT_PRICE}}}"#));
        self.send_now(RequestStep::Charge, "POST", path, &headers, &body, &[201]).await?;
        self.observed.charged = u64::from(SEAT_PRICE);
        Some(())
    }

    async fn pay(&mut self, reservation: &str) -> Option<ServiceAnswer> {
        let (step, key) = (RequestStep::Pay, format!("pay-{}", self.user));
        let headers = [("queue-token", self.token.as_str()), ("idempotency-key", &key)];
        let body = format!(r#"{{"reservation_id":"{reservation}"}}"#);
        self.observed.active_end = Some(self.client.since_begin(Instant::now()));
        let path = "/v1/payments";
        let mut payment = self.send_now(step, "POST", path, &headers, &body, &[201, 202]).await?;
        for _ in 0..MAX_PAYMENT_POLLS {
            match payment.body["status"].as_str()? {
                "confirmed" => return Some(payment),
                "pending" => tokio::time::sleep(PAYMENT_POLL_INTERVAL).await,
                _ => return None,
            }
            let path = format!("/v1/payments/{}", payment.body["id"].as_str()?);
            payment = self.send_now(step, "GET", &path, &headers[..1], "", &[200]).await?;
        }
        None
    }

    /// Gives up the position in the queue, or the active slot.
    async fn leave(&mut self, outcome: UserOutcome) -> Option<UserOutcome> {
        let path = format!("/v1/queues/{}/tokens/me", self.plan.name);
        self.observed.active_end = Some(self.client.since_begin(Instant::now()));
        let headers = [("queue-token", self.token.as_str())];
        self.send_now(RequestStep::Leave, "DELETE", &path, &headers, "", &[204]).await?;
        Some(outcome)
    }
}

/// A user who joins before the run begins and polls during it.
pub(super) struct WaitingUser {
    token: String,
    last_position: Cell<u64>,
    /// Whether a poll is in flight. Positions of overlapping polls cannot be compared.
    polling: Cell<bool>,
    observed: Cell<Option<UserObservation>>,
}

impl WaitingUser {
    pub(super) async fn join(client: &LoadClient, plan: &LoadPlan, number: u64) -> Option<Self> {
        let user = user_id(plan.seed, number);
        let path = format!("/v1/queues/{}/tokens", plan.name);
        let headers = [("usher-user", user.as_str())];
        let joined = client.send(Instant::now(), join_request(&path, &headers)).await?;
        let mut observed = UserObservation::new(number);
        observed.outcome = UserOutcome::StillWaiting;
        Some(Self {
            token: joined.body["token"].as_str()?.to_owned(),
            last_position: Cell::new(u64::MAX),
            polling: Cell::new(false),
            observed: Cell::new(Some(observed)),
        })
    }

    pub(super) async fn poll(&self, client: &LoadClient, plan: &LoadPlan, due: Instant) {
        let path = format!("/v1/queues/{}/tokens/me", plan.name);
        let headers = [("queue-token", self.token.as_str())];
        let alone = !self.polling.replace(true);
        let request = UserRequest {
            step: RequestStep::Poll,
            method: "GET",
            path: &path,
            headers: &headers,
            body: "",
            expected: &[200, 410],
        };
        let answer = client.send(due, request).await;
        increment(&client.progress.finished);
        let Some(mut observed) = self.observed.take() else { return };
        match &answer {
            None => observed.outcome = UserOutcome::Failed,
            Some(answer) if answer.body["status"] == "active" && observed.active.is_none() => {
                observed.active = Some(client.since_begin(answer.answered));
                increment(&client.progress.admitted);
            }
            Some(answer) => {
                if let (true, Some(position)) = (alone, answer.body["position"].as_u64()) {
                    observed.position_rose |= position > self.last_position.replace(position);
                }
            }
        }
        self.observed.set(Some(observed));
        if alone {
            self.polling.set(false);
        }
    }

    pub(super) fn take_observation(&self) -> Option<UserObservation> {
        self.observed.take()
    }
}
