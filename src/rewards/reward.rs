//! Rewards, conditions, facts and claims, as the API, Redis and MySQL know them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{ClaimId, RewardCode, UserId};
use crate::money::Money;

/// What is known of a user: a whole number under each name, 0 under every other.
pub type UserFacts = BTreeMap<String, i64>;

/// How a condition compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum ComparisonOperator {
    /// At least.
    #[serde(rename = ">=")]
    AtLeast,
    /// At most.
    #[serde(rename = "<=")]
    AtMost,
    /// Exactly.
    #[serde(rename = "==")]
    Exactly,
    /// Anything but.
    #[serde(rename = "!=")]
    Other,
}

impl ComparisonOperator {
    /// The word that the API, MySQL and the script use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AtLeast => ">=",
            Self::AtMost => "<=",
            Self::Exactly => "==",
            Self::Other => "!=",
        }
    }
}

/// What must hold for a fact of the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RewardCondition)]
pub struct RewardCondition {
    /// The fact's name, `[A-Za-z0-9_-]{1,64}`. `paid_total` and `reservations_confirmed` are kept by Usher.
    pub fact: String,
    /// How it compares.
    pub op: ComparisonOperator,
    /// With what.
    pub value: i64,
}

/// What a claim gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[schema(as = RewardKind)]
pub enum RewardKind {
    /// Money in the wallet.
    Points {
        /// How much, at least 1.
        amount: Money,
    },
}

impl RewardKind {
    /// What it puts in the wallet.
    pub fn points(&self) -> Money {
        match self {
            Self::Points { amount } => *amount,
        }
    }
}

/// A reward as an operator defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reward {
    /// Its name.
    pub code: RewardCode,
    /// The definitions' version at its last change.
    pub version: u64,
    /// 1–255 characters.
    pub title: String,
    /// It can't be claimed before.
    pub starts_at: DateTime<Utc>,
    /// It can't be claimed from here on.
    pub ends_at: DateTime<Utc>,
    /// Whether it can be claimed at all.
    pub active: bool,
    /// All of these must hold.
    pub conditions: Vec<RewardCondition>,
    /// What it gives.
    pub gift: RewardKind,
}

/// A line of a user's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewardClaim {
    /// Its id.
    pub id: ClaimId,
    /// Whose.
    pub user: UserId,
    /// Whether the reward was given.
    pub success: bool,
    /// Why it was not, as a word.
    pub reason: Option<String>,
    /// When, milliseconds since 1970.
    pub claimed_at: i64,
}
