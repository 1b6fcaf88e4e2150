//! What the seats refuse.

use crate::store_error::{StoreError, from_store_errors};
use crate::{catalogue, queue};

/// Why a call about seats was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such schedule or reservation, or somebody else's.
    #[error("there is no such thing")]
    NotFound,
    /// The token belongs to another queue than the concert.
    #[error("the token is of another queue")]
    WrongQueue,
    /// What was asked for is not a sound choice: which field, and why.
    #[error("{1}")]
    Unsound(&'static str, String),
    /// Some of the seats are held or sold.
    #[error("some of the seats are taken")]
    Taken(Vec<u32>),
    /// Nowhere are so many seats free side by side.
    #[error("nowhere are so many seats free side by side")]
    NotEnough,
    /// More seats than a user may have.
    #[error("a user may have {0} seats of this concert")]
    LimitExceeded(u32),
    /// Outside the booking window.
    #[error("booking is not open")]
    BookingNotOpen,
    /// Being paid, or bought.
    #[error("the reservation can't be released any more")]
    NotReleasable,
    /// The line does not admit.
    #[error(transparent)]
    Queue(#[from] queue::Error),
    /// The catalogue could not be renewed.
    #[error(transparent)]
    Catalogue(#[from] catalogue::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

from_store_errors!(Error);
