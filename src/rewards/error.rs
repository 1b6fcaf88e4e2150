//! The errors of reward operations.

use super::reward::RewardCondition;
use crate::definition::{DefinitionViolation, InUseItem, from_change_refusal};
use crate::store_error::{StoreError, from_store_errors};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the reward does not exist")]
    NotFound,
    #[error("the user has already claimed the reward")]
    AlreadyClaimed,
    /// The definition has `active: false`.
    #[error("the reward is inactive")]
    Inactive,
    #[error("the reward can't be claimed yet")]
    NotStarted,
    #[error("the reward can no longer be claimed")]
    Ended,
    /// With the conditions that do not hold.
    #[error("the user does not meet all conditions")]
    ConditionNotMet(Vec<RewardCondition>),
    #[error("the balance would exceed the maximum of a wallet")]
    BalanceLimitExceeded,
    /// Claims were granted, so the definition can't be deleted.
    #[error("claims of the reward were granted")]
    InUse(Vec<InUseItem>),
    /// MySQL lacks attempts to claim the reward.
    #[error("claims are not in MySQL yet")]
    NotWritten,
    /// The stored definition is not the one that the change was made for.
    #[error("the reward has changed")]
    PreconditionFailed,
    /// The definition of a reward, or the facts of a user.
    #[error("some fields are invalid")]
    Invalid(Vec<DefinitionViolation>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

from_store_errors!(Error);
from_change_refusal!(Error);
