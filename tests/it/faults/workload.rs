//! The people of a round: they book, pay, cancel, fill their wallets and collect coupons on all instances, and write down what they hear.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};

use super::site::{Site, is_durable};
use crate::faults::histories::{Call, Op, Ret, Thing};
use crate::support::{NIGHT, SHOW, new_key};

/// The queue of everything that is booked.
pub(super) const SHOW_QUEUE: &str = SHOW;
pub(super) const SEATS: u32 = 20;
pub(super) const PRICE: i64 = 1_000;
pub(super) const BRIEF: &str = "brief";
pub(super) const BRIEF_NIGHT: &str = "brief-night";
pub(super) const COUPON: &str = "off";
pub(super) const QUOTA: usize = 12;
pub(super) const REWARD: &str = "hello";
pub(super) const MAX_ACTIVE: i64 = 8;
pub(super) const PER_INTERVAL: i64 = 6;
pub(super) const INTERVAL_MS: i64 = 200;
const BOOKERS: usize = 14;
const SAVERS: usize = 3;
const COLLECTORS: usize = 18;

/// How long a caller waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Something that was answered as done, and so must be there in the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fact {
    Entry { id: String, user: String, kind: &'static str, amount: i64 },
    Paid { payment: String, reservation: String, user: String },
    Cancelled { reservation: String },
    Issue { id: String, user: String },
    Claim { id: String, user: String },
}

/// A fact, when it was asked for, and whether by an instance that answers only what is durable.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) asked: Instant,
    pub(super) durable: bool,
    pub(super) fact: Fact,
}

/// A seat that was told to be somebody's, from the moment to the moment that Redis' clock says.
#[derive(Debug)]
pub(super) struct Stay {
    pub(super) schedule: &'static str,
    pub(super) seat: u32,
    pub(super) reservation: String,
    pub(super) from: DateTime<Utc>,
    pub(super) until: DateTime<Utc>,
    /// When it was told.
    pub(super) heard: Instant,
    /// When a call began that may have ended it early.
    pub(super) left: Option<Instant>,
}

/// What everybody writes to.
#[derive(Default)]
pub(super) struct Log {
    pub(super) stays: Mutex<Vec<Stay>>,
    pub(super) facts: Mutex<Vec<Told>>,
    /// Calls on one thing, with the number of the caller.
    pub(super) calls: Mutex<BTreeMap<Thing, Vec<(usize, Call)>>>,
    /// What must never be heard.
    pub(super) wrong: Mutex<Vec<String>>,
    pub(super) ok: AtomicUsize,
    pub(super) refused: AtomicUsize,
    pub(super) unknown: AtomicUsize,
}

/// Answers: the status and the body; nothing when none came.
type Heard = Option<(u16, Value)>;

/// One of the people.
struct Person<'a> {
    site: &'a Site<'a>,
    http: reqwest::Client,
    log: Arc<Log>,
    stop: Arc<AtomicBool>,
    random: SmallRng,
    user: String,
    number: usize,
    /// When the last call was made.
    asked: Instant,
    /// Whether it went to an instance that answers only what is durable.
    durable: bool,
}

impl Person<'_> {
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
        let mut request = self.http.request(method, url).timeout(PATIENCE);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match body {
            Some(body) => request.json(body),
            None => request,
        }
    }

    /// One call on any instance.
    async fn call(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Heard {
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

    /// A call under one key, again and again until its outcome is known. Now and then it has a twin on every instance: a double click.
    async fn keyed(&mut self, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Heard {
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
        // A refusal is not kept: a twin may have come at a better moment.
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
    ) -> Heard {
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

    fn fact(&self, fact: Fact) {
        let told = Told { asked: self.asked, durable: self.durable, fact };
        self.log.facts.lock().unwrap().push(told);
    }

    fn note(&self, thing: Thing, op: Op, began: Instant, ret: Option<Ret>) {
        let call = Call { thing, op, began, end: ret.map(|ret| (Instant::now(), ret)) };
        self.log.calls.lock().unwrap().entry(thing).or_default().push((self.number, call));
    }

    /// Notes that a seat is this one's. Gives the number of the note.
    fn stays(&self, schedule: &'static str, seat: u32, told: &Value) -> Option<usize> {
        let moment = |name: &str| told[name].as_str()?.parse().ok();
        let stay = Stay {
            schedule,
            seat,
            reservation: told["id"].as_str()?.to_owned(),
            from: moment("created_at")?,
            until: moment("held_until")?,
            heard: Instant::now(),
            left: None,
        };
        let mut stays = self.log.stays.lock().unwrap();
        stays.push(stay);
        Some(stays.len() - 1)
    }

    /// From now on it may not be any more.
    fn leaves(&self, stay: usize) {
        self.log.stays.lock().unwrap()[stay].left.get_or_insert_with(Instant::now);
    }

    /// Puts money in or takes some out. Gives the balance that was heard, nothing where the outcome is not known, and `Err` for a refusal.
    async fn entry(&mut self, kind: &'static str, amount: i64) -> Option<Result<i64, ()>> {
        let user = self.user.clone();
        let path = if kind == "charge" { "/v1/wallet/charges" } else { "/v1/wallet/uses" };
        let (status, body) =
            self.keyed(path, &[("usher-user", &user)], Some(&json!({"amount": amount}))).await?;
        match status {
            201 => {
                let id = body["id"].as_str()?.to_owned();
                self.fact(Fact::Entry { id, user, kind, amount });
                Some(Ok(body["balance"].as_i64()?))
            }
            402 => Some(Err(())),
            _ => None,
        }
    }

    /// Fills and empties a wallet that two share, and reads it.
    async fn save(mut self, wallet: usize) {
        let thing = Thing::Wallet(wallet);
        let mut left = 25;
        while self.going() && left > 0 {
            left -= 1;
            let (began, amount) = (Instant::now(), self.random.random_range(1..=900));
            let told = |heard: Option<Result<i64, ()>>| {
                heard.map(|it| it.map_or(Ret::Refused, Ret::Balance))
            };
            match self.random.random_range(0..3) {
                0 => {
                    let heard = self.entry("charge", amount).await;
                    self.note(thing, Op::Add(amount), began, told(heard));
                }
                1 => {
                    let heard = self.entry("use", amount).await;
                    self.note(thing, Op::Take(amount), began, told(heard));
                }
                _ => {
                    let user = self.user.clone();
                    let heard =
                        self.call(Method::GET, "/v1/wallet", &[("usher-user", &user)], None).await;
                    if let Some((200, body)) = heard {
                        self.note(
                            thing,
                            Op::Read,
                            began,
                            body["balance"].as_i64().map(Ret::Balance),
                        );
                    }
                }
            }
            self.rest(150).await;
        }
    }

    /// Collects the coupon and the reward, again and again.
    async fn collect(mut self) {
        while self.going() {
            let user = self.user.clone();
            let who = [("usher-user", user.as_str())];
            let heard =
                self.call(Method::POST, &format!("/v1/coupons/{COUPON}/issues"), &who, None).await;
            if let Some((200 | 201, body)) = heard
                && let Some(id) = body["id"].as_str()
            {
                self.fact(Fact::Issue { id: id.to_owned(), user: user.clone() });
            }
            let heard =
                self.call(Method::POST, &format!("/v1/rewards/{REWARD}/claims"), &who, None).await;
            if let Some((201, body)) = heard
                && let Some(id) = body["id"].as_str()
            {
                self.fact(Fact::Claim { id: id.to_owned(), user: user.clone() });
            }
            self.rest(400).await;
        }
    }

    /// Stands in line until it is let in, for a while. Gives the token.
    async fn enter(&mut self) -> Option<String> {
        let user = self.user.clone();
        let path = format!("/v1/queues/{SHOW}/tokens");
        let (status, ticket) =
            self.call(Method::POST, &path, &[("usher-user", &user)], None).await?;
        if ![200, 201].contains(&status) {
            return None;
        }
        let token = ticket["token"].as_str()?.to_owned();
        let mut active = ticket["status"] == "active";
        while self.going() && !active {
            self.rest(60).await;
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

    /// Books until the end of the round.
    async fn book(mut self) {
        let mut issue = None;
        while self.going() {
            let Some(token) = self.enter().await else {
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
            self.one_booking(&token, issue.clone()).await;
            self.rest(40).await;
        }
    }

    /// Holds a seat; then gives it back, buys it and perhaps cancels, or lets it lapse.
    async fn one_booking(&mut self, token: &str, issue: Option<String>) {
        let brief = self.random.random_bool(0.25);
        let schedule = if brief { BRIEF_NIGHT } else { NIGHT };
        let number = self.random.random_range(1..=SEATS);
        let (seat, me, user) = (Thing::Seat(number), self.number, self.user.clone());
        let began = Instant::now();
        let body = json!({"schedule_id": schedule, "seats": [number]});
        let heard = self
            .call(Method::POST, "/v1/reservations", &[("queue-token", token)], Some(&body))
            .await;
        let ret = match &heard {
            Some((201, _)) => Some(Ret::Done),
            Some((409, _)) => Some(Ret::Refused),
            // Refused before it was about the seat, or, by its own word, before anything was done.
            Some((400..500, _)) => return,
            _ if is_known(&heard) => return,
            _ => None,
        };
        let held = ret == Some(Ret::Done);
        if !brief {
            self.note(seat, Op::Hold(me), began, ret);
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
                let ret = heard.filter(|(status, _)| *status == 204).map(|_| Ret::Done);
                if !brief {
                    self.note(seat, Op::Release(me), began, ret);
                }
                return;
            }
            _ => return,
        }
        let began = Instant::now();
        // Whether it is paid or not: sold for good, or nobody's once the payment is declined.
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
            Some((201, _)) => Some(Ret::Done),
            Some((400..500, _)) => Some(Ret::Refused),
            _ => None,
        };
        let paid = ret == Some(Ret::Done);
        if !brief {
            self.note(seat, Op::Buy(me), began, ret);
        }
        let Some((_, body)) = heard.filter(|_| paid) else { return };
        let Some(payment) = body["id"].as_str().map(str::to_owned) else { return };
        self.fact(Fact::Paid { payment, reservation: id.clone(), user: user.clone() });
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
                self.fact(Fact::Cancelled { reservation: id });
            }
            if !brief {
                self.note(seat, Op::Cancel(me), began, done.then_some(Ret::Done));
            }
        }
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Heard {
    let answer = request.send().await.ok()?;
    Some((answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null)))
}

/// Whether an answer that is none says at least that nothing was done.
fn is_known(heard: &Heard) -> bool {
    matches!(heard, Some((503, body)) if ["recovering", "overloaded"].contains(&body["code"].as_str().unwrap_or_default()))
}

/// Everybody, until they are told to stop.
pub(super) async fn live(site: &Site<'_>, log: Arc<Log>, stop: Arc<AtomicBool>, seed: u64) {
    let http = reqwest::Client::new();
    let mut names = SmallRng::seed_from_u64(seed);
    let mut name = || uuid::Builder::from_random_bytes(names.random()).into_uuid().to_string();
    let mut number = 0;
    let mut person = |user: String| {
        number += 1;
        let random = SmallRng::seed_from_u64(seed.wrapping_add(number as u64));
        let (http, log, stop) = (http.clone(), log.clone(), stop.clone());
        Person {
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
