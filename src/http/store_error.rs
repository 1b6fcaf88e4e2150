//! Maps errors of the stores to problems.

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
            redis::Error::OutOfCapacity(_) => Self::overloaded().retry_after(5),
            redis::Error::Recovering(_) => Self::recovering(),
            redis::Error::Unavailable(_) | redis::Error::NotPublished => {
                tracing::warn!(%error, "Redis is unavailable for a request");
                Self::store_unavailable()
            }
            redis::Error::Protocol(_) => {
                tracing::error!(%error, "the reply of a script violates the protocol");
                Self::internal()
            }
        }
    }
}

impl From<mysql::Error> for ProblemDetails {
    fn from(error: mysql::Error) -> Self {
        tracing::warn!(%error, "MySQL is unavailable for a request");
        Self::store_unavailable()
    }
}
