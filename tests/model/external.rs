//! Model check of external payments: `lua/payment/{await_external,confirm_external,void,
//! finish_void,claim_reference}.lua` and the wallet part, reduced to their decisions. The provider
//! is an actor: it takes the money early, late, twice or never, under one of two references for
//! either payment, and the backend confirms at any time, repeatedly, with the right or a wrong
//! amount, also after a void. The first payment may have two attempts. Each step may come
//! repeatedly and late: a message that was sent stays in the bag.

use stateright::{Checker, HasDiscoveries, Model, Property};

/// price = discount + wallet part + due
const PRICE: i8 = 4;
const DISCOUNT: i8 = 1;
const WALLET_PART: i8 = 1;
const DUE: i8 = 2;
/// What the wallet has: enough for both payments.
const CHARGED: i8 = 2 * WALLET_PART;
/// The amounts that a confirmation may name.
const AMOUNTS: [i8; 2] = [DUE, DUE - 1];
const ATTEMPTS: [u8; 2] = [2, 1];

/// A check in a script or in the service that can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExternalGuard {
    /// `await_external.lua`: the attempt is the current one.
    AttemptInAwait,
    /// `await_external.lua`: the payment is pending.
    PendingInAwait,
    /// `confirm_external.lua`: the attempt is the current one.
    AttemptInConfirm,
    /// `confirm_external.lua`: the payment is pending.
    PendingInConfirm,
    /// `confirm_external.lua`: its time is not over.
    TimeInConfirm,
    /// `confirm_external.lua`: the amount is what is due.
    AmountInConfirm,
    /// `src/payment/external.rs`: the claim of the reference comes before the confirmation.
    ClaimBeforeConfirm,
    /// `claim_reference.lua`: the claim of an earlier attempt is replaced, not of a later one.
    LaterInClaim,
    /// `src/payment/external.rs`: only a stale claim is replaced.
    StaleInReplace,
    /// `claim_reference.lua`: the claim that is replaced is the one that was found to be stale.
    SameInReplace,
    /// `wallet/debit.lua`: there is no tombstone.
    TombstoneInDebit,
    /// `src/payment/flow.rs`: a refund comes after the void.
    VoidBeforeRefund,
    /// `lib/seat.lua`: a seat that is being paid is not free.
    PayingInHold,
}

const GUARDS: [ExternalGuard; 13] = [
    ExternalGuard::AttemptInAwait,
    ExternalGuard::PendingInAwait,
    ExternalGuard::AttemptInConfirm,
    ExternalGuard::PendingInConfirm,
    ExternalGuard::TimeInConfirm,
    ExternalGuard::AmountInConfirm,
    ExternalGuard::ClaimBeforeConfirm,
    ExternalGuard::LaterInClaim,
    ExternalGuard::StaleInReplace,
    ExternalGuard::SameInReplace,
    ExternalGuard::TombstoneInDebit,
    ExternalGuard::VoidBeforeRefund,
    ExternalGuard::PayingInHold,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum WaitPhase {
    None,
    Pending,
    /// Pending, and what is due is fixed.
    Waiting,
    Voiding,
    Voided,
    Confirmed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum PartDebit {
    None,
    Debited,
    Tombstone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct WaitingPayment {
    phase: WaitPhase,
    /// From 1; 0 before the first.
    attempt: u8,
    /// The clock has passed `due_at` of the current attempt.
    is_over: bool,
    /// The reference and the amount that paid.
    paid: Option<(usize, i8)>,
}

/// What a confirmation was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ConfirmAnswer {
    Confirmed,
    Voided,
    Other,
}

/// Payment, attempt from 0, reference and index of the amount of a confirmation.
type Confirmation = (usize, usize, usize, usize);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ExternalState {
    payments: [WaitingPayment; 2],
    /// Whether a rival has the seat of the payment.
    rivals: [bool; 2],
    ops: [[PartDebit; 2]; 2],
    balance: i8,
    /// By reference: payment and attempt, from 0.
    claims: [Option<(usize, usize)>; 2],
    /// By payment and reference: the provider has taken the money.
    taken: [[bool; 2]; 2],
    /// By payment and reference: the last answer.
    answers: [[Option<ConfirmAnswer>; 2]; 2],
    /// A seat was sold after the time of its payment.
    sold_late: bool,
    /// Messages that were sent.
    awaits: [[bool; 2]; 2],
    awaited: [[bool; 2]; 2],
    refunds: [[bool; 2]; 2],
    finishes: [[bool; 2]; 2],
    /// In order.
    replaces: Vec<(Confirmation, (usize, usize))>,
    confirms: Vec<Confirmation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExternalStep {
    Begin(usize),
    Debit(usize, usize),
    Await(usize, usize),
    TimePasses(usize),
    /// The provider takes the money.
    Take(usize, usize),
    Claim(Confirmation),
    Replace(Confirmation, (usize, usize)),
    Confirm(Confirmation),
    Void(usize, usize),
    Refund(usize, usize),
    FinishVoid(usize, usize),
    Rival(usize),
}

struct ExternalModel {
    removed: Option<ExternalGuard>,
}

fn send<T: Ord>(messages: &mut Vec<T>, message: T) {
    if let Err(at) = messages.binary_search(&message) {
        messages.insert(at, message);
    }
}

impl WaitingPayment {
    fn current(self) -> usize {
        usize::from(self.attempt.max(1)) - 1
    }

    fn is_confirmed(self) -> bool {
        self.phase == WaitPhase::Confirmed
    }

    fn is_pending(self) -> bool {
        matches!(self.phase, WaitPhase::Pending | WaitPhase::Waiting)
    }
}

impl ExternalModel {
    fn keeps(&self, guard: ExternalGuard) -> bool {
        self.removed != Some(guard)
    }

    fn begin(&self, state: &mut ExternalState, p: usize) {
        let payment = &mut state.payments[p];
        let may = matches!(payment.phase, WaitPhase::None | WaitPhase::Voided);
        // After its time the hold is over too.
        if may && payment.attempt < ATTEMPTS[p] && !payment.is_over && !state.rivals[p] {
            let attempt = payment.attempt + 1;
            *payment =
                WaitingPayment { phase: WaitPhase::Pending, attempt, is_over: false, paid: None };
        }
    }

    fn debit(&self, state: &mut ExternalState, p: usize, attempt: usize) {
        match state.ops[p][attempt] {
            PartDebit::Debited => {}
            PartDebit::Tombstone if self.keeps(ExternalGuard::TombstoneInDebit) => return,
            _ if state.balance < WALLET_PART => return,
            _ => {
                state.balance -= WALLET_PART;
                state.ops[p][attempt] = PartDebit::Debited;
            }
        }
        state.awaits[p][attempt] = true;
    }

    fn await_external(&self, state: &mut ExternalState, p: usize, attempt: usize) {
        let payment = &mut state.payments[p];
        let same = payment.current() == attempt || !self.keeps(ExternalGuard::AttemptInAwait);
        let pending = payment.is_pending()
            || !self.keeps(ExternalGuard::PendingInAwait) && payment.phase == WaitPhase::Voiding;
        if same && pending {
            payment.phase = WaitPhase::Waiting;
            let current = payment.current();
            state.awaited[p][current] = true;
        }
    }

    fn claim(&self, state: &mut ExternalState, confirmation: Confirmation) {
        let (p, attempt, reference, _) = confirmation;
        if !self.keeps(ExternalGuard::ClaimBeforeConfirm) {
            send(&mut state.confirms, confirmation);
            return;
        }
        let free = match state.claims[reference] {
            None => true,
            Some((q, other)) if q == p => {
                other <= attempt || !self.keeps(ExternalGuard::LaterInClaim)
            }
            Some((q, other)) => {
                if Self::is_stale(state, q, other, reference)
                    || !self.keeps(ExternalGuard::StaleInReplace)
                {
                    send(&mut state.replaces, (confirmation, (q, other)));
                } else {
                    state.answers[p][reference] = Some(ConfirmAnswer::Other);
                }
                false
            }
        };
        if free {
            state.claims[reference] = Some((p, attempt));
            send(&mut state.confirms, confirmation);
        }
    }

    /// `rules::is_stale_claim`.
    fn is_stale(state: &ExternalState, q: usize, attempt: usize, reference: usize) -> bool {
        let payment = state.payments[q];
        payment.current() > attempt
            || match payment.phase {
                WaitPhase::Voiding | WaitPhase::Voided => true,
                WaitPhase::Confirmed => payment.paid.is_none_or(|(paid, _)| paid != reference),
                WaitPhase::None | WaitPhase::Pending | WaitPhase::Waiting => false,
            }
    }

    fn replace(
        &self,
        state: &mut ExternalState,
        confirmation: Confirmation,
        stale: (usize, usize),
    ) {
        let (p, attempt, reference, _) = confirmation;
        let same =
            state.claims[reference] == Some(stale) || !self.keeps(ExternalGuard::SameInReplace);
        if same {
            state.claims[reference] = Some((p, attempt));
            send(&mut state.confirms, confirmation);
        }
    }

    fn confirm(&self, state: &mut ExternalState, confirmation: Confirmation) {
        let (p, attempt, reference, amount) = confirmation;
        let payment = &mut state.payments[p];
        let same = payment.current() == attempt || !self.keeps(ExternalGuard::AttemptInConfirm);
        let waiting = payment.phase == WaitPhase::Waiting
            || !self.keeps(ExternalGuard::PendingInConfirm)
                && matches!(payment.phase, WaitPhase::Voiding | WaitPhase::Voided);
        let in_time = !payment.is_over || !self.keeps(ExternalGuard::TimeInConfirm);
        let right = AMOUNTS[amount] == DUE || !self.keeps(ExternalGuard::AmountInConfirm);
        if same && waiting && in_time && right {
            state.sold_late |= payment.is_over;
            payment.phase = WaitPhase::Confirmed;
            payment.paid = Some((reference, AMOUNTS[amount]));
        }
        let is_paid = payment.phase == WaitPhase::Confirmed
            && payment.paid == Some((reference, AMOUNTS[amount]));
        state.answers[p][reference] = Some(match payment.phase {
            _ if is_paid => ConfirmAnswer::Confirmed,
            WaitPhase::Voiding | WaitPhase::Voided => ConfirmAnswer::Voided,
            // The service voids it and answers with that.
            WaitPhase::Waiting if payment.is_over => ConfirmAnswer::Voided,
            _ => ConfirmAnswer::Other,
        });
    }

    fn void(&self, state: &mut ExternalState, p: usize, attempt: usize) {
        let payment = &mut state.payments[p];
        if payment.is_pending() && payment.current() == attempt {
            payment.phase = WaitPhase::Voiding;
        }
        if payment.phase == WaitPhase::Voiding {
            state.refunds[p][payment.current()] = true;
        }
    }

    fn refund(&self, state: &mut ExternalState, p: usize, attempt: usize) {
        if state.ops[p][attempt] == PartDebit::Debited {
            state.balance += WALLET_PART;
        }
        state.ops[p][attempt] = PartDebit::Tombstone;
        state.finishes[p][attempt] = true;
    }

    fn finish_void(&self, state: &mut ExternalState, p: usize, attempt: usize) {
        let payment = &mut state.payments[p];
        if payment.phase == WaitPhase::Voiding && payment.current() == attempt {
            payment.phase = WaitPhase::Voided;
        }
    }

    /// `seats/hold.lua`, after the hold is over.
    fn rival(&self, state: &mut ExternalState, p: usize) {
        let payment = state.payments[p];
        let paying = payment.is_pending() || payment.phase == WaitPhase::Voiding;
        let guarded = paying && self.keeps(ExternalGuard::PayingInHold);
        if payment.is_over && !guarded && payment.phase != WaitPhase::Confirmed {
            state.rivals[p] = true;
        }
    }

    fn apply(&self, state: &mut ExternalState, step: ExternalStep) {
        match step {
            ExternalStep::Begin(p) => self.begin(state, p),
            ExternalStep::Debit(p, attempt) => self.debit(state, p, attempt),
            ExternalStep::Await(p, attempt) => self.await_external(state, p, attempt),
            ExternalStep::TimePasses(p) => {
                let payment = &mut state.payments[p];
                payment.is_over |= payment.phase != WaitPhase::None;
            }
            ExternalStep::Take(p, reference) => state.taken[p][reference] = true,
            ExternalStep::Claim(confirmation) => self.claim(state, confirmation),
            ExternalStep::Replace(confirmation, stale) => self.replace(state, confirmation, stale),
            ExternalStep::Confirm(confirmation) => self.confirm(state, confirmation),
            ExternalStep::Void(p, attempt) => self.void(state, p, attempt),
            ExternalStep::Refund(p, attempt) => self.refund(state, p, attempt),
            ExternalStep::FinishVoid(p, attempt) => self.finish_void(state, p, attempt),
            ExternalStep::Rival(p) => self.rival(state, p),
        }
    }

    /// The state after the sweep has voided what is not confirmed.
    fn final_state(&self, state: &ExternalState) -> ExternalState {
        let mut state = state.clone();
        for p in 0..2 {
            let attempt = state.payments[p].current();
            self.void(&mut state, p, attempt);
            if state.payments[p].phase == WaitPhase::Voiding {
                self.refund(&mut state, p, attempt);
                self.finish_void(&mut state, p, attempt);
            }
        }
        state
    }

    fn invariants() -> Vec<Property<Self>> {
        vec![
            Property::always(
                "confirmed ⇔ debited ∧ amount + wallet part + discount = price",
                |model, state: &ExternalState| {
                    let rest = model.final_state(state);
                    (0..2).all(|p| {
                        let payment = rest.payments[p];
                        let is_confirmed = payment.phase == WaitPhase::Confirmed;
                        let debited = |a| rest.ops[p][a] == PartDebit::Debited;
                        let sum = payment.paid.map_or(0, |(_, amount)| amount);
                        let others = (0..2).filter(|a| *a != payment.current());
                        is_confirmed == debited(payment.current())
                            && !others.into_iter().any(debited)
                            && (!is_confirmed || sum + WALLET_PART + DISCOUNT == PRICE)
                    })
                },
            ),
            Property::always(
                "a void gives back exactly what was taken",
                |model, state: &ExternalState| {
                    let rest = model.final_state(state);
                    let count = rest.payments.iter().filter(|it| it.is_confirmed()).count();
                    let paid: i8 = (0..count).map(|_| WALLET_PART).sum();
                    rest.balance + paid == CHARGED && state.balance >= 0
                },
            ),
            Property::always("a reference pays once", |_, state: &ExternalState| {
                let [one, other] = state.payments;
                let used = |it: WaitingPayment| it.paid.map(|(reference, _)| reference);
                !one.is_confirmed() || !other.is_confirmed() || used(one) != used(other)
            }),
            Property::always("one owner per seat", |_, state: &ExternalState| {
                (0..2).all(|p| {
                    let payment = state.payments[p];
                    let owns = payment.is_confirmed()
                        || payment.is_pending()
                        || payment.phase == WaitPhase::Voiding;
                    !owns || !state.rivals[p]
                })
            }),
            Property::always("nothing is sold after its time", |_, state: &ExternalState| {
                !state.sold_late
            }),
            Property::always(
                "who paid without seats was answered with an error",
                |_, state: &ExternalState| {
                    (0..2).all(|p| {
                        (0..2).all(|reference| {
                            let sold =
                                state.payments[p].paid.is_some_and(|(it, _)| it == reference)
                                    && state.payments[p].is_confirmed();
                            let answer = state.answers[p][reference];
                            sold || answer != Some(ConfirmAnswer::Confirmed)
                        })
                    })
                },
            ),
        ]
    }

    fn confirmations(state: &ExternalState) -> impl Iterator<Item = Confirmation> {
        (0..2).flat_map(move |p| {
            let taken = (0..2).filter(move |reference| state.taken[p][*reference]);
            taken.flat_map(move |reference| {
                let attempts = (0..2).filter(move |attempt| state.awaited[p][*attempt]);
                attempts.flat_map(move |attempt| {
                    (0..AMOUNTS.len()).map(move |amount| (p, attempt, reference, amount))
                })
            })
        })
    }
}

impl Model for ExternalModel {
    type State = ExternalState;
    type Action = ExternalStep;

    fn init_states(&self) -> Vec<ExternalState> {
        let payment =
            WaitingPayment { phase: WaitPhase::None, attempt: 0, is_over: false, paid: None };
        let none = [[false; 2]; 2];
        vec![ExternalState {
            payments: [payment; 2],
            rivals: [false; 2],
            ops: [[PartDebit::None; 2]; 2],
            balance: CHARGED,
            claims: [None; 2],
            taken: none,
            answers: [[None; 2]; 2],
            sold_late: false,
            awaits: none,
            awaited: none,
            refunds: none,
            finishes: none,
            replaces: Vec::new(),
            confirms: Vec::new(),
        }]
    }

    fn actions(&self, state: &ExternalState, actions: &mut Vec<ExternalStep>) {
        for p in 0..2 {
            actions.extend([
                ExternalStep::Begin(p),
                ExternalStep::TimePasses(p),
                ExternalStep::Rival(p),
            ]);
            for attempt in 0..usize::from(state.payments[p].attempt) {
                let early = !self.keeps(ExternalGuard::VoidBeforeRefund);
                let sent = [
                    (true, ExternalStep::Debit(p, attempt)),
                    (state.awaits[p][attempt], ExternalStep::Await(p, attempt)),
                    (true, ExternalStep::Void(p, attempt)),
                    (state.refunds[p][attempt] || early, ExternalStep::Refund(p, attempt)),
                    (state.finishes[p][attempt], ExternalStep::FinishVoid(p, attempt)),
                ];
                actions.extend(sent.into_iter().filter(|(sent, _)| *sent).map(|(_, step)| step));
            }
        }
        // The second payment uses the first reference only: enough to use one twice.
        let references = [(0, 0), (0, 1), (1, 0)];
        actions.extend(references.map(|(p, reference)| ExternalStep::Take(p, reference)));
        // The service checks the amount before it claims, as the script does.
        let right =
            |it: &Confirmation| AMOUNTS[it.3] == DUE || !self.keeps(ExternalGuard::AmountInConfirm);
        actions.extend(Self::confirmations(state).filter(right).map(ExternalStep::Claim));
        let replaces = state.replaces.iter();
        actions.extend(
            replaces.map(|(confirmation, stale)| ExternalStep::Replace(*confirmation, *stale)),
        );
        actions.extend(state.confirms.iter().copied().map(ExternalStep::Confirm));
    }

    fn next_state(&self, before: &ExternalState, step: ExternalStep) -> Option<ExternalState> {
        let mut after = before.clone();
        self.apply(&mut after, step);
        (after != *before).then_some(after)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = Self::invariants();
        if self.removed.is_none() {
            properties.push(Property::sometimes(
                "both payments are confirmed, the first in its second attempt",
                |_, state: &ExternalState| {
                    state.payments.iter().all(|it| it.phase == WaitPhase::Confirmed)
                        && state.payments[0].attempt == 2
                },
            ));
            properties.push(Property::sometimes(
                "a reference that came too late for one pays the other",
                |_, state: &ExternalState| {
                    state.answers[0][0] == Some(ConfirmAnswer::Voided)
                        && state.payments[1].paid == Some((0, DUE))
                },
            ));
            properties.push(Property::sometimes(
                "the provider has the money of a voided payment",
                |_, state: &ExternalState| {
                    state.payments[1].phase == WaitPhase::Voided
                        && state.answers[1][0] == Some(ConfirmAnswer::Voided)
                },
            ));
        }
        properties
    }
}

#[test]
fn external_payments_hold_in_every_state() {
    let checker = ExternalModel { removed: None }.checker().threads(2).spawn_bfs().join();
    eprintln!("{} states", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn removing_a_guard_of_external_payments_breaks_an_invariant() {
    let mut unnoticed = Vec::new();
    for guard in GUARDS {
        let model = ExternalModel { removed: Some(guard) };
        let checker = model.checker().threads(2);
        let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let broken: Vec<_> = checker.discoveries().into_keys().collect();
        eprintln!("without {guard:?}: {broken:?} breaks");
        if broken.is_empty() {
            unnoticed.push(guard);
        }
    }
    assert!(unnoticed.is_empty(), "nothing breaks without {unnoticed:?}");
}
