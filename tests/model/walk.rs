//! Which step may come when. A message that was sent once may arrive at any later time, any number of times, or never: it stays in the bag. A step
//! whose answer is lost sends nothing on, which is also what a crash of the instance does; and the sweep may take up a payment at any moment.
//! A flow keeps nothing but what the last answer told it, so the bag is all there is of instances.

use stateright::{Model, Property};

use crate::shop::{Debited, Guard, PAYMENTS, Pay, Payment, Play, Shop};

/// The flow, whole or with one guard taken out.
#[derive(Clone, Copy)]
pub(crate) struct Walk {
    pub(crate) play: Play,
    pub(crate) off: Option<Guard>,
}

/// Redis, and the messages that were sent. What can be sent by whoever has seen the attempt needs no place in the bag: a void, the take of the coupon and,
/// where there is none, the debit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) shop: Shop,
    debit: [[bool; 2]; 3],
    settle: [[bool; 2]; 3],
    give_back_issue: [[bool; 2]; 3],
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
    Take(usize, usize),
    Debit(usize, usize),
    Confirm(usize, usize),
    Void(usize, usize),
    Refund(usize, usize),
    Voided(usize, usize),
    BeginCancel(usize),
    GiveBack(usize),
    Cancelled(usize),
    Settle(usize, usize),
    GiveBackIssue(usize, usize),
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
        let coupon = self.play == Play::OneCoupon;
        let voiding = |payment: Payment| answered && payment.state == Pay::Voiding;
        let paid_by_coupon =
            |payment: Payment| answered && coupon && payment.state == Pay::Confirmed;
        match step {
            Step::Charge => shop.charge(),
            Step::Hold(user) => shop.hold(user, self.off),
            Step::Release(user) => shop.release(user),
            Step::Lapse(user) => shop.lapse(user),
            Step::Begin(p) => shop.begin(p),
            Step::Take(p, attempt) => {
                state.debit[p][attempt] |= shop.take(p, attempt, self.off) && answered;
            }
            Step::Debit(p, attempt) => {
                state.confirm[p][attempt] |=
                    shop.debit(p, attempt, self.off) == Debited::Done && answered;
            }
            Step::Confirm(p, attempt) => {
                let payment = shop.confirm(p, attempt, self.off);
                state.refund[p][payment.last()] |= voiding(payment);
                state.settle[p][payment.last()] |= paid_by_coupon(payment);
            }
            Step::Void(p, attempt) => {
                let payment = shop.void(p, attempt);
                state.refund[p][payment.last()] |= voiding(payment);
                state.settle[p][payment.last()] |= paid_by_coupon(payment);
            }
            Step::Refund(p, attempt) => {
                shop.refund(p, attempt, self.off);
                let next = if coupon { &mut state.give_back_issue } else { &mut state.voided };
                next[p][attempt] |= answered;
            }
            Step::GiveBackIssue(p, attempt) => {
                shop.give_back_issue(p, attempt, self.off);
                // On the way back from a confirmed payment the money follows, which may come at any time anyway.
                let cancelling = matches!(shop.payments[p].state, Pay::Refunding | Pay::Refunded);
                state.voided[p][attempt] |= answered && !cancelling;
            }
            Step::Settle(p, attempt) => shop.settle(p, attempt, self.off),
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
            let coupon = self.play == Play::OneCoupon;
            if shop.void(p, attempt).state == Pay::Voiding {
                shop.refund(p, attempt, self.off);
                if coupon {
                    shop.give_back_issue(p, attempt, self.off);
                }
                shop.voided(p, attempt, self.off);
            }
            if coupon
                && shop.payments[p].state == Pay::Confirmed
                && self.off != Some(Guard::UnsettledInConfirm)
            {
                shop.settle(p, attempt, self.off);
            }
            if shop.payments[p].state == Pay::Refunding {
                if coupon {
                    shop.give_back_issue(p, attempt, self.off);
                }
                shop.give_back(p, self.off);
                shop.cancelled(p, self.off);
            }
        }
        shop
    }

    fn steps(&self, state: &State, steps: &mut Vec<Step>) {
        let coupon = self.play == Play::OneCoupon;
        if !coupon {
            steps.push(Step::Charge);
            for r in 0..2 {
                steps.extend([Step::Hold(r), Step::Release(r), Step::Lapse(r)]);
            }
        }
        for p in PAYMENTS {
            steps.extend([Step::Begin(p), Step::BeginCancel(p)]);
            let refunding = matches!(state.payments[p].state, Pay::Refunding | Pay::Refunded);
            for attempt in 0..usize::from(self.play.attempts()[p].min(state.payments[p].attempt)) {
                steps.push(Step::Void(p, attempt));
                let unvoided = self.off == Some(Guard::VoidBeforeRefund);
                let early = self.off == Some(Guard::VoidBeforeGiveBackIssue);
                let cancelling = refunding && attempt == state.payments[p].last();
                let back = state.give_back_issue[p][attempt] || cancelling || early;
                let sent = [
                    (coupon, Step::Take(p, attempt)),
                    (!coupon || state.debit[p][attempt], Step::Debit(p, attempt)),
                    (state.settle[p][attempt], Step::Settle(p, attempt)),
                    (coupon && back, Step::GiveBackIssue(p, attempt)),
                    (state.confirm[p][attempt], Step::Confirm(p, attempt)),
                    (state.refund[p][attempt] || unvoided, Step::Refund(p, attempt)),
                    (state.voided[p][attempt], Step::Voided(p, attempt)),
                ];
                steps.extend(sent.into_iter().filter(|(sent, _)| *sent).map(|(_, step)| step));
            }
            // Only when the issue is given back does the money follow.
            if refunding && (!coupon || state.issue_ended[p][state.payments[p].last()]) {
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
        vec![State {
            shop: Shop::open(self.play),
            debit: none,
            settle: none,
            give_back_issue: none,
            confirm: none,
            refund: none,
            voided: none,
            cancelled: [false; 3],
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let mut steps = Vec::new();
        self.steps(state, &mut steps);
        for step in steps {
            actions.push(Action { step, answered: true });
            // The other steps send nothing on, so that it makes no difference whether they are answered.
            let sends = matches!(
                step,
                Step::Take(..)
                    | Step::Debit(..)
                    | Step::Confirm(..)
                    | Step::Void(..)
                    | Step::Refund(..)
                    | Step::GiveBackIssue(..)
                    | Step::GiveBack(..)
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
        let possibilities = if self.off.is_none() { self.possibilities() } else { Vec::new() };
        Self::promises().into_iter().chain(possibilities).collect()
    }
}
