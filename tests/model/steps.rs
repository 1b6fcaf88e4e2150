//! Which step may come when. A message that was sent may arrive at any later time, any number of
//! times, or never, so it stays in the bag. A step with a lost reply sends nothing further, which
//! also models a crash of the instance. The sweep may continue a payment at any time. A flow
//! remembers nothing except the last reply, so the bag is the whole state of the instances.

use stateright::{Model, Property};

use crate::state::{
    ModelDebit, ModelPayment, ModelScenario, PAYMENTS, PaymentPhase, RedisState, ScriptGuard,
};

/// The flow, complete or without one guard.
#[derive(Clone, Copy)]
pub(crate) struct PaymentModel {
    pub(crate) scenario: ModelScenario,
    pub(crate) removed: Option<ScriptGuard>,
}

/// Redis, and the messages that were sent. Messages that anyone who knows the attempt can send are
/// not in the bag: a void, the reservation of the coupon and, without a coupon, the debit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ModelState {
    pub(crate) redis: RedisState,
    debit: [[bool; 2]; 3],
    redeem: [[bool; 2]; 3],
    return_issue: [[bool; 2]; 3],
    confirm: [[bool; 2]; 3],
    refund: [[bool; 2]; 3],
    finish_void: [[bool; 2]; 3],
    finish_cancel: [bool; 3],
}

impl std::ops::Deref for ModelState {
    type Target = RedisState;
    fn deref(&self) -> &RedisState {
        &self.redis
    }
}

/// One step, by payment and attempt (from 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ModelStep {
    Charge,
    Hold(usize),
    Release(usize),
    Expire(usize),
    Pay(usize),
    Begin(usize),
    Reserve(usize, usize),
    Debit(usize, usize),
    Confirm(usize, usize),
    Void(usize, usize),
    Refund(usize, usize),
    FinishVoid(usize, usize),
    BeginCancel(usize),
    RefundCancelled(usize),
    FinishCancel(usize),
    Redeem(usize, usize),
    ReturnIssue(usize, usize),
}

/// A step, and whether its reply arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModelAction {
    pub(crate) step: ModelStep,
    pub(crate) answered: bool,
}

impl PaymentModel {
    fn apply(&self, state: &mut ModelState, ModelAction { step, answered }: ModelAction) {
        let redis = &mut state.redis;
        let coupon = self.scenario == ModelScenario::OneCoupon;
        let voiding = |payment: ModelPayment| answered && payment.state == PaymentPhase::Voiding;
        let paid_by_coupon =
            |payment: ModelPayment| answered && coupon && payment.state == PaymentPhase::Confirmed;
        match step {
            ModelStep::Charge => redis.charge(),
            ModelStep::Hold(user) => redis.hold(user, self.removed),
            ModelStep::Release(user) => redis.release(user),
            ModelStep::Expire(user) => redis.expire(user),
            ModelStep::Pay(p) => redis.pay(p, self.removed),
            ModelStep::Begin(p) => redis.begin(p),
            ModelStep::Reserve(p, attempt) => {
                state.debit[p][attempt] |= redis.reserve(p, attempt, self.removed) && answered;
            }
            ModelStep::Debit(p, attempt) => {
                state.confirm[p][attempt] |=
                    redis.debit(p, attempt, self.removed) == ModelDebit::Done && answered;
            }
            ModelStep::Confirm(p, attempt) => {
                let payment = redis.confirm(p, attempt, self.removed);
                state.refund[p][payment.last()] |= voiding(payment);
                state.redeem[p][payment.last()] |= paid_by_coupon(payment);
            }
            ModelStep::Void(p, attempt) => {
                let payment = redis.void(p, attempt);
                state.refund[p][payment.last()] |= voiding(payment);
                state.redeem[p][payment.last()] |= paid_by_coupon(payment);
            }
            ModelStep::Refund(p, attempt) => {
                redis.refund(p, attempt, self.removed);
                let next = if coupon { &mut state.return_issue } else { &mut state.finish_void };
                next[p][attempt] |= answered;
            }
            ModelStep::ReturnIssue(p, attempt) => {
                redis.return_issue(p, attempt, self.removed);
                // After a void of a confirmed payment the refund follows, which may come at any
                // time anyway.
                let cancelling = matches!(
                    redis.payments[p].state,
                    PaymentPhase::Refunding | PaymentPhase::Refunded
                );
                state.finish_void[p][attempt] |= answered && !cancelling;
            }
            ModelStep::Redeem(p, attempt) => redis.redeem(p, attempt, self.removed),
            ModelStep::FinishVoid(p, attempt) => redis.finish_void(p, attempt, self.removed),
            ModelStep::BeginCancel(p) => redis.begin_cancel(p, self.removed),
            ModelStep::RefundCancelled(p) => {
                redis.refund_cancelled(p, self.removed);
                state.finish_cancel[p] |= answered;
            }
            ModelStep::FinishCancel(p) => redis.finish_cancel(p, self.removed),
        }
    }

    /// The final state that the sweep reaches, without further faults.
    pub(crate) fn final_state(&self, state: &ModelState) -> RedisState {
        let mut redis = state.redis;
        for p in PAYMENTS {
            let attempt = redis.payments[p].last();
            let coupon = self.scenario == ModelScenario::OneCoupon;
            if redis.void(p, attempt).state == PaymentPhase::Voiding {
                redis.refund(p, attempt, self.removed);
                if coupon {
                    redis.return_issue(p, attempt, self.removed);
                }
                redis.finish_void(p, attempt, self.removed);
            }
            if coupon
                && redis.payments[p].state == PaymentPhase::Confirmed
                && self.removed != Some(ScriptGuard::UnredeemedInConfirm)
            {
                redis.redeem(p, attempt, self.removed);
            }
            if redis.payments[p].state == PaymentPhase::Refunding {
                if coupon {
                    redis.return_issue(p, attempt, self.removed);
                }
                redis.refund_cancelled(p, self.removed);
                redis.finish_cancel(p, self.removed);
            }
        }
        redis
    }

    fn steps(&self, state: &ModelState, steps: &mut Vec<ModelStep>) {
        let coupon = self.scenario == ModelScenario::OneCoupon;
        if !coupon {
            steps.push(ModelStep::Charge);
            for r in 0..2 {
                steps.extend([ModelStep::Hold(r), ModelStep::Release(r), ModelStep::Expire(r)]);
            }
        }
        for p in PAYMENTS {
            // A payment with a coupon is always made in steps.
            if !coupon {
                steps.push(ModelStep::Pay(p));
            }
            steps.extend([ModelStep::Begin(p), ModelStep::BeginCancel(p)]);
            let refunding =
                matches!(state.payments[p].state, PaymentPhase::Refunding | PaymentPhase::Refunded);
            for attempt in
                0..usize::from(self.scenario.attempts()[p].min(state.payments[p].attempt))
            {
                steps.push(ModelStep::Void(p, attempt));
                let unvoided = self.removed == Some(ScriptGuard::VoidBeforeRefund);
                let early = self.removed == Some(ScriptGuard::VoidBeforeReturnIssue);
                let cancelling = refunding && attempt == state.payments[p].last();
                let back = state.return_issue[p][attempt] || cancelling || early;
                let sent = [
                    (coupon, ModelStep::Reserve(p, attempt)),
                    (!coupon || state.debit[p][attempt], ModelStep::Debit(p, attempt)),
                    (state.redeem[p][attempt], ModelStep::Redeem(p, attempt)),
                    (coupon && back, ModelStep::ReturnIssue(p, attempt)),
                    (state.confirm[p][attempt], ModelStep::Confirm(p, attempt)),
                    (state.refund[p][attempt] || unvoided, ModelStep::Refund(p, attempt)),
                    (state.finish_void[p][attempt], ModelStep::FinishVoid(p, attempt)),
                ];
                steps.extend(sent.into_iter().filter(|(sent, _)| *sent).map(|(_, step)| step));
            }
            // The refund follows only after the issue is returned.
            if refunding && (!coupon || state.issue_ended[p][state.payments[p].last()]) {
                steps.push(ModelStep::RefundCancelled(p));
            }
            if state.finish_cancel[p] || self.removed == Some(ScriptGuard::BeginBeforeFinishCancel)
            {
                steps.push(ModelStep::FinishCancel(p));
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
            redis: RedisState::open(self.scenario),
            debit: none,
            redeem: none,
            return_issue: none,
            confirm: none,
            refund: none,
            finish_void: none,
            finish_cancel: [false; 3],
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
                ModelStep::Reserve(..)
                    | ModelStep::Debit(..)
                    | ModelStep::Confirm(..)
                    | ModelStep::Void(..)
                    | ModelStep::Refund(..)
                    | ModelStep::ReturnIssue(..)
                    | ModelStep::RefundCancelled(..)
            );
            if sends {
                actions.push(ModelAction { step, answered: false });
            }
        }
    }

    fn next_state(&self, before: &ModelState, action: ModelAction) -> Option<ModelState> {
        let mut after = *before;
        self.apply(&mut after, action);
        (after != *before).then_some(after)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        // Without a guard only broken invariants matter.
        let reachable_states =
            if self.removed.is_none() { self.reachable_states() } else { Vec::new() };
        Self::invariants().into_iter().chain(reachable_states).collect()
    }
}
