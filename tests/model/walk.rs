//! Which step may come when. A message that was sent once may arrive at any later time, any number of times, or never: it stays in the bag. A step
//! whose answer is lost sends nothing on, which is also what a crash of the instance does; and the sweep may take up a payment at any moment.
//! A flow keeps nothing but what the last answer told it, so the bag is all there is of instances.

use stateright::{Model, Property};

use crate::shop::{ATTEMPTS, Debited, Guard, PAYMENTS, Pay, Payment, Shop};

/// The flow, whole or with one guard taken out.
#[derive(Clone, Copy)]
pub(crate) struct Walk {
    pub(crate) off: Option<Guard>,
}

/// Redis, and the messages that were sent. A debit and a void can be sent by whoever has seen the attempt, so they need no place in the bag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) shop: Shop,
    confirm: [[bool; 2]; 3],
    refund: [[bool; 2]; 3],
    voided: [[bool; 2]; 3],
    cancelled: [bool; 3],
}

impl std::ops::Deref for State {
    type Target = Shop;
    fn deref(&self) -> &Shop {
        &self.shop
    }
}

/// One step, by payment and attempt (from 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Charge,
    Hold(usize),
    Release(usize),
    Lapse(usize),
    Begin(usize),
    Debit(usize, usize),
    Confirm(usize, usize),
    Void(usize, usize),
    Refund(usize, usize),
    Voided(usize, usize),
    BeginCancel(usize),
    GiveBack(usize),
    Cancelled(usize),
}

/// A step, and whether its answer comes back to the one who took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) step: Step,
    pub(crate) answered: bool,
}

impl Walk {
    fn take(&self, state: &mut State, Action { step, answered }: Action) {
        let shop = &mut state.shop;
        let voiding = |payment: Payment| answered && payment.state == Pay::Voiding;
        match step {
            Step::Charge => shop.charge(),
            Step::Hold(user) => shop.hold(user, self.off),
            Step::Release(user) => shop.release(user),
            Step::Lapse(user) => shop.lapse(user),
            Step::Begin(p) => shop.begin(p),
            Step::Debit(p, attempt) => {
                state.confirm[p][attempt] |= shop.debit(p, attempt, self.off) == Debited::Done && answered;
            }
            Step::Confirm(p, attempt) => {
                let payment = shop.confirm(p, attempt, self.off);
                state.refund[p][payment.last()] |= voiding(payment);
            }
            Step::Void(p, attempt) => {
                let payment = shop.void(p, attempt);
                state.refund[p][payment.last()] |= voiding(payment);
            }
            Step::Refund(p, attempt) => {
                shop.refund(p, attempt, self.off);
                state.voided[p][attempt] |= answered;
            }
            Step::Voided(p, attempt) => shop.voided(p, attempt, self.off),
            Step::BeginCancel(p) => shop.begin_cancel(p, self.off),
            Step::GiveBack(p) => {
                shop.give_back(p, self.off);
                state.cancelled[p] |= answered;
            }
            Step::Cancelled(p) => shop.cancelled(p, self.off),
        }
    }

    /// Where the sweep alone brings everything, when nothing fails any more.
    pub(crate) fn at_rest(&self, state: &State) -> Shop {
        let mut shop = state.shop;
        for p in PAYMENTS {
            let attempt = shop.payments[p].last();
            if shop.void(p, attempt).state == Pay::Voiding {
                shop.refund(p, attempt, self.off);
                shop.voided(p, attempt, self.off);
            }
            if shop.payments[p].state == Pay::Refunding {
                shop.give_back(p, self.off);
                shop.cancelled(p, self.off);
            }
        }
        shop
    }

    fn steps(&self, state: &State, steps: &mut Vec<Step>) {
        steps.push(Step::Charge);
        for user in 0..2 {
            steps.extend([Step::Hold(user), Step::Release(user), Step::Lapse(user)]);
        }
        for p in PAYMENTS {
            steps.extend([Step::Begin(p), Step::BeginCancel(p)]);
            for attempt in 0..usize::from(ATTEMPTS[p].min(state.payments[p].attempt)) {
                steps.extend([Step::Debit(p, attempt), Step::Void(p, attempt)]);
                let unvoided = self.off == Some(Guard::VoidBeforeRefund);
                let sent = [
                    (state.confirm[p][attempt], Step::Confirm(p, attempt)),
                    (state.refund[p][attempt] || unvoided, Step::Refund(p, attempt)),
                    (state.voided[p][attempt], Step::Voided(p, attempt)),
                ];
                steps.extend(sent.into_iter().filter(|(sent, _)| *sent).map(|(_, step)| step));
            }
            let begun = matches!(state.payments[p].state, Pay::Refunding | Pay::Refunded);
            if begun {
                steps.push(Step::GiveBack(p));
            }
            if state.cancelled[p] || self.off == Some(Guard::BeginBeforeCancelled) {
                steps.push(Step::Cancelled(p));
            }
        }
    }
}

impl Model for Walk {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let none = [[false; 2]; 3];
        vec![State { shop: Shop::open(), confirm: none, refund: none, voided: none, cancelled: [false; 3] }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let mut steps = Vec::new();
        self.steps(state, &mut steps);
        for step in steps {
            actions.push(Action { step, answered: true });
            // The other steps send nothing on, so that it makes no difference whether they are answered.
            let sends = matches!(
                step,
                Step::Debit(..) | Step::Confirm(..) | Step::Void(..) | Step::Refund(..) | Step::GiveBack(..)
            );
            if sends {
                actions.push(Action { step, answered: false });
            }
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut after = *before;
        self.take(&mut after, action);
        (after != *before).then_some(after)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        // Without a guard only what breaks is of interest.
        let possibilities = if self.off.is_none() { Self::possibilities() } else { Vec::new() };
        Self::promises().into_iter().chain(possibilities).collect()
    }
}
