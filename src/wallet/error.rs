//! What a wallet refuses.

use crate::store_error::{StoreError, from_store_errors};

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
    #[error(transparent)]
    Store(#[from] StoreError),
}

from_store_errors!(Error);
