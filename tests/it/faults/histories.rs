//! Random concurrent runs that record when every call started and ended: ok, refused or unknown.
//! Afterwards the history of each seat and each wallet must be linearizable: some order of its
//! calls, consistent with real time, explains every outcome.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};
use tokio::time::timeout;

use crate::support::api::TestUser;
use crate::support::world::{fast_queue_settings, schedule_definition};
use crate::support::{ApiClient, ApiResponse, CONCERT, SCHEDULE, TestWorld, new_key};

/// A call on a seat or a wallet. Callers are numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CallKind {
    Hold(usize),
    Release(usize),
    Buy(usize),
    Cancel(usize),
    Add(i64),
    Take(i64),
    Read,
}

/// The outcome of a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CallResult {
    Done,
    Refused,
    Status(&'static str),
    Balance(i64),
}

/// The model of a seat.
#[derive(Clone, Debug)]
pub(crate) enum SeatModel {
    Free,
    Held(usize),
    Sold(usize),
}

impl SequentialSpec for SeatModel {
    type Op = CallKind;
    type Ret = CallResult;

    fn invoke(&mut self, op: &CallKind) -> CallResult {
        let (after, ret) = match (&*self, op) {
            (Self::Free, CallKind::Hold(user)) => (Self::Held(*user), CallResult::Done),
            (Self::Held(owner), CallKind::Release(user)) if owner == user => {
                (Self::Free, CallResult::Done)
            }
            (Self::Held(owner), CallKind::Buy(user)) if owner == user => {
                (Self::Sold(*user), CallResult::Done)
            }
            (Self::Sold(owner), CallKind::Cancel(user)) if owner == user => {
                (Self::Free, CallResult::Done)
            }
            (Self::Free, CallKind::Read) => (Self::Free, CallResult::Status("available")),
            (Self::Held(owner), CallKind::Read) => (Self::Held(*owner), CallResult::Status("held")),
            (Self::Sold(owner), CallKind::Read) => (Self::Sold(*owner), CallResult::Status("sold")),
            (same, _) => (same.clone(), CallResult::Refused),
        };
        *self = after;
        ret
    }

    /// A purchase may be refused for lack of money, which does not concern the seat.
    fn is_valid_step(&mut self, op: &CallKind, ret: &CallResult) -> bool {
        matches!((op, ret), (CallKind::Buy(_), CallResult::Refused)) || self.invoke(op) == *ret
    }
}

/// The model of a wallet, with its balance.
#[derive(Clone, Debug)]
pub(crate) struct WalletModel(pub(crate) i64);

impl SequentialSpec for WalletModel {
    type Op = CallKind;
    type Ret = CallResult;

    fn invoke(&mut self, op: &CallKind) -> CallResult {
        match op {
            CallKind::Add(amount) => self.0 += amount,
            CallKind::Take(amount) if self.0 < *amount => return CallResult::Refused,
            CallKind::Take(amount) => self.0 -= amount,
            _ => {}
        }
        CallResult::Balance(self.0)
    }

    /// Not every response contains the balance.
    fn is_valid_step(&mut self, op: &CallKind, ret: &CallResult) -> bool {
        let reported = self.invoke(op);
        reported == *ret || *ret == CallResult::Done && reported != CallResult::Refused
    }
}

/// The object whose history a call belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SharedObject {
    Seat(u32),
    Wallet(usize),
}

/// One call on one object. Without an end its outcome is unknown.
#[derive(Clone, Debug)]
pub(crate) struct RecordedCall {
    pub(crate) thing: SharedObject,
    pub(crate) op: CallKind,
    pub(crate) began: Instant,
    pub(crate) end: Option<(Instant, CallResult)>,
}

/// Callers share wallets: two callers are one user.
struct RandomCaller {
    api: ApiClient,
    guest: TestUser,
    user: usize,
    number: usize,
    random: SmallRng,
    log: Vec<RecordedCall>,
}

const SEATS: u32 = 6;
const PRICE: i64 = 1_000;

impl RandomCaller {
    /// Makes a call and records it for every object that it concerns.
    async fn call(
        &mut self,
        about: &[(SharedObject, CallKind)],
        call: impl Future<Output = ApiResponse>,
        read: impl Fn(&ApiResponse, SharedObject) -> Option<CallResult>,
    ) -> Option<ApiResponse> {
        let began = Instant::now();
        // Some callers disconnect early, so the outcome is unknown.
        let patience = if self.random.random_bool(0.03) {
            Duration::from_millis(1)
        } else {
            Duration::from_secs(20)
        };
        let answer = timeout(patience, call).await.ok();
        let ended = Instant::now();
        for (thing, op) in about {
            let ret = answer.as_ref().and_then(|answer| read(answer, *thing));
            // Refused before it reached the object.
            if ret.is_none()
                && answer.as_ref().is_some_and(|answer| (400..500).contains(&answer.status))
            {
                continue;
            }
            self.log.push(RecordedCall {
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
        let (wallet, key) = (SharedObject::Wallet(self.user), new_key());
        let balance = |answer: &ApiResponse, _| match answer.status {
            200 | 201 => answer.body["balance"].as_i64().map(CallResult::Balance),
            402 => Some(CallResult::Refused),
            _ => None,
        };
        let body = json!({"amount": amount});
        match self.random.random_range(0..3) {
            0 => {
                let call = api.post("/v1/wallet/charges").user(&user).key(&key).json(&body).send();
                self.call(&[(wallet, CallKind::Add(amount))], call, balance).await;
            }
            1 => {
                let call = api.post("/v1/wallet/uses").user(&user).key(&key).json(&body).send();
                self.call(&[(wallet, CallKind::Take(amount))], call, balance).await;
            }
            _ => {
                self.call(
                    &[(wallet, CallKind::Read)],
                    api.get("/v1/wallet").user(&user).send(),
                    balance,
                )
                .await;
            }
        }
    }

    /// Joins again: a purchase has used the slot, of this caller or of the other one with the same
    /// user.
    async fn join(&mut self) {
        let ticket = self.api.join(CONCERT, &self.guest.user).await;
        self.guest.token = ticket.body["token"].as_str().unwrap().to_owned();
    }

    /// Holds a seat, then releases it, or buys it and perhaps cancels.
    async fn seat(&mut self) {
        let (api, guest) = (self.api.clone(), self.guest.clone());
        let number = self.random.random_range(1..=SEATS);
        let (seat, wallet) = (SharedObject::Seat(number), SharedObject::Wallet(self.user));
        let done = |answer: &ApiResponse, _| match answer.status {
            200 | 201 | 204 => Some(CallResult::Done),
            402 | 409 => Some(CallResult::Refused),
            _ => None,
        };
        let me = self.number;
        let wanted = [number];
        let hold = api.hold(&guest.token, SCHEDULE, &wanted);
        let Some(held) = self.call(&[(seat, CallKind::Hold(me))], hold, done).await else { return };
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
            let both = [(seat, CallKind::Buy(me)), (wallet, CallKind::Take(PRICE))];
            let read = |answer: &ApiResponse, thing| match (answer.status, thing) {
                (201, SharedObject::Wallet(_)) => {
                    answer.body["balance_after"].as_i64().map(CallResult::Balance)
                }
                _ => done(answer, thing),
            };
            let Some(paid) = self.call(&both, pay, read).await else { return };
            if paid.status == 201 {
                let key = new_key();
                let cancel = api.post(&format!("{path}/cancel")).user(&guest.user).key(&key).send();
                let both = [(seat, CallKind::Cancel(me)), (wallet, CallKind::Add(PRICE))];
                self.call(&both, cancel, done).await;
                return;
            }
        }
        let release = api.delete(&path).user(&guest.user).send();
        self.call(&[(seat, CallKind::Release(me))], release, done).await;
    }

    async fn live(mut self) -> Vec<RecordedCall> {
        for _ in 0..25 {
            match self.random.random_range(0..3) {
                0 => self.wallet().await,
                _ => self.seat().await,
            }
        }
        self.log
    }
}

/// Whether the calls on one object have a valid order that starts from a state.
pub(crate) fn check<S: SequentialSpec<Op = CallKind, Ret = CallResult> + Clone>(
    start: S,
    calls: &[(usize, RecordedCall)],
) -> bool {
    let mut tester = LinearizabilityTester::new(start);
    // In the order of real time. At the same instant a start precedes an end, which allows more
    // orders, not fewer.
    let mut events = Vec::new();
    for (at, (caller, call)) in calls.iter().enumerate() {
        // A caller with an unknown outcome continues under a new number.
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
async fn seat_and_wallet_histories_are_linearizable() {
    let seed = crate::support::test_seed();
    let world = TestWorld::start(2).await;
    world.put_queue(CONCERT, fast_queue_settings()).await;
    let concert = json!({"title": "The show", "max_seats_per_user": 100,
        "schedules": [schedule_definition(SEATS, PRICE)]});
    world.put_concert(CONCERT, concert).await;
    let mut tasks = Vec::new();
    for user in 0..3_usize {
        let guest = world.api.active_user(CONCERT).await;
        for number in [2 * user, 2 * user + 1] {
            let random = SmallRng::seed_from_u64(seed.wrapping_add(number as u64));
            let (api, guest, log) = (world.api.clone(), guest.clone(), Vec::new());
            tasks.push(tokio::spawn(RandomCaller { api, guest, user, number, random, log }.live()));
        }
    }
    let mut histories = BTreeMap::<SharedObject, Vec<(usize, RecordedCall)>>::new();
    for (caller, task) in tasks.into_iter().enumerate() {
        for call in task.await.unwrap() {
            histories.entry(call.thing).or_default().push((caller, call));
        }
    }
    for (thing, calls) in &histories {
        let sound = match thing {
            SharedObject::Seat(_) => check(SeatModel::Free, calls),
            SharedObject::Wallet(_) => check(WalletModel(0), calls),
        };
        assert!(
            sound,
            "USHER_TEST_SEED={seed}: no order of these calls makes {thing:?}: {calls:#?}"
        );
    }
    world.stores.audit().await;
}

#[test]
fn check_detects_a_double_hold_and_a_lost_update() {
    let now = Instant::now();
    let call = |caller: usize, op: CallKind, from: u64, to: u64, ret: CallResult| {
        let at = |millis| now + Duration::from_millis(millis);
        (
            caller,
            RecordedCall {
                thing: SharedObject::Seat(1),
                op,
                began: at(from),
                end: Some((at(to), ret)),
            },
        )
    };
    let twice = [
        call(0, CallKind::Hold(0), 0, 5, CallResult::Done),
        call(1, CallKind::Hold(1), 3, 8, CallResult::Done),
    ];
    assert!(!check(SeatModel::Free, &twice));
    let once = [
        call(0, CallKind::Hold(0), 0, 5, CallResult::Done),
        call(1, CallKind::Hold(1), 3, 8, CallResult::Refused),
    ];
    assert!(check(SeatModel::Free, &once));
    let stale = [
        call(0, CallKind::Hold(0), 0, 5, CallResult::Done),
        call(1, CallKind::Read, 6, 8, CallResult::Status("available")),
    ];
    assert!(!check(SeatModel::Free, &stale));
    let lost = [
        call(0, CallKind::Add(5), 0, 5, CallResult::Balance(5)),
        call(1, CallKind::Add(7), 3, 8, CallResult::Balance(7)),
    ];
    assert!(!check(WalletModel(0), &lost));
}
