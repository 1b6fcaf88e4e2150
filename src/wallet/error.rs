//! The errors of wallet operations.

use crate::store_error::{StoreError, from_store_errors};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the balance is insufficient")]
    InsufficientBalance,
    #[error("the balance would exceed the maximum of a wallet")]
    BalanceLimitExceeded,
    #[error("the idempotency key was used for a different request")]
    KeyReused,
    #[error(transparent)]
    Store(#[from] StoreError),
}

from_store_errors!(Error);
