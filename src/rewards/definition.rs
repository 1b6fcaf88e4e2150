//! The definition of a reward, as the admin API takes and returns it.

use chrono::{DateTime, SubsecRound, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Reward, RewardCondition, RewardKind, rules};
use crate::definition::{AdminDefinition, DefinitionViolation};
use crate::ids::RewardCode;

/// A reward as an operator defines it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RewardDefinition {
    /// If present, must equal the code in the path.
    #[serde(skip_serializing)]
    pub code: Option<RewardCode>,
    /// 1–255 characters.
    pub title: String,
    /// The reward can be claimed from this time on.
    pub starts_at: DateTime<Utc>,
    /// The reward can be claimed until this time. A time in the past ends it immediately.
    pub ends_at: DateTime<Utc>,
    /// Whether the reward can be claimed at all. Default: true.
    #[serde(default = "default_active")]
    pub active: bool,
    /// All of them must hold, at most 20. Default: none.
    #[serde(default)]
    pub conditions: Vec<RewardCondition>,
    /// What a claim grants.
    pub reward: RewardKind,
    /// Whether a cancellation that makes the conditions false revokes a claim and takes the points
    /// back out of the balance, at most what is there. A revoked claim can't be made again.
    /// Default: false, the points stay.
    #[serde(default)]
    pub revocable: bool,
}

fn default_active() -> bool {
    true
}

impl AdminDefinition for RewardDefinition {
    const KIND: &'static str = "rewards";
}

impl RewardDefinition {
    /// The definition with every default in its place, as the admin API returns it.
    ///
    /// # Errors
    /// The rules that the definition breaks.
    pub fn normal_form(self, code: &RewardCode) -> Result<Self, Vec<DefinitionViolation>> {
        self.validate(code).map(|reward| Self::from(&reward))
    }

    /// # Errors
    /// The rules that the definition breaks.
    pub(super) fn validate(self, code: &RewardCode) -> Result<Reward, Vec<DefinitionViolation>> {
        let reward = self.into_reward(code).map_err(|found| vec![found])?;
        let violations = rules::violations(&reward);
        if violations.is_empty() { Ok(reward) } else { Err(violations) }
    }

    /// The reward, with times in milliseconds as MySQL stores them.
    fn into_reward(self, code: &RewardCode) -> Result<Reward, DefinitionViolation> {
        if self.code.is_some_and(|other| other != *code) {
            return Err(DefinitionViolation::new("code", "must equal the code in the path"));
        }
        Ok(Reward {
            code: code.clone(),
            version: 0,
            title: self.title,
            starts_at: self.starts_at.trunc_subsecs(3),
            ends_at: self.ends_at.trunc_subsecs(3),
            active: self.active,
            conditions: self.conditions,
            gift: self.reward,
            revocable: self.revocable,
        })
    }
}

impl From<&Reward> for RewardDefinition {
    fn from(reward: &Reward) -> Self {
        Self {
            code: None,
            title: reward.title.clone(),
            starts_at: reward.starts_at,
            ends_at: reward.ends_at,
            active: reward.active,
            conditions: reward.conditions.clone(),
            reward: reward.gift.clone(),
            revocable: reward.revocable,
        }
    }
}
