//! What a reward refuses.

use super::reward::RewardCondition;
use crate::store_error::{StoreError, from_store_errors};

/// Why a call about rewards was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such reward.
    #[error("there is no such reward")]
    NotFound,
    /// The user has it.
    #[error("the user has claimed this reward already")]
    AlreadyClaimed,
    /// An operator has switched it off.
    #[error("this reward can't be claimed now")]
    Inactive,
    /// It can't be claimed yet.
    #[error("this reward can't be claimed yet")]
    NotStarted,
    /// It can't be claimed any more.
    #[error("this reward can't be claimed any more")]
    Ended,
    /// These conditions do not hold.
    #[error("not every condition holds for the user")]
    ConditionNotMet(Vec<RewardCondition>),
    /// The wallet can't hold the points.
    #[error("the balance would be above the largest a wallet holds")]
    BalanceLimitExceeded,
    /// A field is not sound, or contradicts another.
    #[error("some fields are not sound")]
    Unsound(Vec<super::rules::Flaw>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

from_store_errors!(Error);
