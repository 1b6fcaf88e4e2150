//! The errors of payment operations.

use crate::money::Money;
use crate::store_error::{StoreError, from_store_errors};
use crate::{queue, seats};

/// The messages are also the `detail` of problems. In every case but [`Error::OutcomePending`] and
/// [`Error::Store`], the user has not paid.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reservation or payment does not exist or belongs to another user.
    #[error("The reservation or payment does not exist.")]
    NotFound,
    #[error("The queue token belongs to a different queue.")]
    WrongQueue,
    /// The seats stay held.
    #[error("The balance is too low.")]
    InsufficientBalance,
    /// The seats stay held.
    #[error("The coupon can't be used for this payment.")]
    CouponNotApplicable,
    /// The seats stay held. With what would be paid.
    #[error("The amount differs from the expected amount.")]
    AmountChanged(Money),
    /// The seats stay held.
    #[error("The coupon is not valid any more.")]
    CouponExpired,
    /// The seats stay held.
    #[error("The wallet and the coupon leave nothing for the provider. Pay by wallet instead.")]
    NothingDue,
    /// The seats stay held.
    #[error("Three payments of this user wait for a provider. Confirm or void one of them first.")]
    TooManyPending,
    /// The money at the provider must be given back.
    #[error("The payment was voided or is past its time. Cancel it at the provider.")]
    PaymentVoided,
    #[error("The payment is confirmed with another reference.")]
    AlreadyConfirmed,
    #[error("The reference has paid, or is about to pay, another payment.")]
    ReferenceUsed,
    /// With the amount that is due.
    #[error("The amount is not the amount that is due.")]
    AmountMismatch(Money),
    #[error("The wallet pays this payment, so no provider can confirm it.")]
    NotExternal,
    #[error("The payment is confirmed or paid by wallet, so it can't be voided.")]
    NotVoidable,
    #[error("The hold has expired.")]
    HoldExpired,
    #[error("The reservation is not held, or another payment for it is in progress.")]
    NotPayable,
    #[error("The payment took too long and was voided. Retry the request.")]
    Voided,
    /// The reservation was never confirmed, or it or one of the seats is already cancelled.
    #[error("The reservation or one of the seats is not confirmed.")]
    NotCancellable,
    /// Why the seats to cancel are invalid.
    #[error("The seats are invalid.")]
    InvalidSeats(String),
    #[error("The time for cancellation has passed.")]
    CancellationClosed,
    #[error("The idempotency key was used for a different request.")]
    KeyReused,
    /// Another attempt or the sweep reaches the outcome.
    #[error("The outcome is not known yet.")]
    OutcomePending(Box<super::PaymentWithReservation>),
    #[error(transparent)]
    Seats(seats::Error),
    #[error(transparent)]
    Queue(#[from] queue::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<seats::Error> for Error {
    fn from(error: seats::Error) -> Self {
        match error {
            seats::Error::NotFound => Self::NotFound,
            other => Self::Seats(other),
        }
    }
}

from_store_errors!(Error);
