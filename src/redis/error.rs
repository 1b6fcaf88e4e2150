//! What can go wrong between a room and Redis.

use crate::partition::Partition;

/// Why a call gave no answer. Cloned to every request of a batch that failed as one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Redis can't be reached, took too long, or refuses writes. Whether the script ran is not known.
    #[error("Redis is unavailable: {0}")]
    Unavailable(String),
    /// Too many requests wait for this entity; nothing was sent.
    #[error("too many requests are waiting")]
    Overloaded,
    /// There is no room for this now; nothing was changed.
    #[error("there is no room for this: {0}")]
    NoRoom(&'static str),
    /// The partition's generation is not the one this instance knows; nothing was changed.
    #[error("partition {0} is recovering")]
    Recovering(Partition),
    /// The entity's settings, or this version of them, are not laid in Redis; nothing was changed.
    #[error("the settings are not laid in Redis")]
    NotLaid,
    /// The script's answer is not of the agreed form: a defect of ours.
    #[error("unexpected answer from Redis: {0}")]
    Protocol(String),
}

impl From<fred::error::Error> for Error {
    fn from(error: fred::error::Error) -> Self {
        use fred::error::ErrorKind;
        match error.kind() {
            ErrorKind::Backpressure => Self::Overloaded,
            // Said before a script runs.
            _ if error.details().starts_with("OOM") => Self::NoRoom("Redis has no memory left"),
            // A script that failed on its own account says ERR; states of the server (LOADING, READONLY, OOM, MISCONF, …) pass.
            ErrorKind::Unknown
            | ErrorKind::InvalidArgument
            | ErrorKind::Parse
            | ErrorKind::Protocol
                if error.details().contains("ERR") || error.details().starts_with("WRONGTYPE") =>
            {
                Self::Protocol(error.to_string())
            }
            _ => Self::Unavailable(error.to_string()),
        }
    }
}
