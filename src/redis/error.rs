//! The errors of calls to Redis.

use fred::types::config::Server;

use crate::partition::Partition;

/// Why a call has no reply. When a batch fails, each of its requests gets a clone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Redis can't be reached, took too long, or refuses writes. The script may have run.
    #[error("Redis is unavailable: {0}")]
    Unavailable(String),
    /// Too many requests wait for this entity. Nothing was sent.
    #[error("too many requests are waiting")]
    Overloaded,
    /// The load limits or Redis' memory limit refuse this now. Nothing was changed.
    #[error("the service is at capacity: {0}")]
    OutOfCapacity(&'static str),
    /// Redis does not hold the epoch that this instance verified for the partition. Nothing was
    /// changed.
    #[error("partition {0} is recovering")]
    Recovering(Partition),
    /// The settings of the entity, or this version of them, are not published to Redis. Nothing was
    /// changed.
    #[error("the settings are not published to Redis")]
    NotPublished,
    /// The reply of a script has an unexpected form: a defect of this service.
    #[error("unexpected reply from Redis: {0}")]
    Protocol(String),
}

impl From<fred::error::Error> for Error {
    fn from(error: fred::error::Error) -> Self {
        use fred::error::ErrorKind;
        match error.kind() {
            ErrorKind::Backpressure => Self::Overloaded,
            // Redis returns OOM before it runs a script.
            _ if error.details().starts_with("OOM") => {
                Self::OutOfCapacity("Redis has no memory left")
            }
            // ERR is a failure of the script itself. States of the server (LOADING, READONLY,
            // MISCONF, …) are temporary.
            ErrorKind::Unknown
            | ErrorKind::InvalidArgument
            | ErrorKind::Parse
            | ErrorKind::Protocol
                if error.details().contains("ERR") || error.details().starts_with("WRONGTYPE") =>
            {
                Self::Protocol(error.to_string())
            }
            _ => Self::Unavailable(error.details().to_owned()),
        }
    }
}

impl Error {
    /// Names the server to which no connection could be made, and why.
    pub(super) fn unreachable(server: &Server, error: &fred::error::Error) -> Self {
        use fred::error::ErrorKind;
        let cause = match error.kind() {
            ErrorKind::IO if error.details().contains("Connection refused") => {
                "refused the connection".to_owned()
            }
            ErrorKind::Timeout => "does not answer".to_owned(),
            ErrorKind::Auth => "refused the user name or the password".to_owned(),
            _ => format!("can't be used: {}", error.details()),
        };
        Self::Unavailable(format!("{server} {cause} (USHER_REDIS_URL)"))
    }
}
