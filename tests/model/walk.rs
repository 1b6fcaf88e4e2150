//! Which step may come when. A message that was sent may arrive at any later time, any number of
//! times, or never, so it stays in the bag. A step with a lost reply sends nothing further, which
//! also models a crash of the instance. The sweep may continue a payment at any time. A flow
//! remembers nothing except the last reply, so the bag is the whole state of the instances.

use stateright::{Model, Property};

use crate::shop::{
    ModelDebit, ModelPayment, ModelScenario, PAYMENTS, PaymentPhase, ScriptGuard, ShopState,
};

/// The flow, complete or without one guard.
#[derive(Clone, Copy)]
pub(crate) struct PaymentModel {
    pub(crate) play: ModelScenario,
    pub(crate) off: Option<ScriptGuard>,
}

/// Redis, and the messages that were sent. Messages that anyone who knows the attempt can send are
/// not in the bag: a void, the reservation of the coupon and, without a coupon, the debit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ModelState {
    pub(crate) shop: ShopState,
    debit: [[bool; 2]; 3],
    settle: [[bool; 2]; 3],
    give_back_issue: [[bool; 2]; 3],
    confirm: [[bool; 2]; 3],
    refund: [[bool; 2]; 3],
    voided: [[bool; 2]; 3],
    cancelled: [bool; 3],
}

impl std::ops::Deref for ModelState {
    type Target = ShopState;
    fn deref(&self) -> &ShopState {
        &self.shop
    }
}

/// One step, by payment and attempt (from 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ModelStep {
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

/// A step, and whether its reply arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModelAction {
    pub(crate) step: ModelStep,
    pub(crate) answered: bool,
}

impl PaymentModel {
    fn take(&self, state: &mut ModelState, ModelAction { step, answered }: ModelAction) {
        let shop = &mut state.shop;
        let coupon = self.play == ModelScenario::OneCoupon;
        let voiding = |payment: ModelPayment| answered && payment.state == PaymentPhase::Voiding;
        let paid_by_coupon =
            |payment: ModelPayment| answered && coupon && payment.state == PaymentPhase::Confirmed;
        match step {
            ModelStep::Charge => shop.charge(),
            ModelStep::Hold(user) => shop.hold(user, self.off),
            ModelStep::Release(user) => shop.release(user),
            ModelStep::Lapse(user) => shop.lapse(user),
            ModelStep::Begin(p) => shop.begin(p),
            ModelStep::Take(p, attempt) => {
                state.debit[p][attempt] |= shop.take(p, attempt, self.off) && answered;
            }
            ModelStep::Debit(p, attempt) => {
                state.confirm[p][attempt] |=
                    shop.debit(p, attempt, self.off) == ModelDebit::Done && answered;
            }
            ModelStep::Confirm(p, attempt) => {
                let payment = shop.confirm(p, attempt, self.off);
                state.refund[p][payment.last()] |= voiding(payment);
                state.settle[p][payment.last()] |= paid_by_coupon(payment);
            }
            ModelStep::Void(p, attempt) => {
                let payment = shop.void(p, attempt);
                state.refund[p][payment.last()] |= voiding(payment);
                state.settle[p][payment.last()] |= paid_by_coupon(payment);
            }
            ModelStep::Refund(p, attempt) => {
                shop.refund(p, attempt, self.off);
                let next = if coupon { &mut state.give_back_issue } else { &mut state.voided };
                next[p][attempt] |= answered;
            }
            ModelStep::GiveBackIssue(p, attempt) => {
                shop.give_back_issue(p, attempt, self.off);
                // After a void of a confirmed payment the refund follows, which may come at any
                // time anyway.
                let cancelling = matches!(
                    shop.payments[p].state,
                    PaymentPhase::Refunding | PaymentPhase::Refunded
                );
                state.voided[p][attempt] |= answered && !cancelling;
            }
            ModelStep::Settle(p, attempt) => shop.settle(p, attempt, self.off),
            ModelStep::Voided(p, attempt) => shop.voided(p, attempt, self.off),
            ModelStep::BeginCancel(p) => shop.begin_cancel(p, self.off),
            ModelStep::GiveBack(p) => {
                shop.give_back(p, self.off);
                state.cancelled[p] |= answered;
            }
            ModelStep::Cancelled(p) => shop.cancelled(p, self.off),
        }
    }

    /// The final state that the sweep reaches, without further faults.
    pub(crate) fn at_rest(&self, state: &ModelState) -> ShopState {
        let mut shop = state.shop;
        for p in PAYMENTS {
            let attempt = shop.payments[p].last();
            let coupon = self.play == ModelScenario::OneCoupon;
            if shop.void(p, attempt).state == PaymentPhase::Voiding {
                shop.refund(p, attempt, self.off);
                if coupon {
                    shop.give_back_issue(p, attempt, self.off);
                }
                shop.voided(p, attempt, self.off);
            }
            if coupon
                && shop.payments[p].state == PaymentPhase::Confirmed
                && self.off != Some(ScriptGuard::UnsettledInConfirm)
            {
                shop.settle(p, attempt, self.off);
            }
            if shop.payments[p].state == PaymentPhase::Refunding {
                if coupon {
                    shop.give_back_issue(p, attempt, self.off);
                }
                shop.give_back(p, self.off);
                shop.cancelled(p, self.off);
            }
        }
        shop
    }

    fn steps(&self, state: &ModelState, steps: &mut Vec<ModelStep>) {
        let coupon = self.play == ModelScenario::OneCoupon;
        if !coupon {
            steps.push(ModelStep::Charge);
            for r in 0..2 {
                steps.extend([ModelStep::Hold(r), ModelStep::Release(r), ModelStep::Lapse(r)]);
            }
        }
        for p in PAYMENTS {
            steps.extend([ModelStep::Begin(p), ModelStep::BeginCancel(p)]);
            let refunding =
                matches!(state.payments[p].state, PaymentPhase::Refunding | PaymentPhase::Refunded);
            for attempt in 0..usize::from(self.play.attempts()[p].min(state.payments[p].attempt)) {
                steps.push(ModelStep::Void(p, attempt));
                let unvoided = self.off == Some(ScriptGuard::VoidBeforeRefund);
                let early = self.off == Some(ScriptGuard::VoidBeforeGiveBackIssue);
                let cancelling = refunding && attempt == state.payments[p].last();
                let back = state.give_back_issue[p][attempt] || cancelling || early;
                let sent = [
                    (coupon, ModelStep::Take(p, attempt)),
                    (!coupon || state.debit[p][attempt], ModelStep::Debit(p, attempt)),
                    (state.settle[p][attempt], ModelStep::Settle(p, attempt)),
                    (coupon && back, ModelStep::GiveBackIssue(p, attempt)),
                    (state.confirm[p][attempt], ModelStep::Confirm(p, attempt)),
                    (state.refund[p][attempt] || unvoided, ModelStep::Refund(p, attempt)),
                    (state.voided[p][attempt], ModelStep::Voided(p, attempt)),
                ];
                steps.extend(sent.into_iter().filter(|(sent, _)| *sent).map(|(_, step)| step));
            }
            // The refund follows only after the issue is returned.
            if refunding && (!coupon || state.issue_ended[p][state.payments[p].last()]) {
                steps.push(ModelStep::GiveBack(p));
            }
            if state.cancelled[p] || self.off == Some(ScriptGuard::BeginBeforeCancelled) {
                steps.push(ModelStep::Cancelled(p));
            }
        }
    }
}

impl Model for PaymentModel {
    type State = ModelState;
    type Action = ModelAction;

    fn init_states(&self) -> Vec<ModelState> {
        let none = [[false; 2]; 3];
        vec![ModelState {
            shop: ShopState::open(self.play),
            debit: none,
            settle: none,
            give_back_issue: none,
            confirm: none,
            refund: none,
            voided: none,
            cancelled: [false; 3],
        }]
    }

    fn actions(&self, state: &ModelState, actions: &mut Vec<ModelAction>) {
        let mut steps = Vec::new();
        self.steps(state, &mut steps);
        for step in steps {
            actions.push(ModelAction { step, answered: true });
            // The other steps send nothing further, so their reply makes no difference.
            let sends = matches!(
                step,
                ModelStep::Take(..)
                    | ModelStep::Debit(..)
                    | ModelStep::Confirm(..)
                    | ModelStep::Void(..)
                    | ModelStep::Refund(..)
                    | ModelStep::GiveBackIssue(..)
                    | ModelStep::GiveBack(..)
            );
            if sends {
                actions.push(ModelAction { step, answered: false });
            }
        }
    }

    fn next_state(&self, before: &ModelState, action: ModelAction) -> Option<ModelState> {
        let mut after = *before;
        self.take(&mut after, action);
        (after != *before).then_some(after)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        // Without a guard only broken invariants matter.
        let possibilities = if self.off.is_none() { self.possibilities() } else { Vec::new() };
        Self::promises().into_iter().chain(possibilities).collect()
    }
}
