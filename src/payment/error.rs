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
