//! The users of a round: they book, pay, cancel, charge their wallets and collect coupons on all
//! instances, and record the responses.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};

use super::environment::{ChaosSite, is_durable};
use crate::faults::histories::{CallKind, CallResult, RecordedCall, SharedObject};
use crate::support::servers::ADMIN_KEY;
use crate::support::{CONCERT, SCHEDULE, new_key};

/// The queue of all bookings.
pub(super) const QUEUE: &str = CONCERT;
/// A queue that opens with a draw; it is used several times.
pub(super) const RAFFLE: &str = "raffle";
pub(super) const SEATS: u32 = 20;
pub(super) const PRICE: i64 = 1_000;
pub(super) const SHORT_CONCERT: &str = "brief";
pub(super) const SHORT_SCHEDULE: &str = "brief-night";
pub(super) const COUPON: &str = "off";
pub(super) const QUOTA: usize = 12;
pub(super) const REWARD: &str = "hello";
pub(super) const MAX_ACTIVE: i64 = 8;
pub(super) const PER_INTERVAL: i64 = 6;
pub(super) const INTERVAL_MS: i64 = 200;
const BOOKERS: usize = 14;
const ENTRANTS: usize = 8;
const SAVERS: usize = 3;
const COLLECTORS: usize = 18;

/// Timeout of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// An effect that was confirmed and therefore must exist in the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ConfirmedEffect {
    Entry { id: String, user: String, kind: &'static str, amount: i64 },
    Paid { payment: String, reservation: String, user: String },
    Cancelled { reservation: String },
    Issue { id: String, user: String },
    Claim { id: String, user: String },
}

/// An effect, the start of its request, and whether the instance confirms only durable effects.
#[derive(Debug, Clone)]
pub(super) struct ReportedEffect {
    pub(super) asked: Instant,
    pub(super) durable: bool,
    pub(super) fact: ConfirmedEffect,
}

/// A seat that was confirmed to a user, with its hold by the clock of Redis.
#[derive(Debug)]
pub(super) struct SeatOccupancy {
    pub(super) schedule: &'static str,
    pub(super) seat: u32,
    pub(super) reservation: String,
    pub(super) from: DateTime<Utc>,
    pub(super) until: DateTime<Utc>,
    /// When the request was sent.
    pub(super) asked: Instant,
    /// When the response arrived.
    pub(super) heard: Instant,
    /// When a call started that may have ended the hold early.
    pub(super) left: Option<Instant>,
}

/// The shared record of all users.
#[derive(Default)]
pub(super) struct WorkloadLog {
    pub(super) stays: Mutex<Vec<SeatOccupancy>>,
    pub(super) facts: Mutex<Vec<ReportedEffect>>,
    /// Calls on one object, with the number of the caller.
    pub(super) calls: Mutex<BTreeMap<SharedObject, Vec<(usize, RecordedCall)>>>,
    /// Responses that violate the API.
    pub(super) wrong: Mutex<Vec<String>>,
    pub(super) ok: AtomicUsize,
    pub(super) refused: AtomicUsize,
    pub(super) unknown: AtomicUsize,
}

/// The status and the body of a response, or `None` without one.
type ReceivedResponse = Option<(u16, Value)>;

struct WorkloadUser<'a> {
    site: &'a ChaosSite<'a>,
    http: reqwest::Client,
    log: Arc<WorkloadLog>,
    stop: Arc<AtomicBool>,
    random: SmallRng,
    user: String,
    number: usize,
    /// Start of the last call.
    asked: Instant,
    /// Whether it went to an instance that confirms only durable effects.
    durable: bool,
}

impl WorkloadUser<'_> {
    fn going(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    async fn rest(&mut self, longest: u64) {
        let pause = self.random.random_range(1..=longest);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    fn request(
        &self,
        at: usize,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.site.seats[at].address.read().unwrap()[0]);
        let mut request = self.http.request(method, url).timeout(CALL_TIMEOUT);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match body {
            Some(body) => request.json(body),
            None => request,
        }
    }

    /// One call on a random instance.
    async fn call(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> ReceivedResponse {
        let at = self.random.random_range(0..self.site.seats.len());
        (self.asked, self.durable) = (Instant::now(), is_durable(at));
        let request = self.request(at, method.clone(), path, headers, body);
        let heard = answer(request).await;
        let counter = match &heard {
            Some((200..300, _)) => &self.log.ok,
            Some((400..500, _)) => &self.log.refused,
            _ => &self.log.unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some((status @ (500..=502 | 504..), body)) = &heard {
            self.log
                .wrong
                .lock()
                .unwrap()
                .push(format!("{method} {path} was answered by {status} {body}"));
        }
        heard
    }

    /// Repeats a call with one key until its outcome is known. Sometimes it is sent to every
    /// instance at once, like a double click.
    async fn keyed(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> ReceivedResponse {
        let key = new_key();
        let mut all = headers.to_vec();
        all.push(("idempotency-key", &key));
        let began = Instant::now();
        let twins = if self.random.random_bool(0.25) { self.site.seats.len() } else { 0 };
        let twins = (0..twins)
            .map(|at| tokio::spawn(answer(self.request(at, Method::POST, path, &all, body))));
        let twins: Vec<_> = twins.collect();
        let heard = self.until_known(path, &all, body).await;
        let mut more = Vec::new();
        for twin in twins {
            more.push(twin.await.unwrap());
        }
        // A refusal is not stored, so a concurrent repeat may have succeeded.
        match heard {
            Some((400..500, _)) => {
                match more.iter().flatten().find(|(status, _)| matches!(status, 200 | 201)) {
                    Some(done) => {
                        (self.asked, self.durable) = (began, false);
                        Some(done.clone())
                    }
                    None if more.iter().all(|twin| matches!(twin, Some((400..500, _)))) => heard,
                    None => None,
                }
            }
            heard => heard,
        }
    }

    async fn until_known(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> ReceivedResponse {
        let mut heard = None;
        for _ in 0..12 {
            heard = self.call(Method::POST, path, headers, body).await;
            match &heard {
                None | Some((202 | 429 | 503, _)) => self.rest(400).await,
                _ => return heard,
            }
        }
        heard
    }

    fn fact(&self, fact: ConfirmedEffect) {
        let reported = ReportedEffect { asked: self.asked, durable: self.durable, fact };
        self.log.facts.lock().unwrap().push(reported);
    }

    fn note(&self, thing: SharedObject, op: CallKind, began: Instant, ret: Option<CallResult>) {
        let call = RecordedCall { thing, op, began, end: ret.map(|ret| (Instant::now(), ret)) };
        self.log.calls.lock().unwrap().entry(thing).or_default().push((self.number, call));
    }

    /// Records that this user has a seat. Returns the index of the record.
    fn stays(&self, schedule: &'static str, seat: u32, reported: &Value) -> Option<usize> {
        let moment = |name: &str| reported[name].as_str()?.parse().ok();
        let stay = SeatOccupancy {
            schedule,
            seat,
            reservation: reported["id"].as_str()?.to_owned(),
            from: moment("created_at")?,
            until: moment("held_until")?,
            asked: self.asked,
            heard: Instant::now(),
            left: None,
        };
        let mut stays = self.log.stays.lock().unwrap();
        stays.push(stay);
        Some(stays.len() - 1)
    }

    /// Records that the hold may end from now on.
    fn leaves(&self, stay: usize) {
        self.log.stays.lock().unwrap()[stay].left.get_or_insert_with(Instant::now);
    }

    /// Charges or uses money. Returns the reported balance, `None` if the outcome is unknown, or
    /// `Err` for a refusal.
    async fn entry(&mut self, kind: &'static str, amount: i64) -> Option<Result<i64, ()>> {
        let user = self.user.clone();
        let path = if kind == "charge" { "/v1/wallet/charges" } else { "/v1/wallet/uses" };
        let (status, body) =
            self.keyed(path, &[("usher-user", &user)], Some(&json!({"amount": amount}))).await?;
        match status {
            201 => {
                let id = body["id"].as_str()?.to_owned();
                self.fact(ConfirmedEffect::Entry { id, user, kind, amount });
                Some(Ok(body["balance"].as_i64()?))
            }
            402 => Some(Err(())),
            _ => None,
        }
    }

    /// Charges, uses and reads a wallet that two callers share.
    async fn save(mut self, wallet: usize) {
        let thing = SharedObject::Wallet(wallet);
        let mut left = 25;
        while self.going() && left > 0 {
            left -= 1;
            let (began, amount) = (Instant::now(), self.random.random_range(1..=900));
            let reported = |heard: Option<Result<i64, ()>>| {
                heard.map(|it| it.map_or(CallResult::Refused, CallResult::Balance))
            };
            match self.random.random_range(0..3) {
                0 => {
                    let heard = self.entry("charge", amount).await;
                    self.note(thing, CallKind::Add(amount), began, reported(heard));
                }
                1 => {
                    let heard = self.entry("use", amount).await;
                    self.note(thing, CallKind::Take(amount), began, reported(heard));
                }
                _ => {
                    let user = self.user.clone();
                    let heard =
                        self.call(Method::GET, "/v1/wallet", &[("usher-user", &user)], None).await;
                    if let Some((200, body)) = heard {
                        self.note(
                            thing,
                            CallKind::Read,
                            began,
                            body["balance"].as_i64().map(CallResult::Balance),
                        );
                    }
                }
            }
            self.rest(150).await;
        }
    }

    /// Requests the coupon and the reward repeatedly.
    async fn collect(mut self) {
        while self.going() {
            let user = self.user.clone();
            let who = [("usher-user", user.as_str())];
            let heard =
                self.call(Method::POST, &format!("/v1/coupons/{COUPON}/issues"), &who, None).await;
            if let Some((200 | 201, body)) = heard
                && let Some(id) = body["id"].as_str()
            {
                self.fact(ConfirmedEffect::Issue { id: id.to_owned(), user: user.clone() });
            }
            let heard =
                self.call(Method::POST, &format!("/v1/rewards/{REWARD}/claims"), &who, None).await;
            if let Some((201, body)) = heard
                && let Some(id) = body["id"].as_str()
            {
                self.fact(ConfirmedEffect::Claim { id: id.to_owned(), user: user.clone() });
            }
            self.rest(400).await;
        }
    }

    /// Waits in a queue until admitted. Returns the token, or `None` when the place was lost or
    /// given up.
    async fn enter(&mut self, queue: &str) -> Option<String> {
        let user = self.user.clone();
        let path = format!("/v1/queues/{queue}/tokens");
        let (status, ticket) =
            self.call(Method::POST, &path, &[("usher-user", &user)], None).await?;
        if ![200, 201].contains(&status) {
            return None;
        }
        let token = ticket["token"].as_str()?.to_owned();
        let mut active = ticket["status"] == "active";
        while self.going() && !active {
            self.rest(60).await;
            if self.random.random_bool(0.02) {
                self.leave(queue, &token).await;
                return None;
            }
            let (status, ticket) = self
                .call(Method::GET, &format!("{path}/me"), &[("queue-token", &token)], None)
                .await?;
            if status == 410 {
                return None;
            }
            active = ticket["status"] == "active";
        }
        active.then_some(token)
    }

    async fn leave(&mut self, queue: &str, token: &str) {
        let path = format!("/v1/queues/{queue}/tokens/me");
        self.call(Method::DELETE, &path, &[("queue-token", token)], None).await;
    }

    /// Takes part in draws: joins, sometimes leaves and joins again, and leaves once admitted.
    async fn draw(mut self) {
        while self.going() {
            if let Some(token) = self.enter(RAFFLE).await {
                self.leave(RAFFLE, &token).await;
            }
            self.rest(100).await;
        }
    }

    /// Plans one draw after the other.
    async fn open_draws(mut self) {
        while self.going() {
            let at = self.random.random_range(0..self.site.seats.len());
            let admin = self.site.seats[at].address.read().unwrap()[1].clone();
            let opens_at = Utc::now() + TimeDelta::milliseconds(600);
            let request = self
                .http
                .put(format!("{admin}/admin/queues/{RAFFLE}"))
                .timeout(CALL_TIMEOUT)
                .bearer_auth(ADMIN_KEY)
                .json(&draw_settings(opens_at));
            let _ = answer(request).await;
            self.rest(2_500).await;
        }
    }

    /// Books until the end of the round.
    async fn book(mut self) {
        let mut issue = None;
        while self.going() {
            let Some(token) = self.enter(QUEUE).await else {
                self.rest(100).await;
                continue;
            };
            if self.random.random_bool(0.3) {
                let _ = self.entry("charge", 2 * PRICE).await;
            }
            if issue.is_none() && self.random.random_bool(0.3) {
                let user = self.user.clone();
                let path = format!("/v1/coupons/{COUPON}/issues");
                let heard = self.call(Method::POST, &path, &[("usher-user", &user)], None).await;
                issue = heard
                    .filter(|(status, _)| *status < 300)
                    .and_then(|(_, body)| Some(body["id"].as_str()?.to_owned()));
            }
            if self.random.random_bool(0.1) {
                self.leave(QUEUE, &token).await;
                continue;
            }
            self.one_booking(&token, issue.clone()).await;
            self.rest(40).await;
        }
    }

    /// Holds a seat, then releases it, buys it and perhaps cancels, or lets it expire.
    async fn one_booking(&mut self, token: &str, issue: Option<String>) {
        let brief = self.random.random_bool(0.25);
        let schedule = if brief { SHORT_SCHEDULE } else { SCHEDULE };
        let number = self.random.random_range(1..=SEATS);
        let (seat, me, user) = (SharedObject::Seat(number), self.number, self.user.clone());
        let began = Instant::now();
        let body = json!({"schedule_id": schedule, "seats": [number]});
        let heard = self
            .call(Method::POST, "/v1/reservations", &[("queue-token", token)], Some(&body))
            .await;
        let ret = match &heard {
            Some((201, _)) => Some(CallResult::Done),
            Some((409, _)) => Some(CallResult::Refused),
            // Refused before it reached the seat or, by its own statement, before it had an effect.
            Some((400..500, _)) => return,
            _ if is_known(&heard) => return,
            _ => None,
        };
        let held = ret == Some(CallResult::Done);
        if !brief {
            self.note(seat, CallKind::Hold(me), began, ret);
        }
        let Some((_, body)) = heard.filter(|_| held) else { return };
        let Some(stay) = self.stays(schedule, number, &body) else { return };
        let Some(id) = body["id"].as_str().map(str::to_owned) else { return };
        let path = format!("/v1/reservations/{id}");
        match self.random.random_range(0..10) {
            0..7 => {}
            7..9 => {
                let began = Instant::now();
                self.leaves(stay);
                let heard = self.call(Method::DELETE, &path, &[("usher-user", &user)], None).await;
                let ret = heard.filter(|(status, _)| *status == 204).map(|_| CallResult::Done);
                if !brief {
                    self.note(seat, CallKind::Release(me), began, ret);
                }
                return;
            }
            _ => return,
        }
        let began = Instant::now();
        // Paid or not: the seat is sold, or free once the payment is declined.
        self.leaves(stay);
        let mut body = json!({"reservation_id": id});
        if let Some(issue) = issue {
            body["coupon_issue_id"] = json!(issue);
        }
        let mut heard = self.keyed("/v1/payments", &[("queue-token", token)], Some(&body)).await;
        if matches!(heard, Some((422, _))) {
            body.as_object_mut().unwrap().remove("coupon_issue_id");
            heard = self.keyed("/v1/payments", &[("queue-token", token)], Some(&body)).await;
        }
        let ret = match &heard {
            Some((201, _)) => Some(CallResult::Done),
            Some((400..500, _)) => Some(CallResult::Refused),
            _ => None,
        };
        let paid = ret == Some(CallResult::Done);
        if !brief {
            self.note(seat, CallKind::Buy(me), began, ret);
        }
        let Some((_, body)) = heard.filter(|_| paid) else { return };
        let Some(payment) = body["id"].as_str().map(str::to_owned) else { return };
        self.fact(ConfirmedEffect::Paid { payment, reservation: id.clone(), user: user.clone() });
        {
            let stay = &mut self.log.stays.lock().unwrap()[stay];
            (stay.until, stay.left) = (DateTime::<Utc>::MAX_UTC, None);
        }
        if self.random.random_bool(0.6) {
            let began = Instant::now();
            self.leaves(stay);
            let heard = self.keyed(&format!("{path}/cancel"), &[("usher-user", &user)], None).await;
            let done = matches!(heard, Some((200, _)));
            if done {
                self.fact(ConfirmedEffect::Cancelled { reservation: id });
            }
            if !brief {
                self.note(seat, CallKind::Cancel(me), began, done.then_some(CallResult::Done));
            }
        }
    }
}

/// A queue that opens with a draw.
pub(super) fn draw_settings(opens_at: DateTime<Utc>) -> Value {
    json!({"promote_per_interval": PER_INTERVAL, "interval_ms": INTERVAL_MS, "max_active": 3,
        "active_seconds": 2, "claim_seconds": 1, "restore_seconds": 1, "order": "lottery",
        "opens_at": opens_at})
}

async fn answer(request: reqwest::RequestBuilder) -> ReceivedResponse {
    let answer = request.send().await.ok()?;
    Some((answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null)))
}

/// Whether an error response guarantees that nothing was done.
fn is_known(heard: &ReceivedResponse) -> bool {
    let Some((503, body)) = heard else { return false };
    body["code"] == "recovering" || body["code"] == "overloaded"
}

/// Runs all users until they are stopped.
pub(super) async fn live(
    site: &ChaosSite<'_>,
    log: Arc<WorkloadLog>,
    stop: Arc<AtomicBool>,
    seed: u64,
) {
    let http = reqwest::Client::new();
    let mut names = SmallRng::seed_from_u64(seed);
    let mut name = || uuid::Builder::from_random_bytes(names.random()).into_uuid().to_string();
    let mut number = 0;
    let mut person = |user: String| {
        number += 1;
        let random = SmallRng::seed_from_u64(seed.wrapping_add(number as u64));
        let (http, log, stop) = (http.clone(), log.clone(), stop.clone());
        WorkloadUser {
            site,
            http,
            log,
            stop,
            random,
            user,
            number,
            asked: Instant::now(),
            durable: false,
        }
    };
    let mut people: Vec<futures::future::BoxFuture<'_, ()>> = Vec::new();
    for _ in 0..BOOKERS {
        people.push(Box::pin(person(name()).book()));
    }
    for _ in 0..ENTRANTS {
        people.push(Box::pin(person(name()).draw()));
    }
    people.push(Box::pin(person(name()).open_draws()));
    for wallet in 0..SAVERS {
        let user = name();
        people.push(Box::pin(person(user.clone()).save(wallet)));
        people.push(Box::pin(person(user).save(wallet)));
    }
    for _ in 0..COLLECTORS {
        people.push(Box::pin(person(name()).collect()));
    }
    futures::future::join_all(people).await;
}
