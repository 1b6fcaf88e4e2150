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
/// Like [`REASON_INSUFFICIENT_BALANCE`]: nothing is left for the provider.
pub(super) const REASON_NOTHING_DUE: &str = "nothing_due";
/// Like [`REASON_INSUFFICIENT_BALANCE`]: the user has too many payments that wait.
pub(super) const REASON_TOO_MANY_PENDING: &str = "too_many_pending";
/// The reason when the user or the backend voids a payment without naming another one.
pub(super) const REASON_REQUESTED: &str = "requested";
/// The reasons that the service itself gives.
pub(super) const SERVICE_REASONS: [&str; 7] = [
    REASON_INSUFFICIENT_BALANCE,
    REASON_COUPON_NOT_APPLICABLE,
    REASON_AMOUNT_CHANGED,
    REASON_COUPON_EXPIRED,
    REASON_NOTHING_DUE,
    REASON_TOO_MANY_PENDING,
    REASON_OVERDUE,
];
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

/// What a provider, through the booking backend, says to have taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderProof {
    pub provider: String,
    pub reference: String,
    pub amount: Money,
}

/// What a valid confirmation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConfirmationStep {
    /// The payment was confirmed with this proof before.
    Repeated,
    Confirm,
    /// The payment does not wait for the provider yet.
    NotYet,
}

/// Compares a confirmation with the payment as it reads.
pub(super) fn check_confirmation(
    payment: &Payment,
    proof: &ProviderProof,
) -> Result<ConfirmationStep, Error> {
    let external = payment.external.as_deref();
    let due = external.and_then(|external| external.due_amount);
    let check_amount = |step| match due {
        Some(due) if due == proof.amount => Ok(step),
        due => Err(Error::AmountMismatch(due.unwrap_or(Money::ZERO))),
    };
    match payment.state {
        PaymentState::Confirmed | PaymentState::Refunding | PaymentState::Refunded => {
            let is_same = external.is_some_and(|external| {
                external.provider.as_ref() == Some(&proof.provider)
                    && external.reference.as_ref() == Some(&proof.reference)
            });
            if is_same {
                check_amount(ConfirmationStep::Repeated)
            } else {
                Err(Error::AlreadyConfirmed)
            }
        }
        PaymentState::Voiding | PaymentState::Voided | PaymentState::Declined => {
            Err(Error::PaymentVoided)
        }
        PaymentState::Pending if external.is_none() => Err(Error::NotExternal),
        PaymentState::Pending if payment.is_awaited() => check_amount(ConfirmationStep::Confirm),
        PaymentState::Pending => Ok(ConfirmationStep::NotYet),
    }
}

/// Whether the claim of a reference by an attempt of this payment can confirm nothing any more, so
/// that another payment may claim the reference.
pub(super) fn is_stale_claim(payment: &Payment, attempt: u32, proof: &ProviderProof) -> bool {
    payment.attempt > attempt
        || match payment.state {
            PaymentState::Pending => false,
            PaymentState::Voiding | PaymentState::Voided | PaymentState::Declined => true,
            PaymentState::Confirmed | PaymentState::Refunding | PaymentState::Refunded => {
                check_confirmation(payment, proof)
                    .is_err_and(|error| matches!(error, Error::AlreadyConfirmed))
            }
        }
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
    NothingDue,
    TooManyPending,
    Voided,
    /// It waits for its provider.
    Awaited,
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
            Some(REASON_NOTHING_DUE) => PaymentVerdict::NothingDue,
            Some(REASON_TOO_MANY_PENDING) => PaymentVerdict::TooManyPending,
            _ => PaymentVerdict::InsufficientBalance,
        },
        PaymentState::Voided => PaymentVerdict::Voided,
        PaymentState::Pending if payment.is_awaited() => PaymentVerdict::Awaited,
        PaymentState::Pending | PaymentState::Voiding => PaymentVerdict::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PaymentId, ReservationId};
    use crate::outbox::event::ExternalPayment;
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
            external: None,
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

    fn external(state: PaymentState, due_at: Option<i64>) -> Payment {
        let external = ExternalPayment {
            wallet_amount: Money::new(3_000).unwrap(),
            due_amount: Money::new(4_000),
            due_at,
            provider: Some("toss".into()),
            reference: Some("pay_1".into()),
            refunds: Vec::new(),
            refund_due_since: None,
        };
        Payment { external: Some(Box::new(external)), ..payment(state) }
    }

    fn proof(reference: &str, amount: i64) -> ProviderProof {
        let amount = Money::new(amount).unwrap();
        ProviderProof { provider: "toss".into(), reference: reference.into(), amount }
    }

    #[test]
    fn confirmation_depends_on_state_reference_and_amount() {
        let check = |payment: &Payment, reference: &str, amount| match check_confirmation(
            payment,
            &proof(reference, amount),
        ) {
            Ok(ConfirmationStep::Confirm) => "confirm",
            Ok(ConfirmationStep::Repeated) => "repeated",
            Err(Error::AmountMismatch(_)) => "amount",
            Err(Error::AlreadyConfirmed) => "already",
            Err(Error::PaymentVoided) => "voided",
            Err(Error::NotExternal) => "wallet",
            Ok(ConfirmationStep::NotYet) => "later",
            Err(error) => panic!("{error}"),
        };
        let waiting = external(PaymentState::Pending, Some(1));
        assert_eq!(check(&waiting, "pay_2", 4_000), "confirm");
        assert_eq!(check(&waiting, "pay_2", 7_000), "amount");
        assert_eq!(check(&external(PaymentState::Pending, None), "pay_2", 4_000), "later");
        assert_eq!(check(&payment(PaymentState::Pending), "pay_1", 7_000), "wallet");
        for paid in [PaymentState::Confirmed, PaymentState::Refunding, PaymentState::Refunded] {
            assert_eq!(check(&external(paid, None), "pay_1", 4_000), "repeated");
            assert_eq!(check(&external(paid, None), "pay_1", 4_001), "amount");
            assert_eq!(check(&external(paid, None), "pay_2", 4_000), "already");
            assert_eq!(check(&payment(paid), "pay_1", 7_000), "already");
        }
        for over in [PaymentState::Voiding, PaymentState::Voided, PaymentState::Declined] {
            assert_eq!(check(&external(over, Some(1)), "pay_1", 4_000), "voided");
        }
    }

    #[test]
    fn claim_is_stale_once_its_attempt_can_confirm_nothing() {
        let stale = |state, attempt, reference: &str| {
            is_stale_claim(&external(state, Some(1)), attempt, &proof(reference, 4_000))
        };
        assert!(!stale(PaymentState::Pending, 1, "pay_1"));
        assert!(stale(PaymentState::Pending, 0, "pay_1"), "an earlier attempt");
        assert!(stale(PaymentState::Voiding, 1, "pay_1"));
        assert!(stale(PaymentState::Voided, 1, "pay_1"));
        assert!(!stale(PaymentState::Confirmed, 1, "pay_1"), "it has paid");
        assert!(!stale(PaymentState::Refunded, 1, "pay_1"), "also after the refund");
        assert!(stale(PaymentState::Confirmed, 1, "pay_2"), "another reference has paid");
    }

    #[test]
    fn wallet_part_is_refunded_first() {
        let refunded = |amount| Payment {
            refunded: Money::new(amount).unwrap(),
            ..external(PaymentState::Confirmed, None)
        };
        for (amount, wallet, due) in [(0, 0, 0), (2_000, 2_000, 0), (5_000, 3_000, 2_000)] {
            let payment = refunded(amount);
            assert_eq!(payment.wallet_refund(payment.refunded).get(), wallet);
            assert_eq!(payment.refund_due().get(), due);
        }
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
