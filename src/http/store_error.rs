//! How failures of the stores are told to a client.

use super::problem::ProblemDetails;
use crate::store_error::StoreError;
use crate::{mysql, redis};

impl From<StoreError> for ProblemDetails {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Redis(error) => error.into(),
            StoreError::Mysql(error) => error.into(),
        }
    }
}

impl From<redis::Error> for ProblemDetails {
    fn from(error: redis::Error) -> Self {
        match error {
            redis::Error::Overloaded => Self::overloaded(),
            redis::Error::NoRoom(_) => Self::overloaded().retry_after(5),
            redis::Error::Recovering(_) => Self::recovering(),
            redis::Error::Unavailable(_) | redis::Error::NotLaid => {
                tracing::warn!(%error, "a request found Redis unavailable");
                Self::store_unavailable()
            }
            redis::Error::Protocol(_) => {
                tracing::error!(%error, "a script's answer is not of the agreed form");
                Self::internal()
            }
        }
    }
}

impl From<mysql::Error> for ProblemDetails {
    fn from(error: mysql::Error) -> Self {
        tracing::warn!(%error, "a request found MySQL unavailable");
        Self::store_unavailable()
    }
}
