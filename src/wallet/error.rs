//! What a wallet refuses.

use crate::{mysql, outbox::tail, redis};

/// Why a wallet was not changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The balance does not suffice.
    #[error("the balance does not suffice")]
    InsufficientBalance,
    /// The balance would be larger than a wallet holds.
    #[error("the balance would be above the largest a wallet holds")]
    BalanceLimitExceeded,
    /// The idempotency key belongs to another request.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
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
