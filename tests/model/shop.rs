//! What Redis holds, and the steps of the payment as the scripts take them: one seat, two users, three payments (the first user has two keys
//! for one reservation). Each step is the script of its name, cut down to what it decides on. A coupon is left out: it is a second wallet, taken under the same
//! op id and given back under the same tombstone. Redis' clock is the action of lapsing, which may come at any moment.

/// What each payment costs.
pub(crate) const PRICE: i8 = 1;
/// The payments. The first two are one user's, under two keys, for one reservation.
pub(crate) const PAYMENTS: [usize; 3] = [0, 1, 2];
/// How many attempts of each payment are looked at.
pub(crate) const ATTEMPTS: [u8; 3] = [2, 2, 2];

/// Whose payment it is. A user has one reservation, of the same number.
pub(crate) fn user_of(payment: usize) -> usize {
    [0, 0, 1][payment]
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
}

impl Guard {
    pub(crate) const ALL: [Self; 11] = [
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
    ];
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

/// Who has the seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    pub(crate) user: usize,
    pub(crate) sold: bool,
}

/// What Redis holds. The counts from `debits` on are nobody's in Redis: they are what the promises are told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shop {
    pub(crate) seat: Option<Mark>,
    pub(crate) reservations: [Reservation; 2],
    pub(crate) payments: [Payment; 3],
    pub(crate) balances: [i8; 2],
    pub(crate) ops: [[Op; 2]; 3],
    pub(crate) given_back: [bool; 3],
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
    /// The first user could pay twice; the second has nothing yet.
    pub(crate) fn open() -> Self {
        Self {
            seat: None,
            reservations: [Reservation { status: Res::None, lapsed: false }; 2],
            payments: [Payment { state: Pay::None, attempt: 0 }; 3],
            balances: [2 * PRICE, 0],
            ops: [[Op::None; 2]; 3],
            given_back: [false; 3],
            charged: 2 * PRICE,
            debits: [[0; 2]; 3],
            refunds: [[0; 2]; 3],
            cancels: [0; 3],
            ends: [[0; 2]; 3],
        }
    }

    /// `wallet/charge.lua`, once for the second user.
    pub(crate) fn charge(&mut self) {
        if self.charged == 2 * PRICE {
            self.charged += PRICE;
            self.balances[1] += PRICE;
        }
    }

    /// `seats/hold.lua`, once for each user.
    pub(crate) fn hold(&mut self, user: usize, off: Option<Guard>) {
        let taken = self.seat.is_some_and(|mark| {
            let of = self.reservations[mark.user];
            let paying = of.status == Res::Paying && off != Some(Guard::PayingInHold);
            mark.sold || !of.lapsed || paying
        });
        if self.reservations[user].status == Res::None && !taken {
            self.seat = Some(Mark { user, sold: false });
            self.reservations[user].status = Res::Held;
        }
    }

    /// `seats/release.lua`.
    pub(crate) fn release(&mut self, user: usize) {
        let r = &mut self.reservations[user];
        if r.status == Res::Held && !r.lapsed {
            r.status = Res::Ended;
            if self.seat.is_some_and(|mark| mark.user == user) {
                self.seat = None;
            }
        }
    }

    /// Redis' clock passes `held_until`.
    pub(crate) fn lapse(&mut self, user: usize) {
        if matches!(self.reservations[user].status, Res::Held | Res::Paying) {
            self.reservations[user].lapsed = true;
        }
    }

    /// `payment/begin.lua`.
    pub(crate) fn begin(&mut self, p: usize) {
        let r = &mut self.reservations[user_of(p)];
        let payment = &mut self.payments[p];
        let may = matches!(payment.state, Pay::None | Pay::TurnedBack) && payment.attempt < ATTEMPTS[p];
        if may && r.status == Res::Held && !r.lapsed {
            *payment = Payment { state: Pay::Pending, attempt: payment.attempt + 1 };
            r.status = Res::Paying;
        }
    }

    /// `wallet/debit.lua`.
    pub(crate) fn debit(&mut self, p: usize, attempt: usize, off: Option<Guard>) -> Debited {
        let balance = &mut self.balances[user_of(p)];
        match self.ops[p][attempt] {
            Op::Debited if off != Some(Guard::RecordInDebit) => return Debited::Done,
            Op::Tombstone if off != Some(Guard::TombstoneInDebit) => return Debited::Tombstone,
            _ => {}
        }
        if *balance < PRICE {
            return Debited::Insufficient;
        }
        *balance -= PRICE;
        self.ops[p][attempt] = Op::Debited;
        count(&mut self.debits[p][attempt]);
        Debited::Done
    }

    /// `payment/confirm.lua`: the commit point.
    pub(crate) fn confirm(&mut self, p: usize, attempt: usize, off: Option<Guard>) -> Payment {
        let (payment, user) = (self.payments[p], user_of(p));
        let same = payment.last() == attempt || off == Some(Guard::AttemptInConfirm);
        let pending = payment.state == Pay::Pending || off == Some(Guard::PendingInConfirm);
        if same && pending && self.reservations[user].status == Res::Paying {
            self.payments[p].state = Pay::Confirmed;
            self.reservations[user].status = Res::Confirmed;
            self.seat = Some(Mark { user, sold: true });
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
            self.balances[user_of(p)] += PRICE;
            count(&mut self.refunds[p][attempt]);
        }
        self.ops[p][attempt] = Op::Tombstone;
    }

    /// `payment/voided.lua`.
    pub(crate) fn voided(&mut self, p: usize, attempt: usize, off: Option<Guard>) {
        let payment = &mut self.payments[p];
        let r = &mut self.reservations[user_of(p)];
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
        let (payment, r) = (&mut self.payments[p], &mut self.reservations[user_of(p)]);
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
            self.balances[user_of(p)] += PRICE;
            count(&mut self.cancels[p]);
        }
    }

    /// `payment/cancelled.lua`.
    pub(crate) fn cancelled(&mut self, p: usize, off: Option<Guard>) {
        let (payment, user) = (&mut self.payments[p], user_of(p));
        let early = off == Some(Guard::BeginBeforeCancelled) && payment.state == Pay::Confirmed;
        if payment.state == Pay::Refunding || early {
            payment.state = Pay::Refunded;
            self.reservations[user].status = Res::Cancelled;
            if self.seat.is_some_and(|mark| mark.user == user) {
                self.seat = None;
            }
        }
    }
}
