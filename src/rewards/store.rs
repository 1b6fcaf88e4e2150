//! Calls of the scripts in `lua/rewards/`, one function or batch for each.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::reward::{Reward, UserFactChanges, UserFacts};
use super::rules::MAX_FACTS_PER_USER;
use crate::ids::{ClaimId, EntryId, RewardCode, UserId};
use crate::money::Money;
use crate::partition::Partition;
use crate::redis::codes::{RewardsClaimCode, RewardsMergeFactsCode};
use crate::redis::{
    BatchScript, Error, KeyBuilder, KeyScope, LuaScript, RedisClient, ReplyReader, ScriptArgs,
    ScriptReply, scripts,
};

/// What the claims of one call have in common: the partition of their users, and one version of one
/// reward. Equality ignores the rest of the reward, which the version determines.
#[derive(Debug, Clone)]
pub(super) struct ClaimTerms {
    pub(super) partition: Partition,
    pub(super) reward: Arc<Reward>,
}

impl ClaimTerms {
    fn key(&self) -> (Partition, &RewardCode, u64) {
        (self.partition, &self.reward.code, self.reward.version)
    }
}

impl PartialEq for ClaimTerms {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for ClaimTerms {}

impl Hash for ClaimTerms {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

#[derive(Debug)]
pub(super) enum ClaimOutcome {
    Claimed {
        id: ClaimId,
        at: i64,
    },
    AlreadyClaimed,
    Inactive,
    NotStarted,
    Ended,
    /// The 0-based indexes of the conditions that do not hold.
    ConditionsNotMet(Vec<usize>),
    BalanceLimitExceeded,
}

/// A user who claims, and the id of the new claim.
pub(super) struct ClaimRequest {
    user: UserId,
    claim: ClaimId,
}

impl ClaimRequest {
    pub(super) fn new(user: UserId) -> Self {
        Self { user, claim: ClaimId::new(user.slot()) }
    }
}

/// `rewards/claim`.
pub(super) struct ClaimBatch {
    /// The largest balance that a reward may lead to.
    pub(super) limit: Money,
}

impl BatchScript for ClaimBatch {
    type Entity = ClaimTerms;
    type Request = ClaimRequest;
    type Answer = ClaimOutcome;

    fn script(&self) -> &'static LuaScript {
        &scripts::REWARDS_CLAIM
    }

    fn scope<'a>(&self, _: &KeyBuilder, entity: &'a ClaimTerms) -> KeyScope<'a> {
        KeyScope::partition(entity.partition)
    }

    fn write_args(
        &self,
        entity: &ClaimTerms,
        requests: &[ClaimRequest],
        args: &mut ScriptArgs,
    ) -> Result<(), Error> {
        let reward = &entity.reward;
        args.text(reward.code.as_str()).text(&reward.version.to_string()).int(reward.active.into());
        args.int(reward.starts_at.timestamp_millis()).int(reward.ends_at.timestamp_millis());
        args.int(reward.gift.points().get()).int(self.limit.get());
        let terms = if reward.revocable {
            serde_json::to_string(&reward.conditions).map_err(|e| Error::Protocol(e.to_string()))?
        } else {
            String::new()
        };
        args.text(&terms).text(&reward.conditions.len().to_string());
        for condition in &reward.conditions {
            args.text(&condition.fact).text(condition.op.as_str()).int(condition.value);
        }
        for ClaimRequest { user, claim } in requests {
            args.bytes(user.as_bytes()).bytes(claim.as_bytes());
            args.bytes(EntryId::new(user.slot()).as_bytes());
        }
        Ok(())
    }

    fn read_answers(
        &self,
        _: &ClaimTerms,
        requests: &[ClaimRequest],
        mut reply: ReplyReader,
    ) -> Result<Vec<ClaimOutcome>, Error> {
        let at = reply.int()?;
        reply
            .rest()
            .zip(requests)
            .map(|(word, request)| claim_outcome(word, request.claim, at))
            .collect()
    }
}

fn claim_outcome(reply: ScriptReply, id: ClaimId, at: i64) -> Result<ClaimOutcome, Error> {
    let mut words = reply.words()?;
    Ok(match words.code()? {
        RewardsClaimCode::Claimed => ClaimOutcome::Claimed { id, at },
        RewardsClaimCode::Already => ClaimOutcome::AlreadyClaimed,
        RewardsClaimCode::Inactive => ClaimOutcome::Inactive,
        RewardsClaimCode::NotStarted => ClaimOutcome::NotStarted,
        RewardsClaimCode::Ended => ClaimOutcome::Ended,
        RewardsClaimCode::Unmet => {
            ClaimOutcome::ConditionsNotMet(words.rest().map(index).collect::<Result<_, _>>()?)
        }
        RewardsClaimCode::AboveLimit => ClaimOutcome::BalanceLimitExceeded,
    })
}

/// Converts a 1-based index of Lua.
fn index(word: ScriptReply) -> Result<usize, Error> {
    let index = usize::try_from(word.int()?).ok().and_then(|index| index.checked_sub(1));
    index.ok_or_else(|| Error::Protocol("an index below 1".into()))
}

/// `rewards/publish`: this version of the reward can be claimed in the partition from now on, none
/// if it is 0.
pub(super) async fn publish(
    redis: &RedisClient,
    partition: Partition,
    code: &RewardCode,
    version: u64,
) -> Result<(), Error> {
    let mut args = ScriptArgs::new();
    args.text(code.as_str()).text(&version.to_string());
    redis.call(&scripts::REWARDS_PUBLISH, KeyScope::partition(partition), args).await.map(drop)
}

/// `rewards/merge_facts`. Returns all facts after the change, or `None` when they would be too
/// many.
pub(super) async fn merge_facts(
    redis: &RedisClient,
    user: UserId,
    changes: &UserFactChanges,
) -> Result<Option<UserFacts>, Error> {
    let mut args = ScriptArgs::new();
    args.bytes(user.as_bytes()).text(&MAX_FACTS_PER_USER.to_string());
    for (fact, value) in changes {
        args.text(fact).optional_int(*value);
    }
    let scope = KeyScope::partition(redis.keys().partition(user.slot()));
    let mut words = redis.call(&scripts::REWARDS_MERGE_FACTS, scope, args).await?.words()?;
    match words.code()? {
        RewardsMergeFactsCode::Merged => serde_json::from_str(&words.text()?)
            .map(Some)
            .map_err(|error| Error::Protocol(error.to_string())),
        RewardsMergeFactsCode::TooMany => Ok(None),
    }
}

/// `rewards/read_facts`.
pub(super) async fn read_facts(redis: &RedisClient, user: UserId) -> Result<UserFacts, Error> {
    let mut args = ScriptArgs::new();
    args.bytes(user.as_bytes());
    let scope = KeyScope::partition(redis.keys().partition(user.slot()));
    let text = redis.call(&scripts::REWARDS_READ_FACTS, scope, args).await?.bytes()?;
    serde_json::from_slice(&text).map_err(|error| Error::Protocol(error.to_string()))
}

/// `rewards/set_facts`. `facts` is JSON text.
pub(super) async fn set_facts(redis: &RedisClient, user: UserId, facts: &str) -> Result<(), Error> {
    let mut args = ScriptArgs::new();
    args.bytes(user.as_bytes()).text(facts);
    let scope = KeyScope::partition(redis.keys().partition(user.slot()));
    redis.call(&scripts::REWARDS_SET_FACTS, scope, args).await.map(drop)
}
