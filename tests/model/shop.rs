//! What Redis holds, and the steps of the payment as the scripts take them. Each step is the script of its name, cut down to what it decides on. Redis'
//! clock is the action of lapsing, which may come at any moment.
//!
//! Three payments, of which the first two are one user's, under two keys, for one reservation. Two plays share the steps, since together they would be too many
//! states: in [`Play::OneSeat`] two users are after one seat; in [`Play::OneCoupon`] one user has two seats, and one coupon for all three payments.

/// What each payment costs, before a discount.
const PRICE: i8 = 2;
/// What the coupon takes off.
const DISCOUNT: i8 = 1;
/// The payments.
pub(crate) const PAYMENTS: [usize; 3] = [0, 1, 2];

/// Which reservation a payment is for.
pub(crate) fn reservation_of(payment: usize) -> usize {
    [0, 0, 1][payment]
}

/// Who is after what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Play {
    /// Two users, each with one reservation, and one seat.
    OneSeat,
    /// One user with two reservations of a seat each, and one issue of a coupon that every payment is to use.
    OneCoupon,
}

impl Play {
    /// Whose wallet pays.
    pub(crate) fn user_of(self, payment: usize) -> usize {
        match self {
            Self::OneSeat => reservation_of(payment),
            Self::OneCoupon => 0,
        }
    }

    /// Which seat a reservation is of.
    pub(crate) fn seat_of(self, reservation: usize) -> usize {
        match self {
            Self::OneSeat => 0,
            Self::OneCoupon => reservation,
        }
    }

    /// What is taken from the wallet.
    pub(crate) fn cost(self) -> i8 {
        match self {
            Self::OneSeat => PRICE,
            Self::OneCoupon => PRICE - DISCOUNT,
        }
    }

    /// How many attempts of each payment are looked at.
    pub(crate) fn attempts(self) -> [u8; 3] {
        match self {
            Self::OneSeat => [2, 2, 2],
            Self::OneCoupon => [2, 1, 2],
        }
    }
}

/// A check in a script that can be taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// `payment/confirm.lua`: the attempt is the current one.
    AttemptInConfirm,
    /// `payment/confirm.lua`: the payment is pending.
    PendingInConfirm,
    /// `wallet/debit.lua`: no tombstone stands.
    TombstoneInDebit,
    /// `wallet/debit.lua`: the op was not debited before.
    RecordInDebit,
    /// `wallet/refund.lua`: the op was not given back before.
    RecordInRefund,
    /// `src/payment/flow.rs`: nothing is refunded before it is voided.
    VoidBeforeRefund,
    /// `payment/voided.lua`: the attempt is being voided.
    VoidingInVoided,
    /// `lib/seat.lua`, for `seats/hold.lua`: a lapsed hold that is being paid is not free.
    PayingInHold,
    /// `payment/begin_cancel.lua`: the payment is confirmed.
    ConfirmedInBeginCancel,
    /// `wallet/give_back.lua`: the op was not given back before.
    RecordInGiveBack,
    /// `src/payment/cancel.rs`: the seats are freed only after the cancelling is recorded.
    BeginBeforeCancelled,
    /// `coupons/take.lua`: no tombstone stands.
    TombstoneInTake,
    /// `coupons/take.lua`: no other attempt has the issue.
    FreeInTake,
    /// `coupons/settle.lua`: no tombstone stands.
    TombstoneInSettle,
    /// `coupons/give_back.lua`: the attempt has the issue.
    OwnInGiveBackIssue,
    /// `src/payment/flow.rs`: no issue is given back before the attempt is voided.
    VoidBeforeGiveBackIssue,
    /// `payment/confirm.lua`: with a coupon the payment stays on the sweep's list.
    UnsettledInConfirm,
}

impl Guard {
    pub(crate) const ALL: [Self; 17] = [
        Self::AttemptInConfirm,
        Self::PendingInConfirm,
        Self::TombstoneInDebit,
        Self::RecordInDebit,
        Self::RecordInRefund,
        Self::VoidBeforeRefund,
        Self::VoidingInVoided,
        Self::PayingInHold,
        Self::ConfirmedInBeginCancel,
        Self::RecordInGiveBack,
        Self::BeginBeforeCancelled,
        Self::TombstoneInTake,
        Self::FreeInTake,
        Self::TombstoneInSettle,
        Self::OwnInGiveBackIssue,
        Self::VoidBeforeGiveBackIssue,
        Self::UnsettledInConfirm,
    ];

    /// The play in which its lack shows.
    pub(crate) fn play(self) -> Play {
        match self {
            Self::TombstoneInTake
            | Self::FreeInTake
            | Self::TombstoneInSettle
            | Self::OwnInGiveBackIssue
            | Self::VoidBeforeGiveBackIssue
            | Self::UnsettledInConfirm => Play::OneCoupon,
            _ => Play::OneSeat,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Res {
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
pub(crate) struct Reservation {
    pub(crate) status: Res,
    /// Redis' clock has passed `held_until`.
    pub(crate) lapsed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pay {
    None,
    Pending,
    Voiding,
    Confirmed,
    /// Declined or voided: the reason makes no difference to the steps.
    TurnedBack,
    Refunding,
    Refunded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Payment {
    pub(crate) state: Pay,
    /// From 1; 0 before the first.
    pub(crate) attempt: u8,
}

impl Payment {
    /// The place of the current attempt among the op records.
    pub(crate) fn last(self) -> usize {
        usize::from(self.attempt.max(1)) - 1
    }
}

/// The record of a debit's op id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    None,
    Debited,
    Tombstone,
}

/// Which reservation has the seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    pub(crate) reservation: usize,
    pub(crate) sold: bool,
}

/// Which attempt has the issue of the coupon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Use {
    pub(crate) payment: usize,
    pub(crate) attempt: usize,
    pub(crate) used: bool,
}

/// What Redis holds. The counts from `debits` on are nobody's in Redis: they are what the promises are told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shop {
    pub(crate) play: Play,
    pub(crate) seats: [Option<Mark>; 2],
    pub(crate) reservations: [Reservation; 2],
    pub(crate) payments: [Payment; 3],
    pub(crate) balances: [i8; 2],
    pub(crate) ops: [[Op; 2]; 3],
    pub(crate) given_back: [bool; 3],
    pub(crate) issue: Option<Use>,
    pub(crate) issue_ended: [[bool; 2]; 3],
    pub(crate) charged: i8,
    pub(crate) debits: [[u8; 2]; 3],
    pub(crate) refunds: [[u8; 2]; 3],
    pub(crate) cancels: [u8; 3],
    pub(crate) ends: [[u8; 2]; 3],
}

/// What the wallet answers to a debit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Debited {
    Done,
    Insufficient,
    Tombstone,
}

fn count(effects: &mut u8) {
    *effects = (*effects + 1).min(2);
}

impl Shop {
    /// The first user could pay twice; the second has nothing yet. Where it is about the coupon, the seats are held already.
    pub(crate) fn open(play: Play) -> Self {
        let mark = |reservation| Some(Mark { reservation, sold: false });
        let (seats, status) = match play {
            Play::OneSeat => ([None; 2], Res::None),
            Play::OneCoupon => ([mark(0), mark(1)], Res::Held),
        };
        Self {
            play,
            seats,
            reservations: [Reservation { status, lapsed: false }; 2],
            payments: [Payment { state: Pay::None, attempt: 0 }; 3],
            balances: [2 * play.cost(), 0],
            ops: [[Op::None; 2]; 3],
            given_back: [false; 3],
            issue: None,
            issue_ended: [[false; 2]; 3],
            charged: 2 * play.cost(),
            debits: [[0; 2]; 3],
            refunds: [[0; 2]; 3],
            cancels: [0; 3],
            ends: [[0; 2]; 3],
        }
    }

    /// `wallet/charge.lua`, once for the second user.
    pub(crate) fn charge(&mut self) {
        if self.play == Play::OneSeat && self.charged == 2 * PRICE {
            self.charged += PRICE;
            self.balances[1] += PRICE;
        }
    }

    fn seat(&mut self, reservation: usize) -> &mut Option<Mark> {
        &mut self.seats[self.play.seat_of(reservation)]
    }

    /// `seats/hold.lua`, once for each reservation.
    pub(crate) fn hold(&mut self, r: usize, off: Option<Guard>) {
        let taken = self.seat(r).is_some_and(|mark| {
            let of = self.reservations[mark.reservation];
            let paying = of.status == Res::Paying && off != Some(Guard::PayingInHold);
            mark.sold || !of.lapsed || paying
        });
        if self.reservations[r].status == Res::None && !taken {
            *self.seat(r) = Some(Mark { reservation: r, sold: false });
            self.reservations[r].status = Res::Held;
        }
    }

    /// `seats/release.lua`.
    pub(crate) fn release(&mut self, r: usize) {
        let record = &mut self.reservations[r];
        if record.status == Res::Held && !record.lapsed {
            record.status = Res::Ended;
            self.free(r);
        }
    }

    fn free(&mut self, r: usize) {
        if self.seat(r).is_some_and(|mark| mark.reservation == r) {
            *self.seat(r) = None;
        }
    }

    /// Redis' clock passes `held_until`.
    pub(crate) fn lapse(&mut self, r: usize) {
        if matches!(self.reservations[r].status, Res::Held | Res::Paying) {
            self.reservations[r].lapsed = true;
        }
    }

    /// `payment/begin.lua`.
    pub(crate) fn begin(&mut self, p: usize) {
        let r = &mut self.reservations[reservation_of(p)];
        let payment = &mut self.payments[p];
        let more = payment.attempt < self.play.attempts()[p];
        let may = matches!(payment.state, Pay::None | Pay::TurnedBack) && more;
        if may && r.status == Res::Held && !r.lapsed {
            *payment = Payment { state: Pay::Pending, attempt: payment.attempt + 1 };
            r.status = Res::Paying;
        }
    }

    /// `wallet/debit.lua`.
    pub(crate) fn debit(&mut self, p: usize, attempt: usize, off: Option<Guard>) -> Debited {
        let (balance, cost) = (&mut self.balances[self.play.user_of(p)], self.play.cost());
        match self.ops[p][attempt] {
            Op::Debited if off != Some(Guard::RecordInDebit) => return Debited::Done,
            Op::Tombstone if off != Some(Guard::TombstoneInDebit) => return Debited::Tombstone,
            _ => {}
        }
        if *balance < cost {
            return Debited::Insufficient;
        }
        *balance -= cost;
        self.ops[p][attempt] = Op::Debited;
        count(&mut self.debits[p][attempt]);
        Debited::Done
    }

    /// `payment/confirm.lua`: the commit point.
    pub(crate) fn confirm(&mut self, p: usize, attempt: usize, off: Option<Guard>) -> Payment {
        let (payment, r) = (self.payments[p], reservation_of(p));
        let same = payment.last() == attempt || off == Some(Guard::AttemptInConfirm);
        let pending = payment.state == Pay::Pending || off == Some(Guard::PendingInConfirm);
        if same && pending && self.reservations[r].status == Res::Paying {
            self.payments[p].state = Pay::Confirmed;
            self.reservations[r].status = Res::Confirmed;
            *self.seat(r) = Some(Mark { reservation: r, sold: true });
            count(&mut self.ends[p][payment.last()]);
        }
        self.payments[p]
    }

    /// `payment/void.lua`.
    pub(crate) fn void(&mut self, p: usize, attempt: usize) -> Payment {
        let payment = &mut self.payments[p];
        if payment.state == Pay::Pending && payment.last() == attempt {
            payment.state = Pay::Voiding;
        }
        *payment
    }

    /// `wallet/refund.lua`.
    pub(crate) fn refund(&mut self, p: usize, attempt: usize, off: Option<Guard>) {
        let again = off == Some(Guard::RecordInRefund) && self.refunds[p][attempt] == 1;
        if self.ops[p][attempt] == Op::Debited || again {
            self.balances[self.play.user_of(p)] += self.play.cost();
            count(&mut self.refunds[p][attempt]);
        }
        self.ops[p][attempt] = Op::Tombstone;
    }

    /// `payment/voided.lua`.
    pub(crate) fn voided(&mut self, p: usize, attempt: usize, off: Option<Guard>) {
        let payment = &mut self.payments[p];
        let r = &mut self.reservations[reservation_of(p)];
        let voiding = payment.state == Pay::Voiding || off == Some(Guard::VoidingInVoided);
        if voiding && payment.last() == attempt {
            payment.state = Pay::TurnedBack;
            count(&mut self.ends[p][attempt]);
            if r.status == Res::Paying {
                r.status = if r.lapsed { Res::Ended } else { Res::Held };
            }
        }
    }

    /// `payment/begin_cancel.lua`: the commit point of cancelling.
    pub(crate) fn begin_cancel(&mut self, p: usize, off: Option<Guard>) {
        let (payment, r) = (&mut self.payments[p], &mut self.reservations[reservation_of(p)]);
        let bought = payment.state == Pay::Confirmed && r.status == Res::Confirmed;
        if bought || off == Some(Guard::ConfirmedInBeginCancel) && payment.state == Pay::Pending {
            payment.state = Pay::Refunding;
            r.status = Res::Cancelling;
        }
    }

    /// `wallet/give_back.lua`.
    pub(crate) fn give_back(&mut self, p: usize, off: Option<Guard>) {
        let again = off == Some(Guard::RecordInGiveBack) && self.cancels[p] == 1;
        if !self.given_back[p] || again {
            self.given_back[p] = true;
            self.balances[self.play.user_of(p)] += self.play.cost();
            count(&mut self.cancels[p]);
        }
    }

    /// `payment/cancelled.lua`.
    pub(crate) fn cancelled(&mut self, p: usize, off: Option<Guard>) {
        let (payment, r) = (&mut self.payments[p], reservation_of(p));
        let early = off == Some(Guard::BeginBeforeCancelled) && payment.state == Pay::Confirmed;
        if payment.state == Pay::Refunding || early {
            payment.state = Pay::Refunded;
            self.reservations[r].status = Res::Cancelled;
            self.free(r);
        }
    }

    /// `coupons/take.lua`. Whether the attempt has the issue.
    pub(crate) fn take(&mut self, p: usize, attempt: usize, off: Option<Guard>) -> bool {
        let own = |it: Use| it.payment == p && it.attempt == attempt;
        if self.issue.is_some_and(own) {
            return true;
        }
        if self.issue_ended[p][attempt] && off != Some(Guard::TombstoneInTake) {
            return false;
        }
        if self.issue.is_some() && off != Some(Guard::FreeInTake) {
            return false;
        }
        self.issue = Some(Use { payment: p, attempt, used: false });
        true
    }

    /// `coupons/settle.lua`.
    pub(crate) fn settle(&mut self, p: usize, attempt: usize, off: Option<Guard>) {
        let others = self.issue.is_some_and(|it| it.payment != p || it.attempt != attempt);
        let ended = self.issue_ended[p][attempt] && off != Some(Guard::TombstoneInSettle);
        if !ended && !others {
            self.issue = Some(Use { payment: p, attempt, used: true });
        }
    }

    /// `coupons/give_back.lua`.
    pub(crate) fn give_back_issue(&mut self, p: usize, attempt: usize, off: Option<Guard>) {
        self.issue_ended[p][attempt] = true;
        let own = self.issue.is_some_and(|it| it.payment == p && it.attempt == attempt);
        if own || off == Some(Guard::OwnInGiveBackIssue) {
            self.issue = None;
        }
    }
}
