//! The error of everything that reads or writes both stores: Redis failed, or MySQL did.

use crate::{mysql, redis};

/// Which of the two stores failed, and how.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Redis(#[from] redis::Error),
    #[error(transparent)]
    Mysql(#[from] mysql::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Mysql(error.into())
    }
}

/// Lets `?` turn the errors of both stores into the variant `Store` of an error type.
macro_rules! from_store_errors {
    ($error:ty) => {
        impl From<crate::redis::Error> for $error {
            fn from(error: crate::redis::Error) -> Self {
                Self::Store(error.into())
            }
        }

        impl From<crate::mysql::Error> for $error {
            fn from(error: crate::mysql::Error) -> Self {
                Self::Store(error.into())
            }
        }
    };
}
pub(crate) use from_store_errors;
