//! Pure functions of payments: which outcome a state means.

use super::record::{Payment, PaymentState};

/// A payment that is voided for this reason becomes [`PaymentState::Declined`], as in
/// `lua/payment/finish_void.lua`.
pub(super) const REASON_INSUFFICIENT_BALANCE: &str = "insufficient_balance";
/// Like [`REASON_INSUFFICIENT_BALANCE`].
pub(super) const REASON_COUPON_NOT_APPLICABLE: &str = "coupon_not_applicable";
/// Like [`REASON_INSUFFICIENT_BALANCE`].
pub(super) const REASON_COUPON_EXPIRED: &str = "coupon_expired";
/// The reason when a payment took too long.
pub(super) const REASON_OVERDUE: &str = "overdue";

/// The outcome of a payment for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PaymentVerdict {
    /// Also when the payment was refunded later.
    Paid,
    InsufficientBalance,
    CouponNotApplicable,
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
    }

    #[test]
    fn discount_is_not_debited() {
        assert_eq!(payment(PaymentState::Pending).to_pay().get(), 7_000);
    }
}
