//! Random concurrent runs whose every call is written down as it began and as it ended: ok, refused, or unknown. Afterwards each seat's and each wallet's
//! history must be that of a thing which one call changes at a time, in an order that real time allows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};
use tokio::time::timeout;

use crate::support::api::Guest;
use crate::support::world::{fast_queue, night};
use crate::support::{Answer, Api, NIGHT, SHOW, World, new_key};

/// What a seat or a wallet is asked for. A caller is named by a number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    Hold(usize),
    Release(usize),
    Buy(usize),
    Cancel(usize),
    Add(i64),
    Take(i64),
    Read,
}

/// What it answers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ret {
    Done,
    Refused,
    Status(&'static str),
    Balance(i64),
}

/// A seat as it should be.
#[derive(Clone, Debug)]
pub(crate) enum Seat {
    Free,
    Held(usize),
    Sold(usize),
}

impl SequentialSpec for Seat {
    type Op = Op;
    type Ret = Ret;

    fn invoke(&mut self, op: &Op) -> Ret {
        let (after, ret) = match (&*self, op) {
            (Self::Free, Op::Hold(user)) => (Self::Held(*user), Ret::Done),
            (Self::Held(owner), Op::Release(user)) if owner == user => (Self::Free, Ret::Done),
            (Self::Held(owner), Op::Buy(user)) if owner == user => (Self::Sold(*user), Ret::Done),
            (Self::Sold(owner), Op::Cancel(user)) if owner == user => (Self::Free, Ret::Done),
            (Self::Free, Op::Read) => (Self::Free, Ret::Status("available")),
            (Self::Held(owner), Op::Read) => (Self::Held(*owner), Ret::Status("held")),
            (Self::Sold(owner), Op::Read) => (Self::Sold(*owner), Ret::Status("sold")),
            (same, _) => (same.clone(), Ret::Refused),
        };
        *self = after;
        ret
    }

    /// A purchase may be refused for want of money, which is nothing to the seat.
    fn is_valid_step(&mut self, op: &Op, ret: &Ret) -> bool {
        matches!((op, ret), (Op::Buy(_), Ret::Refused)) || self.invoke(op) == *ret
    }
}

/// A wallet as it should be.
#[derive(Clone, Debug)]
pub(crate) struct Wallet(pub(crate) i64);

impl SequentialSpec for Wallet {
    type Op = Op;
    type Ret = Ret;

    fn invoke(&mut self, op: &Op) -> Ret {
        match op {
            Op::Add(amount) => self.0 += amount,
            Op::Take(amount) if self.0 < *amount => return Ret::Refused,
            Op::Take(amount) => self.0 -= amount,
            _ => {}
        }
        Ret::Balance(self.0)
    }

    /// Not every answer tells the balance.
    fn is_valid_step(&mut self, op: &Op, ret: &Ret) -> bool {
        let told = self.invoke(op);
        told == *ret || *ret == Ret::Done && told != Ret::Refused
    }
}

/// The thing whose history an event belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Thing {
    Seat(u32),
    Wallet(usize),
}

/// One call on one thing. No end: nobody knows what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) thing: Thing,
    pub(crate) op: Op,
    pub(crate) began: Instant,
    pub(crate) end: Option<(Instant, Ret)>,
}

/// One of those who call. Callers share wallets: two are one user.
struct Caller {
    api: Api,
    guest: Guest,
    user: usize,
    number: usize,
    random: SmallRng,
    log: Vec<Call>,
}

const SEATS: u32 = 6;
const PRICE: i64 = 1_000;

impl Caller {
    /// Makes a call and writes it down for every thing that it is about.
    async fn call(
        &mut self,
        about: &[(Thing, Op)],
        call: impl Future<Output = Answer>,
        read: impl Fn(&Answer, Thing) -> Option<Ret>,
    ) -> Option<Answer> {
        let began = Instant::now();
        // Some callers don't wait for the answer: then what became of it is unknown.
        let patience = if self.random.random_bool(0.03) {
            Duration::from_millis(1)
        } else {
            Duration::from_secs(20)
        };
        let answer = timeout(patience, call).await.ok();
        let ended = Instant::now();
        for (thing, op) in about {
            let ret = answer.as_ref().and_then(|answer| read(answer, *thing));
            // Refused before it was about the thing at all.
            if ret.is_none()
                && answer.as_ref().is_some_and(|answer| (400..500).contains(&answer.status))
            {
                continue;
            }
            self.log.push(Call {
                thing: *thing,
                op: op.clone(),
                began,
                end: ret.map(|ret| (ended, ret)),
            });
        }
        answer
    }

    async fn wallet(&mut self) {
        let (api, user, amount) =
            (self.api.clone(), self.guest.user.clone(), self.random.random_range(1..=900));
        let (wallet, key) = (Thing::Wallet(self.user), new_key());
        let balance = |answer: &Answer, _| match answer.status {
            200 | 201 => answer.body["balance"].as_i64().map(Ret::Balance),
            402 => Some(Ret::Refused),
            _ => None,
        };
        let body = json!({"amount": amount});
        match self.random.random_range(0..3) {
            0 => {
                let call = api.post("/v1/wallet/charges").user(&user).key(&key).json(&body).send();
                self.call(&[(wallet, Op::Add(amount))], call, balance).await;
            }
            1 => {
                let call = api.post("/v1/wallet/uses").user(&user).key(&key).json(&body).send();
                self.call(&[(wallet, Op::Take(amount))], call, balance).await;
            }
            _ => {
                self.call(&[(wallet, Op::Read)], api.get("/v1/wallet").user(&user).send(), balance)
                    .await;
            }
        }
    }

    /// Stands in line once more: a purchase has used the slot up, this caller's or that of the other one of the same user.
    async fn join(&mut self) {
        let ticket = self.api.join(SHOW, &self.guest.user).await;
        self.guest.token = ticket.body["token"].as_str().unwrap().to_owned();
    }

    /// Holds a seat; then gives it back, or buys it and perhaps cancels.
    async fn seat(&mut self) {
        let (api, guest) = (self.api.clone(), self.guest.clone());
        let number = self.random.random_range(1..=SEATS);
        let (seat, wallet) = (Thing::Seat(number), Thing::Wallet(self.user));
        let done = |answer: &Answer, _| match answer.status {
            200 | 201 | 204 => Some(Ret::Done),
            402 | 409 => Some(Ret::Refused),
            _ => None,
        };
        let me = self.number;
        let wanted = [number];
        let hold = api.hold(&guest.token, NIGHT, &wanted);
        let Some(held) = self.call(&[(seat, Op::Hold(me))], hold, done).await else { return };
        if held.status != 201 {
            if held.status == 410 {
                self.join().await;
            }
            return;
        }
        let id = held.body["id"].as_str().unwrap().to_owned();
        let path = format!("/v1/reservations/{id}");
        if self.random.random_bool(0.6) {
            let key = new_key();
            let pay = api.pay(&guest.token, &id, &key);
            let both = [(seat, Op::Buy(me)), (wallet, Op::Take(PRICE))];
            let read = |answer: &Answer, thing| match (answer.status, thing) {
                (201, Thing::Wallet(_)) => answer.body["balance_after"].as_i64().map(Ret::Balance),
                _ => done(answer, thing),
            };
            let Some(paid) = self.call(&both, pay, read).await else { return };
            if paid.status == 201 {
                let key = new_key();
                let cancel = api.post(&format!("{path}/cancel")).user(&guest.user).key(&key).send();
                let both = [(seat, Op::Cancel(me)), (wallet, Op::Add(PRICE))];
                self.call(&both, cancel, done).await;
                return;
            }
        }
        let release = api.delete(&path).user(&guest.user).send();
        self.call(&[(seat, Op::Release(me))], release, done).await;
    }

    async fn live(mut self) -> Vec<Call> {
        for _ in 0..25 {
            match self.random.random_range(0..3) {
                0 => self.wallet().await,
                _ => self.seat().await,
            }
        }
        self.log
    }
}

/// Whether calls on one thing can have been made one at a time, starting from a state.
pub(crate) fn check<S: SequentialSpec<Op = Op, Ret = Ret> + Clone>(
    start: S,
    calls: &[(usize, Call)],
) -> bool {
    let mut tester = LinearizabilityTester::new(start);
    // In the order of real time; at one instant what begins comes first, which allows more orders, not fewer.
    let mut events = Vec::new();
    for (at, (caller, call)) in calls.iter().enumerate() {
        // A caller who does not know what became of a call goes on as another one.
        let thread = if call.end.is_some() { *caller } else { 1_000 + at };
        events.push((call.began, 0, thread, call));
        if let Some((ended, _)) = &call.end {
            events.push((*ended, 1, thread, call));
        }
    }
    events.sort_by_key(|(at, kind, ..)| (*at, *kind));
    for (_, kind, thread, call) in events {
        match (&call.end, kind) {
            (Some((_, ret)), 1) => tester.on_return(thread, ret.clone()).unwrap(),
            _ => tester.on_invoke(thread, call.op.clone()).unwrap(),
        };
    }
    tester.is_consistent()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_seat_and_every_wallet_changes_by_one_call_at_a_time() {
    let seed = crate::support::test_seed();
    let world = World::start(2).await;
    world.queue(SHOW, fast_queue()).await;
    let concert =
        json!({"title": "The show", "max_seats_per_user": 100, "schedules": [night(SEATS, PRICE)]});
    world.concert(SHOW, concert).await;
    let mut tasks = Vec::new();
    for user in 0..3_usize {
        let guest = world.api.active_guest(SHOW).await;
        for number in [2 * user, 2 * user + 1] {
            let random = SmallRng::seed_from_u64(seed.wrapping_add(number as u64));
            let (api, guest, log) = (world.api.clone(), guest.clone(), Vec::new());
            tasks.push(tokio::spawn(Caller { api, guest, user, number, random, log }.live()));
        }
    }
    let mut histories = BTreeMap::<Thing, Vec<(usize, Call)>>::new();
    for (caller, task) in tasks.into_iter().enumerate() {
        for call in task.await.unwrap() {
            histories.entry(call.thing).or_default().push((caller, call));
        }
    }
    for (thing, calls) in &histories {
        let sound = match thing {
            Thing::Seat(_) => check(Seat::Free, calls),
            Thing::Wallet(_) => check(Wallet(0), calls),
        };
        assert!(
            sound,
            "USHER_TEST_SEED={seed}: no order of these calls makes {thing:?}: {calls:#?}"
        );
    }
    world.stores.audit().await;
}

#[test]
fn the_check_sees_a_seat_held_twice_and_a_lost_update() {
    let now = Instant::now();
    let call = |caller: usize, op: Op, from: u64, to: u64, ret: Ret| {
        let at = |millis| now + Duration::from_millis(millis);
        (caller, Call { thing: Thing::Seat(1), op, began: at(from), end: Some((at(to), ret)) })
    };
    let twice = [call(0, Op::Hold(0), 0, 5, Ret::Done), call(1, Op::Hold(1), 3, 8, Ret::Done)];
    assert!(!check(Seat::Free, &twice));
    let once = [call(0, Op::Hold(0), 0, 5, Ret::Done), call(1, Op::Hold(1), 3, 8, Ret::Refused)];
    assert!(check(Seat::Free, &once));
    let stale =
        [call(0, Op::Hold(0), 0, 5, Ret::Done), call(1, Op::Read, 6, 8, Ret::Status("available"))];
    assert!(!check(Seat::Free, &stale));
    let lost =
        [call(0, Op::Add(5), 0, 5, Ret::Balance(5)), call(1, Op::Add(7), 3, 8, Ret::Balance(7))];
    assert!(!check(Wallet(0), &lost));
}
