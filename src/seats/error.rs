//! What the seats refuse.

use crate::{catalogue, mysql, outbox::tail, queue, redis};

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
    /// Redis did not answer.
    #[error(transparent)]
    Redis(#[from] redis::Error),
    /// MySQL did not answer.
    #[error(transparent)]
    Mysql(#[from] mysql::Error),
}

impl From<tail::Error> for Error {
    fn from(error: tail::Error) -> Self {
        match error {
            tail::Error::Redis(error) => Self::Redis(error),
            tail::Error::Mysql(error) => Self::Mysql(error),
        }
    }
}
