//! Pure decisions about payments: what an end means to the one who pays.

use super::record::{Payment, PaymentState};

/// The word under which [`PaymentState::Declined`] is reached; `lua/payment/finish_void.lua` knows it too.
pub(super) const INSUFFICIENT: &str = "insufficient_balance";
/// Another word for [`PaymentState::Declined`].
pub(super) const NOT_APPLICABLE: &str = "coupon_not_applicable";
/// The word under which a sweep turns a payment back.
pub(super) const OVERDUE: &str = "overdue";

/// What the payer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PaymentVerdict {
    /// Paid.
    Paid,
    /// The balance did not suffice.
    Insufficient,
    /// The coupon can't be used for it.
    CouponNotApplicable,
    /// Turned back.
    TurnedBack,
    /// Not known yet.
    Unknown,
}

/// What a payment's state means to the one who pays.
pub(super) fn verdict(payment: &Payment) -> PaymentVerdict {
    match payment.state {
        PaymentState::Confirmed | PaymentState::Refunding | PaymentState::Refunded => {
            PaymentVerdict::Paid
        }
        PaymentState::Declined if payment.reason.as_deref() == Some(NOT_APPLICABLE) => {
            PaymentVerdict::CouponNotApplicable
        }
        PaymentState::Declined => PaymentVerdict::Insufficient,
        PaymentState::Voided => PaymentVerdict::TurnedBack,
        PaymentState::Pending | PaymentState::Voiding => PaymentVerdict::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PaymentId, ReservationId};
    use crate::money::Money;
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
            n: 0,
            created_at: 0,
            at: 0,
        }
    }

    #[test]
    fn only_an_end_is_told_as_one() {
        for (state, expected) in [
            (PaymentState::Pending, PaymentVerdict::Unknown),
            (PaymentState::Voiding, PaymentVerdict::Unknown),
            (PaymentState::Confirmed, PaymentVerdict::Paid),
            (PaymentState::Refunding, PaymentVerdict::Paid),
            (PaymentState::Refunded, PaymentVerdict::Paid),
            (PaymentState::Declined, PaymentVerdict::Insufficient),
            (PaymentState::Voided, PaymentVerdict::TurnedBack),
        ] {
            assert_eq!(verdict(&payment(state)), expected, "{state:?}");
        }
    }

    #[test]
    fn why_it_was_declined_is_told() {
        let declined = |reason: &str| Payment {
            reason: Some(reason.into()),
            ..payment(PaymentState::Declined)
        };
        assert_eq!(verdict(&declined(INSUFFICIENT)), PaymentVerdict::Insufficient);
        assert_eq!(verdict(&declined(NOT_APPLICABLE)), PaymentVerdict::CouponNotApplicable);
    }

    #[test]
    fn a_discount_is_not_debited() {
        assert_eq!(payment(PaymentState::Pending).to_pay().get(), 7_000);
    }
}
