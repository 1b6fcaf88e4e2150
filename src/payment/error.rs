//! What a payment is refused for.

use crate::store_error::{StoreError, from_store_errors};
use crate::{queue, seats};

/// Why a payment was refused. In each case but [`Error::Unfinished`] nothing was taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such reservation or payment, or somebody else's.
    #[error("there is no such thing")]
    NotFound,
    /// The token belongs to another queue than the reservation.
    #[error("the token is of another queue")]
    WrongQueue,
    /// The balance does not suffice; the hold stays.
    #[error("the balance does not suffice")]
    InsufficientBalance,
    /// The coupon is not the user's, is used, or the amount is too small for it; the hold stays.
    #[error("the coupon can't be used for this payment")]
    CouponNotApplicable,
    /// The hold lapsed before it was paid.
    #[error("the hold has lapsed")]
    HoldExpired,
    /// The reservation is not held, or another payment of it is under way.
    #[error("the reservation can't be paid")]
    NotPayable,
    /// The attempt took too long and was turned back; it may be tried again.
    #[error("the payment took too long and was turned back")]
    TurnedBack,
    /// The reservation was not bought, or is cancelled already.
    #[error("the reservation is not confirmed")]
    NotCancellable,
    /// The last moment for cancelling has passed.
    #[error("it is too late to cancel")]
    CancellationClosed,
    /// The idempotency key belongs to another request.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
    /// The outcome is not known yet; it will be one of the final ones.
    #[error("the outcome is not known yet")]
    Unfinished(Box<super::PaymentWithReservation>),
    /// The reservation could not be read.
    #[error(transparent)]
    Seats(seats::Error),
    /// The line did not answer.
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
