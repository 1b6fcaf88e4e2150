//! Model check of partial cancellation: `lua/payment/{begin_cancel,finish_cancel}.lua` and
//! `lua/wallet/refund_cancelled.lua`, reduced to their decisions. One confirmed payment for three
//! seats, and requests under three keys that want one seat each, two seats, and all that are left.
//! Each step may come repeatedly and late: a message that was sent stays in the bag.

use stateright::{Checker, HasDiscoveries, Model, Property};

const PRICES: [i8; 3] = [3, 3, 1];
const PAID: i8 = 5;
const ALL_SEATS: u8 = 0b111;
/// The seats that a key wants; 0: all that are left.
const REQUESTS: [u8; 4] = [0b001, 0b110, 0b010, 0];

/// A check in a script that can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CancelGuard {
    /// `begin_cancel.lua`: the seats belong to the reservation.
    OwnedInBegin,
    /// `begin_cancel.lua`: no cancellation is in progress.
    NoneInProgress,
    /// `begin_cancel.lua`: the last seats give back the rest.
    RestOfLast,
    /// `refund_cancelled.lua`: the total is not refunded yet.
    TotalInRefund,
    /// `finish_cancel.lua`: the number is that of the cancellation in progress.
    NumberInFinish,
}

const GUARDS: [CancelGuard; 5] = [
    CancelGuard::OwnedInBegin,
    CancelGuard::NoneInProgress,
    CancelGuard::RestOfLast,
    CancelGuard::TotalInRefund,
    CancelGuard::NumberInFinish,
];

/// A cancellation, from its commit point on. It is also the message of its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct SeatCancel {
    number: usize,
    key: usize,
    seats: u8,
    total: i8,
    last: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CancelState {
    /// The seats that the reservation has.
    seats: u8,
    /// Seats that are free again, counted.
    freed: [u8; 3],
    in_progress: Option<SeatCancel>,
    done: Vec<SeatCancel>,
    refunded: i8,
    /// In the wallet: the total that was refunded.
    wallet_total: i8,
    balance: i8,
    /// Sent and not lost, in order.
    refunds: Vec<SeatCancel>,
    finishes: Vec<SeatCancel>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CancelStep {
    Begin(usize),
    Refund(SeatCancel),
    Finish(SeatCancel),
}

struct CancelModel {
    removed: Option<CancelGuard>,
}

/// The refund of some seats, rounded down.
fn share(seats: u8) -> i8 {
    let price: i8 = (0..3).filter(|seat| seats & 1 << seat != 0).map(|seat| PRICES[seat]).sum();
    PAID * price / PRICES.iter().sum::<i8>()
}

fn send(messages: &mut Vec<SeatCancel>, message: SeatCancel) {
    if let Err(at) = messages.binary_search(&message) {
        messages.insert(at, message);
    }
}

impl CancelModel {
    fn begin(&self, state: &mut CancelState, key: usize) {
        let keeps = |guard| self.removed != Some(guard);
        if state.done.iter().any(|it| it.key == key) {
            return;
        }
        if let Some(running) = state.in_progress
            && keeps(CancelGuard::NoneInProgress)
        {
            // Under the same key it is joined, under another one finished first.
            send(&mut state.refunds, running);
            return;
        }
        let seats = if REQUESTS[key] == 0 { state.seats } else { REQUESTS[key] };
        let owned = seats & state.seats == seats;
        // The model has room for three cancellations.
        if seats == 0 || state.seats == 0 || state.done.len() > 2 {
            return;
        }
        if keeps(CancelGuard::OwnedInBegin) && !owned {
            return;
        }
        let last = seats == state.seats;
        let refund = if last && keeps(CancelGuard::RestOfLast) {
            PAID - state.refunded
        } else {
            share(seats)
        };
        let number = state.done.len() + 1;
        let begun = SeatCancel { number, key, seats, total: state.refunded + refund, last };
        state.in_progress = Some(begun);
        send(&mut state.refunds, begun);
    }

    fn refund(&self, state: &mut CancelState, message: SeatCancel) {
        let again = self.removed == Some(CancelGuard::TotalInRefund);
        let amount = if again { message.total } else { message.total - state.wallet_total };
        if amount > 0 && state.balance <= 2 * PAID {
            state.balance += amount;
            state.wallet_total = message.total;
        }
        send(&mut state.finishes, message);
    }

    fn finish(&self, state: &mut CancelState, message: SeatCancel) {
        let late = self.removed == Some(CancelGuard::NumberInFinish);
        let Some(running) = state.in_progress.filter(|it| late || it.number == message.number)
        else {
            return;
        };
        state.in_progress = None;
        state.seats &= !running.seats;
        for seat in 0..3 {
            state.freed[seat] += running.seats >> seat & 1;
        }
        state.refunded = running.total;
        state.done.push(running);
    }

    fn apply(&self, state: &mut CancelState, step: CancelStep) {
        match step {
            CancelStep::Begin(key) => self.begin(state, key),
            CancelStep::Refund(message) => self.refund(state, message),
            CancelStep::Finish(message) => self.finish(state, message),
        }
    }

    /// The state after the sweep has finished what is in progress.
    fn final_state(&self, state: &CancelState) -> CancelState {
        let mut state = state.clone();
        if let Some(running) = state.in_progress {
            self.refund(&mut state, running);
            self.finish(&mut state, running);
        }
        state
    }

    fn invariants() -> Vec<Property<Self>> {
        vec![
            Property::always("money conserved", |model, state: &CancelState| {
                let rest = model.final_state(state);
                rest.balance == rest.refunded && rest.refunded <= PAID
            }),
            Property::always("a freed seat was refunded", |_, state: &CancelState| {
                state.balance >= state.refunded
            }),
            Property::always("each seat is cancelled once", |_, state: &CancelState| {
                state.freed.iter().all(|times| *times <= 1)
            }),
            Property::always("one cancellation under each key", |_, state: &CancelState| {
                let all = state.done.iter().chain(&state.in_progress);
                let keys: Vec<_> = all.map(|it| it.key).collect();
                keys.iter().all(|key| keys.iter().filter(|it| *it == key).count() == 1)
            }),
            Property::always("the last seats give back the rest", |_, state: &CancelState| {
                state.seats != 0 || state.refunded == PAID
            }),
        ]
    }
}

impl Model for CancelModel {
    type State = CancelState;
    type Action = CancelStep;

    fn init_states(&self) -> Vec<CancelState> {
        vec![CancelState {
            seats: ALL_SEATS,
            freed: [0; 3],
            in_progress: None,
            done: Vec::new(),
            refunded: 0,
            wallet_total: 0,
            balance: 0,
            refunds: Vec::new(),
            finishes: Vec::new(),
        }]
    }

    fn actions(&self, state: &CancelState, actions: &mut Vec<CancelStep>) {
        actions.extend((0..REQUESTS.len()).map(CancelStep::Begin));
        actions.extend(state.refunds.iter().copied().map(CancelStep::Refund));
        actions.extend(state.finishes.iter().copied().map(CancelStep::Finish));
    }

    fn next_state(&self, before: &CancelState, step: CancelStep) -> Option<CancelState> {
        let mut after = before.clone();
        self.apply(&mut after, step);
        (after != *before).then_some(after)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = Self::invariants();
        if self.removed.is_none() {
            properties.push(Property::sometimes(
                "all seats, in three steps",
                |_, state: &CancelState| state.seats == 0 && state.done.len() == 3,
            ));
        }
        properties
    }
}

#[test]
fn partial_cancellation_holds_in_every_state() {
    let checker = CancelModel { removed: None }.checker().threads(2).spawn_bfs().join();
    eprintln!("{} states", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn removing_a_guard_of_partial_cancellation_breaks_an_invariant() {
    for guard in GUARDS {
        let model = CancelModel { removed: Some(guard) };
        let checker = model.checker().threads(2);
        let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        assert!(!checker.discoveries().is_empty(), "nothing breaks without {guard:?}");
    }
}
