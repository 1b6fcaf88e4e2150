//! The errors of coupon operations.

use crate::definition::{DefinitionViolation, InUseItem, from_change_refusal};
use crate::store_error::{StoreError, from_store_errors};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the coupon does not exist")]
    NotFound,
    #[error("the coupon is sold out")]
    SoldOut,
    #[error("the coupon is not issued yet")]
    NotStarted,
    #[error("the coupon is no longer issued")]
    Ended,
    #[error("the coupon is invalid")]
    Invalid(Vec<DefinitionViolation>),
    /// The quota is below the number of issues, which is given.
    #[error("{0} coupons are already issued, more than the new quota")]
    QuotaTooSmall(u64),
    /// Coupons are issued, so the definition can't be deleted.
    #[error("coupons are issued")]
    InUse(Vec<InUseItem>),
    /// The stored definition is not the one that the change was made for.
    #[error("the coupon has changed")]
    PreconditionFailed,
    #[error(transparent)]
    Store(#[from] StoreError),
}

from_store_errors!(Error);
from_change_refusal!(Error);
