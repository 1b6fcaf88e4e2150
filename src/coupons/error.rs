//! What a coupon refuses.

use crate::store_error::{StoreError, from_store_errors};

/// Why a call about coupons was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such coupon.
    #[error("there is no such coupon")]
    NotFound,
    /// All are issued.
    #[error("all of this coupon are issued")]
    SoldOut,
    /// Issuing has not begun.
    #[error("this coupon is not issued yet")]
    NotStarted,
    /// Issuing is over.
    #[error("this coupon is not issued any more")]
    Ended,
    /// A field is not sound, or contradicts another.
    #[error("the coupon is not sound")]
    Unsound(Vec<super::rules::Flaw>),
    /// More are issued than the quota would be.
    #[error("{0} are issued already, more than this quota")]
    InUse(u64),
    #[error(transparent)]
    Store(#[from] StoreError),
}

from_store_errors!(Error);
