//! The state of Redis, and the steps of a payment as the scripts execute them. Each step is the
//! script of its name, reduced to its decisions. The clock of Redis is the action of expiry, which
//! may happen at any time.
//!
//! Three payments: the first two are one user's, with two keys, for one reservation. Two scenarios
//! share the steps, because together they would have too many states: in [`ModelScenario::OneSeat`]
//! two users want one seat; in [`ModelScenario::OneCoupon`] one user has two seats, and one coupon
//! for all three payments.

/// The price of each payment, before a discount.
const PRICE: i8 = 2;
const DISCOUNT: i8 = 1;
pub(crate) const PAYMENTS: [usize; 3] = [0, 1, 2];

/// The reservation of a payment.
pub(crate) fn reservation_of(payment: usize) -> usize {
    [0, 0, 1][payment]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ModelScenario {
    /// Two users with one reservation each, for the same seat.
    OneSeat,
    /// One user with two reservations of one seat each, and one coupon issue that every payment
    /// wants to use.
    OneCoupon,
}

impl ModelScenario {
    /// The user whose wallet pays.
    pub(crate) fn user_of(self, payment: usize) -> usize {
        match self {
            Self::OneSeat => reservation_of(payment),
            Self::OneCoupon => 0,
        }
    }

    /// The seat of a reservation.
    pub(crate) fn seat_of(self, reservation: usize) -> usize {
        match self {
            Self::OneSeat => 0,
            Self::OneCoupon => reservation,
        }
    }

    /// The amount of the debit.
    pub(crate) fn cost(self) -> i8 {
        match self {
            Self::OneSeat => PRICE,
            Self::OneCoupon => PRICE - DISCOUNT,
        }
    }

    /// The number of attempts of each payment that the model covers.
    pub(crate) fn attempts(self) -> [u8; 3] {
        match self {
            Self::OneSeat => [2, 2, 2],
            Self::OneCoupon => [2, 1, 2],
        }
    }
}

/// A check in a script that can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScriptGuard {
    /// `payment/confirm.lua`: the attempt is the current one.
    AttemptInConfirm,
    /// `payment/confirm.lua`: the payment is pending.
    PendingInConfirm,
    /// `wallet/debit.lua`: there is no tombstone.
    TombstoneInDebit,
    /// `wallet/debit.lua`: the operation was not debited before.
    RecordInDebit,
    /// `wallet/refund.lua`: the operation was not refunded before.
    RecordInRefund,
    /// `src/payment/flow.rs`: a refund comes after the void.
    VoidBeforeRefund,
    /// `payment/finish_void.lua`: the attempt is being voided.
    VoidingInFinishVoid,
    /// `lib/seat.lua`, for `seats/hold.lua`: an expired hold with a running payment is not free.
    PayingInHold,
    /// `payment/begin_cancel.lua`: the payment is confirmed.
    ConfirmedInBeginCancel,
    /// `wallet/refund_cancelled.lua`: the operation was not refunded before.
    RecordInRefundCancelled,
    /// `src/payment/cancel.rs`: the seats are freed only after the cancellation is recorded.
    BeginBeforeFinishCancel,
    /// `coupons/reserve.lua`: there is no tombstone.
    TombstoneInReserve,
    /// `coupons/reserve.lua`: no other attempt has the issue.
    FreeInReserve,
    /// `coupons/redeem.lua`: there is no tombstone.
    TombstoneInRedeem,
    /// `coupons/return_issue.lua`: the attempt has the issue.
    OwnInReturnIssue,
    /// `src/payment/flow.rs`: an issue is returned only after the void.
    VoidBeforeReturnIssue,
    /// `payment/confirm.lua`: with a coupon the payment stays on the sweep's list.
    UnredeemedInConfirm,
    /// `payment/pay.lua`: the key of the payment is not known.
    KeyInPay,
    /// `payment/pay.lua`: the hold runs.
    HeldInPay,
    /// `payment/pay.lua`: the balance is sufficient.
    BalanceInPay,
}

impl ScriptGuard {
    pub(crate) const ALL: [Self; 20] = [
        Self::AttemptInConfirm,
        Self::PendingInConfirm,
        Self::TombstoneInDebit,
        Self::RecordInDebit,
        Self::RecordInRefund,
        Self::VoidBeforeRefund,
        Self::VoidingInFinishVoid,
        Self::PayingInHold,
        Self::ConfirmedInBeginCancel,
        Self::RecordInRefundCancelled,
        Self::BeginBeforeFinishCancel,
        Self::TombstoneInReserve,
        Self::FreeInReserve,
        Self::TombstoneInRedeem,
        Self::OwnInReturnIssue,
        Self::VoidBeforeReturnIssue,
        Self::UnredeemedInConfirm,
        Self::KeyInPay,
        Self::HeldInPay,
        Self::BalanceInPay,
    ];

    /// The scenario in which its absence shows.
    pub(crate) fn scenario(self) -> ModelScenario {
        match self {
            Self::TombstoneInReserve
            | Self::FreeInReserve
            | Self::TombstoneInRedeem
            | Self::OwnInReturnIssue
            | Self::VoidBeforeReturnIssue
            | Self::UnredeemedInConfirm => ModelScenario::OneCoupon,
            _ => ModelScenario::OneSeat,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ReservationState {
    None,
    Held,
    Paying,
    Confirmed,
    /// Expired or released: the steps treat both alike.
    Ended,
    Cancelling,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ModelReservation {
    pub(crate) status: ReservationState,
    /// The clock of Redis has passed `held_until`.
    pub(crate) expired: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PaymentPhase {
    None,
    Pending,
    Voiding,
    Confirmed,
    /// Declined or voided: the reason makes no difference to the steps.
    Voided,
    Refunding,
    Refunded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ModelPayment {
    pub(crate) state: PaymentPhase,
    /// From 1; 0 before the first attempt.
    pub(crate) attempt: u8,
}

impl ModelPayment {
    /// The index of the current attempt among the operation records.
    pub(crate) fn last(self) -> usize {
        usize::from(self.attempt.max(1)) - 1
    }
}

/// The record of a debit's operation id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum DebitRecord {
    None,
    Debited,
    Tombstone,
}

/// The reservation that has the seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SeatOwner {
    pub(crate) reservation: usize,
    pub(crate) sold: bool,
}

/// The attempt that has the coupon issue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct IssueOwner {
    pub(crate) payment: usize,
    pub(crate) attempt: usize,
    pub(crate) used: bool,
}

/// The state of Redis. The counters from `debits` on are not in Redis: the invariants need them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RedisState {
    pub(crate) scenario: ModelScenario,
    pub(crate) seats: [Option<SeatOwner>; 2],
    pub(crate) reservations: [ModelReservation; 2],
    pub(crate) payments: [ModelPayment; 3],
    pub(crate) balances: [i8; 2],
    pub(crate) ops: [[DebitRecord; 2]; 3],
    pub(crate) refunded_cancelled: [bool; 3],
    pub(crate) issue: Option<IssueOwner>,
    pub(crate) issue_ended: [[bool; 2]; 3],
    pub(crate) charged: i8,
    pub(crate) debits: [[u8; 2]; 3],
    pub(crate) refunds: [[u8; 2]; 3],
    pub(crate) cancels: [u8; 3],
    pub(crate) ends: [[u8; 2]; 3],
}

/// The outcome of a debit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ModelDebit {
    Done,
    Insufficient,
    Tombstone,
}

fn count(effects: &mut u8) {
    *effects = (*effects + 1).min(2);
}

impl RedisState {
    /// The first user can pay twice, the second one has no money yet. In the coupon scenario the
    /// seats are already held.
    pub(crate) fn open(scenario: ModelScenario) -> Self {
        let mark = |reservation| Some(SeatOwner { reservation, sold: false });
        let (seats, status) = match scenario {
            ModelScenario::OneSeat => ([None; 2], ReservationState::None),
            ModelScenario::OneCoupon => ([mark(0), mark(1)], ReservationState::Held),
        };
        Self {
            scenario,
            seats,
            reservations: [ModelReservation { status, expired: false }; 2],
            payments: [ModelPayment { state: PaymentPhase::None, attempt: 0 }; 3],
            balances: [2 * scenario.cost(), 0],
            ops: [[DebitRecord::None; 2]; 3],
            refunded_cancelled: [false; 3],
            issue: None,
            issue_ended: [[false; 2]; 3],
            charged: 2 * scenario.cost(),
            debits: [[0; 2]; 3],
            refunds: [[0; 2]; 3],
            cancels: [0; 3],
            ends: [[0; 2]; 3],
        }
    }

    /// `wallet/charge.lua`, once for the second user.
    pub(crate) fn charge(&mut self) {
        if self.scenario == ModelScenario::OneSeat && self.charged == 2 * PRICE {
            self.charged += PRICE;
            self.balances[1] += PRICE;
        }
    }

    fn seat(&mut self, reservation: usize) -> &mut Option<SeatOwner> {
        &mut self.seats[self.scenario.seat_of(reservation)]
    }

    /// `seats/hold.lua`, once for each reservation.
    pub(crate) fn hold(&mut self, r: usize, removed: Option<ScriptGuard>) {
        let taken = self.seat(r).is_some_and(|mark| {
            let of = self.reservations[mark.reservation];
            let paying =
                of.status == ReservationState::Paying && removed != Some(ScriptGuard::PayingInHold);
            mark.sold || !of.expired || paying
        });
        if self.reservations[r].status == ReservationState::None && !taken {
            *self.seat(r) = Some(SeatOwner { reservation: r, sold: false });
            self.reservations[r].status = ReservationState::Held;
        }
    }

    /// `seats/release.lua`.
    pub(crate) fn release(&mut self, r: usize) {
        let record = &mut self.reservations[r];
        if record.status == ReservationState::Held && !record.expired {
            record.status = ReservationState::Ended;
            self.free(r);
        }
    }

    fn free(&mut self, r: usize) {
        if self.seat(r).is_some_and(|mark| mark.reservation == r) {
            *self.seat(r) = None;
        }
    }

    /// Redis' clock passes `held_until`.
    pub(crate) fn expire(&mut self, r: usize) {
        if matches!(self.reservations[r].status, ReservationState::Held | ReservationState::Paying)
        {
            self.reservations[r].expired = true;
        }
    }

    /// `payment/begin.lua`.
    pub(crate) fn begin(&mut self, p: usize) {
        let r = &mut self.reservations[reservation_of(p)];
        let payment = &mut self.payments[p];
        let more = payment.attempt < self.scenario.attempts()[p];
        let may = matches!(payment.state, PaymentPhase::None | PaymentPhase::Voided) && more;
        if may && r.status == ReservationState::Held && !r.expired {
            *payment = ModelPayment { state: PaymentPhase::Pending, attempt: payment.attempt + 1 };
            r.status = ReservationState::Paying;
        }
    }

    /// `wallet/debit.lua`.
    pub(crate) fn debit(
        &mut self,
        p: usize,
        attempt: usize,
        removed: Option<ScriptGuard>,
    ) -> ModelDebit {
        let (balance, cost) = (&mut self.balances[self.scenario.user_of(p)], self.scenario.cost());
        match self.ops[p][attempt] {
            DebitRecord::Debited if removed != Some(ScriptGuard::RecordInDebit) => {
                return ModelDebit::Done;
            }
            DebitRecord::Tombstone if removed != Some(ScriptGuard::TombstoneInDebit) => {
                return ModelDebit::Tombstone;
            }
            _ => {}
        }
        if *balance < cost {
            return ModelDebit::Insufficient;
        }
        *balance -= cost;
        self.ops[p][attempt] = DebitRecord::Debited;
        count(&mut self.debits[p][attempt]);
        ModelDebit::Done
    }

    /// `payment/confirm.lua`: the commit point.
    pub(crate) fn confirm(
        &mut self,
        p: usize,
        attempt: usize,
        removed: Option<ScriptGuard>,
    ) -> ModelPayment {
        let (payment, r) = (self.payments[p], reservation_of(p));
        let same = payment.last() == attempt || removed == Some(ScriptGuard::AttemptInConfirm);
        let pending = payment.state == PaymentPhase::Pending
            || removed == Some(ScriptGuard::PendingInConfirm);
        if same && pending && self.reservations[r].status == ReservationState::Paying {
            self.payments[p].state = PaymentPhase::Confirmed;
            self.reservations[r].status = ReservationState::Confirmed;
            *self.seat(r) = Some(SeatOwner { reservation: r, sold: true });
            count(&mut self.ends[p][payment.last()]);
        }
        self.payments[p]
    }

    /// `payment/pay.lua`: what begin, debit and confirm do, or nothing. A key is known once its
    /// payment has begun.
    pub(crate) fn pay(&mut self, p: usize, removed: Option<ScriptGuard>) {
        let (r, user, cost) = (reservation_of(p), self.scenario.user_of(p), self.scenario.cost());
        let known = self.payments[p].attempt > 0 && removed != Some(ScriptGuard::KeyInPay);
        let held = self.reservations[r].status == ReservationState::Held
            && !self.reservations[r].expired
            || removed == Some(ScriptGuard::HeldInPay);
        let solvent = self.balances[user] >= cost || removed == Some(ScriptGuard::BalanceInPay);
        if known || !held || !solvent {
            return;
        }
        self.balances[user] -= cost;
        self.ops[p][0] = DebitRecord::Debited;
        count(&mut self.debits[p][0]);
        self.payments[p] = ModelPayment { state: PaymentPhase::Confirmed, attempt: 1 };
        self.reservations[r].status = ReservationState::Confirmed;
        *self.seat(r) = Some(SeatOwner { reservation: r, sold: true });
        count(&mut self.ends[p][0]);
    }

    /// `payment/void.lua`.
    pub(crate) fn void(&mut self, p: usize, attempt: usize) -> ModelPayment {
        let payment = &mut self.payments[p];
        if payment.state == PaymentPhase::Pending && payment.last() == attempt {
            payment.state = PaymentPhase::Voiding;
        }
        *payment
    }

    /// `wallet/refund.lua`.
    pub(crate) fn refund(&mut self, p: usize, attempt: usize, removed: Option<ScriptGuard>) {
        let again = removed == Some(ScriptGuard::RecordInRefund) && self.refunds[p][attempt] == 1;
        if self.ops[p][attempt] == DebitRecord::Debited || again {
            self.balances[self.scenario.user_of(p)] += self.scenario.cost();
            count(&mut self.refunds[p][attempt]);
        }
        self.ops[p][attempt] = DebitRecord::Tombstone;
    }

    /// `payment/finish_void.lua`.
    pub(crate) fn finish_void(&mut self, p: usize, attempt: usize, removed: Option<ScriptGuard>) {
        let payment = &mut self.payments[p];
        let r = &mut self.reservations[reservation_of(p)];
        let voiding = payment.state == PaymentPhase::Voiding
            || removed == Some(ScriptGuard::VoidingInFinishVoid);
        if voiding && payment.last() == attempt {
            payment.state = PaymentPhase::Voided;
            count(&mut self.ends[p][attempt]);
            if r.status == ReservationState::Paying {
                r.status = if r.expired { ReservationState::Ended } else { ReservationState::Held };
            }
        }
    }

    /// `payment/begin_cancel.lua`: the commit point of cancelling.
    pub(crate) fn begin_cancel(&mut self, p: usize, removed: Option<ScriptGuard>) {
        let (payment, r) = (&mut self.payments[p], &mut self.reservations[reservation_of(p)]);
        let bought =
            payment.state == PaymentPhase::Confirmed && r.status == ReservationState::Confirmed;
        if bought
            || removed == Some(ScriptGuard::ConfirmedInBeginCancel)
                && payment.state == PaymentPhase::Pending
        {
            payment.state = PaymentPhase::Refunding;
            r.status = ReservationState::Cancelling;
        }
    }

    /// `wallet/refund_cancelled.lua`.
    pub(crate) fn refund_cancelled(&mut self, p: usize, removed: Option<ScriptGuard>) {
        let again = removed == Some(ScriptGuard::RecordInRefundCancelled) && self.cancels[p] == 1;
        if !self.refunded_cancelled[p] || again {
            self.refunded_cancelled[p] = true;
            self.balances[self.scenario.user_of(p)] += self.scenario.cost();
            count(&mut self.cancels[p]);
        }
    }

    /// `payment/finish_cancel.lua`.
    pub(crate) fn finish_cancel(&mut self, p: usize, removed: Option<ScriptGuard>) {
        let (payment, r) = (&mut self.payments[p], reservation_of(p));
        let early = removed == Some(ScriptGuard::BeginBeforeFinishCancel)
            && payment.state == PaymentPhase::Confirmed;
        if payment.state == PaymentPhase::Refunding || early {
            payment.state = PaymentPhase::Refunded;
            self.reservations[r].status = ReservationState::Cancelled;
            self.free(r);
        }
    }

    /// `coupons/reserve.lua`. Returns whether the attempt has the issue.
    pub(crate) fn reserve(
        &mut self,
        p: usize,
        attempt: usize,
        removed: Option<ScriptGuard>,
    ) -> bool {
        let own = |it: IssueOwner| it.payment == p && it.attempt == attempt;
        if self.issue.is_some_and(own) {
            return true;
        }
        if self.issue_ended[p][attempt] && removed != Some(ScriptGuard::TombstoneInReserve) {
            return false;
        }
        if self.issue.is_some() && removed != Some(ScriptGuard::FreeInReserve) {
            return false;
        }
        self.issue = Some(IssueOwner { payment: p, attempt, used: false });
        true
    }

    /// `coupons/redeem.lua`.
    pub(crate) fn redeem(&mut self, p: usize, attempt: usize, removed: Option<ScriptGuard>) {
        let others = self.issue.is_some_and(|it| it.payment != p || it.attempt != attempt);
        let ended = self.issue_ended[p][attempt] && removed != Some(ScriptGuard::TombstoneInRedeem);
        if !ended && !others {
            self.issue = Some(IssueOwner { payment: p, attempt, used: true });
        }
    }

    /// `coupons/return_issue.lua`.
    pub(crate) fn return_issue(&mut self, p: usize, attempt: usize, removed: Option<ScriptGuard>) {
        self.issue_ended[p][attempt] = true;
        let own = self.issue.is_some_and(|it| it.payment == p && it.attempt == attempt);
        if own || removed == Some(ScriptGuard::OwnInReturnIssue) {
            self.issue = None;
        }
    }
}
