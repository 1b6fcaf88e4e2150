//! Pure functions of payments: which outcome a state means.

use super::Error;
use super::record::{Payment, PaymentState};
use crate::money::Money;
use crate::seats::Reservation;

/// A payment that is voided for this reason becomes [`PaymentState::Declined`], as in
/// `lua/payment/finish_void.lua`.
pub(super) const REASON_INSUFFICIENT_BALANCE: &str = "insufficient_balance";
/// Like [`REASON_INSUFFICIENT_BALANCE`].
pub(super) const REASON_COUPON_NOT_APPLICABLE: &str = "coupon_not_applicable";
/// Like [`REASON_INSUFFICIENT_BALANCE`]: the amount is not the expected one.
pub(super) const REASON_AMOUNT_CHANGED: &str = "amount_changed";
/// Like [`REASON_INSUFFICIENT_BALANCE`].
pub(super) const REASON_COUPON_EXPIRED: &str = "coupon_expired";
/// The reason when a payment took too long.
pub(super) const REASON_OVERDUE: &str = "overdue";

/// Checks a selection of seats to cancel. Returns what they give back, unless they are the last
/// ones.
pub(super) fn refund_of_seats(reservation: &Reservation, seats: &[u32]) -> Result<Money, Error> {
    if seats.is_empty() {
        return Err(Error::InvalidSeats("must contain at least one seat".into()));
    }
    let mut price = Money::ZERO;
    for (at, number) in seats.iter().enumerate() {
        if seats[..at].contains(number) {
            return Err(Error::InvalidSeats(format!("contains seat {number} twice")));
        }
        let seat = reservation.seats.iter().find(|seat| seat.number == *number);
        let seat = seat.ok_or_else(|| {
            Error::InvalidSeats(format!("contains seat {number}, which is not in the reservation"))
        })?;
        price = price.plus(seat.price).unwrap_or(reservation.amount);
    }
    let paid = reservation.paid.unwrap_or(Money::ZERO);
    Ok(refund_of(paid, price, reservation.amount))
}

/// What some seats give back of `paid`: their part of the price, rounded down. The last seats give
/// back the rest instead.
fn refund_of(paid: Money, price: Money, all: Money) -> Money {
    if all == Money::ZERO {
        return Money::ZERO;
    }
    let part = i128::from(paid.get()) * i128::from(price.get()) / i128::from(all.get());
    i64::try_from(part).ok().and_then(Money::new).unwrap_or(Money::ZERO)
}

/// The outcome of a payment for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PaymentVerdict {
    /// Also when the payment was refunded later.
    Paid,
    InsufficientBalance,
    CouponNotApplicable,
    AmountChanged,
    CouponExpired,
    Voided,
    Pending,
}

pub(super) fn verdict(payment: &Payment) -> PaymentVerdict {
    match payment.state {
        PaymentState::Confirmed | PaymentState::Refunding | PaymentState::Refunded => {
            PaymentVerdict::Paid
        }
        PaymentState::Declined => match payment.reason.as_deref() {
            Some(REASON_COUPON_NOT_APPLICABLE) => PaymentVerdict::CouponNotApplicable,
            Some(REASON_AMOUNT_CHANGED) => PaymentVerdict::AmountChanged,
            Some(REASON_COUPON_EXPIRED) => PaymentVerdict::CouponExpired,
            _ => PaymentVerdict::InsufficientBalance,
        },
        PaymentState::Voided => PaymentVerdict::Voided,
        PaymentState::Pending | PaymentState::Voiding => PaymentVerdict::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PaymentId, ReservationId};
    use crate::partition::HashSlot;

    fn payment(state: PaymentState) -> Payment {
        let slot = HashSlot::from_low_bits(1);
        Payment {
            id: PaymentId::new(slot),
            reservation: ReservationId::new(slot),
            user: uuid::Uuid::from_u128(1).into(),
            queue: "demo".parse().unwrap(),
            state,
            attempt: 1,
            amount: Money::new(9_000).unwrap(),
            discount: Money::new(2_000).unwrap(),
            coupon: None,
            issue: None,
            reason: None,
            balance_after: None,
            refunded: Money::ZERO,
            cancelling: None,
            n: 0,
            created_at: 0,
            at: 0,
        }
    }

    #[test]
    fn each_state_has_its_verdict() {
        for (state, expected) in [
            (PaymentState::Pending, PaymentVerdict::Pending),
            (PaymentState::Voiding, PaymentVerdict::Pending),
            (PaymentState::Confirmed, PaymentVerdict::Paid),
            (PaymentState::Refunding, PaymentVerdict::Paid),
            (PaymentState::Refunded, PaymentVerdict::Paid),
            (PaymentState::Declined, PaymentVerdict::InsufficientBalance),
            (PaymentState::Voided, PaymentVerdict::Voided),
        ] {
            assert_eq!(verdict(&payment(state)), expected, "{state:?}");
        }
    }

    #[test]
    fn verdict_follows_the_reason() {
        let declined = |reason: &str| Payment {
            reason: Some(reason.into()),
            ..payment(PaymentState::Declined)
        };
        assert_eq!(
            verdict(&declined(REASON_INSUFFICIENT_BALANCE)),
            PaymentVerdict::InsufficientBalance
        );
        assert_eq!(
            verdict(&declined(REASON_COUPON_NOT_APPLICABLE)),
            PaymentVerdict::CouponNotApplicable
        );
        assert_eq!(verdict(&declined(REASON_COUPON_EXPIRED)), PaymentVerdict::CouponExpired);
        assert_eq!(verdict(&declined(REASON_AMOUNT_CHANGED)), PaymentVerdict::AmountChanged);
    }

    #[test]
    fn refund_of_some_seats_is_exact() {
        let of = |paid, price, all| {
            let money = |minor| Money::new(minor).unwrap();
            refund_of(money(paid), money(price), money(all)).get()
        };
        assert_eq!(of(7_000, 3_000, 9_000), 2_333);
        assert_eq!(of(9_000, 3_000, 9_000), 3_000);
        assert_eq!(of(1, 2, 3), 0);
        assert_eq!(of(0, 3_000, 9_000), 0);
        assert_eq!(of(0, 0, 0), 0);
        // A product above 2^64, and a quotient that doubles would round.
        let max = crate::money::MAX;
        assert_eq!(of(max, max - 1, max), max - 1);
        assert_eq!(of(max - 2, max - 2, max), max - 4);
    }

    #[test]
    fn discount_is_not_debited() {
        assert_eq!(payment(PaymentState::Pending).to_pay().get(), 7_000);
    }
}
