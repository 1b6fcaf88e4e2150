//! Rewards, conditions, facts and claims, as the API, Redis and MySQL have them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{ClaimId, RewardCode, UserId};
use crate::money::Money;
use crate::outbox::event::ClaimStatus;

/// The facts of a user: an integer for each name. A fact that is not set is 0.
pub type UserFacts = BTreeMap<String, i64>;

/// A change of some facts of a user. `None` removes a fact.
pub type UserFactChanges = BTreeMap<String, Option<i64>>;

/// How a condition compares the fact with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum ComparisonOperator {
    #[serde(rename = ">=")]
    AtLeast,
    #[serde(rename = "<=")]
    AtMost,
    #[serde(rename = "==")]
    Equal,
    #[serde(rename = "!=")]
    NotEqual,
}

impl ComparisonOperator {
    /// The symbol in the API, MySQL and the scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AtLeast => ">=",
            Self::AtMost => "<=",
            Self::Equal => "==",
            Self::NotEqual => "!=",
        }
    }
}

/// A condition on a fact of the user. It holds if `fact op value` is true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RewardCondition)]
pub struct RewardCondition {
    /// The name of the fact, `[A-Za-z0-9_-]{1,64}`. A fact that is not set is 0. The service
    /// maintains `paid_total` and `reservations_confirmed`.
    pub fact: String,
    pub op: ComparisonOperator,
    /// The value to compare with, from −9,007,199,254,740,991 to 9,007,199,254,740,991.
    pub value: i64,
}

/// What a claim grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[schema(as = RewardKind)]
pub enum RewardKind {
    /// Points, credited to the wallet.
    Points {
        /// At least 1.
        amount: Money,
    },
}

impl RewardKind {
    /// The amount credited to the wallet.
    pub fn points(&self) -> Money {
        match self {
            Self::Points { amount } => *amount,
        }
    }
}

/// A reward as an operator defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reward {
    pub code: RewardCode,
    /// The version of the definitions at the last change of this reward.
    pub version: u64,
    /// 1–255 characters.
    pub title: String,
    /// The reward can be claimed from this time on.
    pub starts_at: DateTime<Utc>,
    /// The reward can be claimed until this time.
    pub ends_at: DateTime<Utc>,
    /// Whether the reward can be claimed at all.
    pub active: bool,
    /// All of them must hold.
    pub conditions: Vec<RewardCondition>,
    pub gift: RewardKind,
    /// Whether a cancellation that makes the conditions false revokes a claim.
    pub revocable: bool,
}

/// An attempt to claim a reward, as recorded in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewardClaim {
    pub id: ClaimId,
    pub user: UserId,
    pub status: ClaimStatus,
    /// The code of the refusal. `None` unless it failed.
    pub reason: Option<String>,
    /// How often the user was refused for that reason. 1 unless it failed.
    pub attempts: u32,
    /// The time of the last attempt in milliseconds since 1970.
    pub claimed_at: i64,
}
