//! What one user does, from the first click to the last answer.

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep_until;

use super::client::{Answer, Client, Request, count};
use super::measure::Step;
use super::plan::Plan;
use super::seen::{End, Seen};
use crate::scenario::{PRICE, user};

/// One in so many users clicks twice when joining.
const DOUBLE: u64 = 10;
/// How long a user waits in line at most.
const PATIENCE: Duration = Duration::from_secs(120);
/// Looks at a payment whose outcome was not known yet.
const LOOKS: usize = 40;

/// A new user joins, waits as told, holds a seat, charges, pays, and looks at the wallet.
pub(super) async fn journey(client: &Client, plan: &Plan, n: u64, due: Instant) {
    let mut journey =
        Journey { client, plan, user: user(plan.seed, n), token: String::new(), seen: Seen::new(n) };
    count(&client.counts.came);
    // Out of the middle with none is an answer that nobody should get.
    journey.seen.end = journey.walk(due).await.unwrap_or(End::Failed);
    count(&client.counts.done);
    client.seen.borrow_mut().push(journey.seen);
}

/// A new user asks for a coupon, and clicks twice.
pub(super) async fn rush(client: &Client, plan: &Plan, n: u64, due: Instant) {
    let mut seen = Seen::new(n);
    count(&client.counts.came);
    seen.end = issue(client, plan, &mut seen, due).await.unwrap_or(End::Failed);
    count(&client.counts.done);
    client.seen.borrow_mut().push(seen);
}

async fn issue(client: &Client, plan: &Plan, seen: &mut Seen, due: Instant) -> Option<End> {
    let (path, user) = (format!("/v1/coupons/{}/issues", plan.name), user(plan.seed, seen.n));
    let headers = [("usher-user", user.as_str())];
    let request = |expected| Request {
        step: Step::Issue,
        method: "POST",
        path: &path,
        headers: &headers,
        body: "",
        expected,
    };
    let first = client.ask(due, request(&[200, 201, 409])).await?;
    seen.came = (client.since_start(first.sent), client.since_start(first.answered));
    let won = first.status != 409;
    if won {
        count(&client.counts.won);
        seen.won = Some(seen.came.1);
        seen.issue = Some(first.body["id"].as_str()?.to_owned());
    }
    let second = client.ask(Instant::now(), request(&[200, 409])).await?;
    seen.doubled = (second.status == 200) != won || won && second.body["id"] != first.body["id"];
    Some(if won { End::Won } else { End::SoldOut })
}

struct Journey<'a> {
    client: &'a Client,
    plan: &'a Plan,
    user: String,
    token: String,
    seen: Seen,
}

impl Journey<'_> {
    async fn walk(&mut self, due: Instant) -> Option<End> {
        let joined = self.join(due).await?;
        if let Some(end) = self.wait(joined).await? {
            return self.leave(end).await;
        }
        let Some((reservation, seat)) = self.hold().await? else { return self.leave(End::SoldOut).await };
        self.charge().await?;
        let paid = self.pay(&reservation).await?;
        count(&self.client.counts.won);
        self.seen.won = Some(self.client.since_start(paid.answered));
        self.seen.paid = paid.body["paid"].as_u64()?;
        self.seen.seat = Some(seat);
        let headers = [("usher-user", self.user.as_str())];
        let wallet = self.now(Step::Wallet, "GET", "/v1/wallet", &headers, "", &[200]).await?;
        self.seen.balance = wallet.body["balance"].as_u64();
        Some(End::Won)
    }

    async fn now(
        &self,
        step: Step,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
        expected: &[u16],
    ) -> Option<Answer> {
        self.client.ask(Instant::now(), Request { step, method, path, headers, body, expected }).await
    }

    async fn join(&mut self, due: Instant) -> Option<Answer> {
        let path = format!("/v1/queues/{}/tokens", self.plan.name);
        let headers = [("usher-user", self.user.as_str())];
        let request = Request {
            step: Step::Join,
            method: "POST",
            path: &path,
            headers: &headers,
            body: "",
            expected: &[200, 201],
        };
        let joined = self.client.ask(due, request).await?;
        self.seen.came = (self.client.since_start(joined.sent), self.client.since_start(joined.answered));
        self.token = joined.body["token"].as_str()?.to_owned();
        if self.seen.n.is_multiple_of(DOUBLE) {
            let again = self.client.ask(Instant::now(), request).await?;
            self.seen.doubled = again.status != 200 || again.body["token"] != joined.body["token"];
        }
        Some(joined)
    }

    /// Until the user is let in (none), or has heard enough.
    async fn wait(&mut self, joined: Answer) -> Option<Option<End>> {
        let path = format!("/v1/queues/{}/tokens/me", self.plan.name);
        let patience = joined.answered + PATIENCE;
        let (mut ticket, mut position) = (joined, u64::MAX);
        loop {
            match ticket.body["status"].as_str()? {
                "active" => {
                    self.seen.active = Some(self.client.since_start(ticket.answered));
                    count(&self.client.counts.admitted);
                    return Some(None);
                }
                "waiting" => self.seen.waited = Some(self.client.since_start(ticket.sent)),
                _ => return None,
            }
            let now = ticket.body["position"].as_u64()?;
            self.seen.rose |= now > position;
            position = now;
            let told = Duration::from_millis(ticket.body["poll_after_ms"].as_u64()?);
            let due = ticket.answered + told;
            if ticket.body["sold_out"] == Value::Bool(true) {
                return Some(Some(End::SoldOut));
            } else if due > patience {
                return Some(Some(End::GaveUp));
            }
            sleep_until(due.into()).await;
            let headers = [("queue-token", self.token.as_str())];
            let request = Request {
                step: Step::Poll,
                method: "GET",
                path: &path,
                headers: &headers,
                body: "",
                expected: &[200],
            };
            ticket = self.client.ask(due, request).await?;
        }
    }

    /// The seat that the user had an eye on, else the best that is left, else none: reservation and seat.
    async fn hold(&self) -> Option<Option<(String, u64)>> {
        let headers = [("queue-token", self.token.as_str())];
        let schedule = &self.plan.schedule;
        let wished = 1 + self.seen.n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.plan.seats;
        let body = format!(r#"{{"schedule_id":"{schedule}","seats":[{wished}]}}"#);
        let mut held = self.now(Step::Hold, "POST", "/v1/reservations", &headers, &body, &[201, 409]).await?;
        if held.status == 409 {
            let body = format!(r#"{{"schedule_id":"{schedule}","quantity":1}}"#);
            held =
                self.now(Step::Hold, "POST", "/v1/reservations/best", &headers, &body, &[201, 409]).await?;
        }
        if held.status == 409 {
            return Some(None);
        }
        Some(Some((held.body["id"].as_str()?.to_owned(), held.body["seats"][0]["number"].as_u64()?)))
    }

    async fn charge(&mut self) -> Option<()> {
        // A user charges once here, so the user's name will do as the key.
        let headers = [("usher-user", self.user.as_str()), ("idempotency-key", &self.user)];
        let body = format!(r#"{{"amount":{PRICE}}}"#);
        self.now(Step::Charge, "POST", "/v1/wallet/charges", &headers, &body, &[201]).await?;
        self.seen.charged = u64::from(PRICE);
        Some(())
    }

    async fn pay(&mut self, reservation: &str) -> Option<Answer> {
        let key = format!("pay-{}", self.user);
        let headers = [("queue-token", self.token.as_str()), ("idempotency-key", &key)];
        let body = format!(r#"{{"reservation_id":"{reservation}"}}"#);
        self.seen.over = Some(self.client.since_start(Instant::now()));
        let mut payment = self.now(Step::Pay, "POST", "/v1/payments", &headers, &body, &[201, 202]).await?;
        for _ in 0..LOOKS {
            match payment.body["status"].as_str()? {
                "confirmed" => return Some(payment),
                "pending" => tokio::time::sleep(Duration::from_millis(500)).await,
                _ => return None,
            }
            let path = format!("/v1/payments/{}", payment.body["id"].as_str()?);
            payment = self.now(Step::Pay, "GET", &path, &headers[..1], "", &[200]).await?;
        }
        None
    }

    /// Gives the place or the slot up.
    async fn leave(&mut self, end: End) -> Option<End> {
        let path = format!("/v1/queues/{}/tokens/me", self.plan.name);
        self.seen.over = Some(self.client.since_start(Instant::now()));
        let headers = [("queue-token", self.token.as_str())];
        // Who was let in while they were leaving has given the slot up just as well.
        self.now(Step::Leave, "DELETE", &path, &headers, "", &[204]).await?;
        Some(end)
    }
}

/// Someone in line before the run begins, who asks now and then.
pub(super) struct Waiter {
    token: String,
    position: Cell<u64>,
    /// Whether a poll is under way: answers that overtake each other prove nothing.
    asking: Cell<bool>,
    seen: Cell<Option<Seen>>,
}

impl Waiter {
    /// Gets in line.
    pub(super) async fn join(client: &Client, plan: &Plan, n: u64) -> Option<Self> {
        let user = user(plan.seed, n);
        let path = format!("/v1/queues/{}/tokens", plan.name);
        let headers = [("usher-user", user.as_str())];
        let request = Request {
            step: Step::Join,
            method: "POST",
            path: &path,
            headers: &headers,
            body: "",
            expected: &[200, 201],
        };
        let joined = client.ask(Instant::now(), request).await?;
        let mut seen = Seen::new(n);
        seen.end = End::Stayed;
        let token = joined.body["token"].as_str()?.to_owned();
        Some(Self {
            token,
            position: Cell::new(u64::MAX),
            asking: Cell::new(false),
            seen: Cell::new(Some(seen)),
        })
    }

    /// Asks how long yet.
    pub(super) async fn poll(&self, client: &Client, plan: &Plan, due: Instant) {
        let path = format!("/v1/queues/{}/tokens/me", plan.name);
        let headers = [("queue-token", self.token.as_str())];
        let alone = !self.asking.replace(true);
        let request = Request {
            step: Step::Poll,
            method: "GET",
            path: &path,
            headers: &headers,
            body: "",
            expected: &[200, 410],
        };
        let answer = client.ask(due, request).await;
        count(&client.counts.done);
        let Some(mut seen) = self.seen.take() else { return };
        match &answer {
            None => seen.end = End::Failed,
            Some(answer) if answer.body["status"] == "active" && seen.active.is_none() => {
                seen.active = Some(client.since_start(answer.answered));
                count(&client.counts.admitted);
            }
            Some(answer) => {
                if let (true, Some(now)) = (alone, answer.body["position"].as_u64()) {
                    seen.rose |= now > self.position.replace(now);
                }
            }
        }
        self.seen.set(Some(seen));
        if alone {
            self.asking.set(false);
        }
    }

    /// What they have seen in the end.
    pub(super) fn seen(&self) -> Option<Seen> {
        self.seen.take()
    }
}
