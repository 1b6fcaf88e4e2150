//! The errors of seat operations.

use crate::store_error::{StoreError, from_store_errors};
use crate::{catalogue, queue};

/// The messages are also the `detail` of problems.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The schedule or reservation does not exist or belongs to another user.
    #[error("The schedule or reservation does not exist.")]
    NotFound,
    #[error("The queue token belongs to a different queue.")]
    WrongQueue,
    /// A field of the request and why it is invalid.
    #[error("{1}")]
    InvalidField(&'static str, String),
    /// The numbers of the seats that are held or sold; `yours` are held by the same user.
    #[error("Some of the seats are held or sold.")]
    SeatsTaken { seats: Vec<u32>, yours: Vec<u32> },
    #[error("Not enough adjacent seats.")]
    NotEnoughSeats,
    #[error("A user may have at most {0} seats of this concert.")]
    LimitExceeded(u32),
    /// Outside the booking window, or the concert is archived.
    #[error("Booking is not open.")]
    BookingNotOpen,
    /// Only a hold keeps the user active.
    #[error("The time of the visit is over, so no further seats can be held.")]
    VisitOver,
    /// The reservation is being paid or is confirmed.
    #[error("The reservation is being paid or was paid, so it can't be released.")]
    NotReleasable,
    #[error("This idempotency key was used for a different request.")]
    KeyReused,
    #[error(transparent)]
    Queue(#[from] queue::Error),
    #[error(transparent)]
    Catalogue(#[from] catalogue::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

from_store_errors!(Error);
