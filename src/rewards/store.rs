//! The scripts of rewards, one batch or function each.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::reward::Reward;
use crate::ids::{ClaimId, EntryId, RewardCode, UserId};
use crate::money;
use crate::partition::Partition;
use crate::redis::{
    BatchOperation, Error, KeyScope, LuaScript, RedisClient, ScriptArgs, ScriptReply, scripts,
};

/// What the claims of one call have in common: the partition of their users, and one version of one reward.
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

/// What came of a claim.
#[derive(Debug)]
pub(super) enum ClaimOutcome {
    Done {
        id: ClaimId,
        at: i64,
    },
    Already,
    Inactive,
    NotStarted,
    Ended,
    /// The conditions at these indexes, from 0, do not hold.
    Unmet(Vec<usize>),
    AboveLimit,
}

/// `rewards/claim`.
pub(super) struct ClaimBatch(pub(super) RedisClient);

impl BatchOperation for ClaimBatch {
    type Entity = ClaimTerms;
    type Request = UserId;
    type Answer = ClaimOutcome;

    fn script(&self) -> &'static LuaScript {
        &scripts::REWARDS_CLAIM
    }

    async fn call(&self, terms: &ClaimTerms, users: &[UserId]) -> Result<Vec<ClaimOutcome>, Error> {
        let reward = &terms.reward;
        let mut args = ScriptArgs::new();
        args.text(reward.code.as_str()).text(&reward.version.to_string()).int(reward.active.into());
        args.int(reward.starts_at.timestamp_millis()).int(reward.ends_at.timestamp_millis());
        args.int(reward.gift.points().get()).int(money::MAX);
        args.text(&reward.conditions.len().to_string());
        for condition in &reward.conditions {
            args.text(&condition.fact).text(condition.op.as_str()).int(condition.value);
        }
        let ids: Vec<_> = users.iter().map(|user| ClaimId::new(user.slot())).collect();
        for (user, id) in users.iter().zip(&ids) {
            args.bytes(user.as_bytes())
                .bytes(id.as_bytes())
                .bytes(EntryId::new(user.slot()).as_bytes());
        }
        let mut words = self
            .0
            .call(self.script(), KeyScope::partition(terms.partition), args)
            .await?
            .words()?;
        let at = words.int()?;
        words.rest().zip(ids).map(|(reply, id)| claimed(reply, id, at)).collect()
    }
}

fn claimed(reply: ScriptReply, id: ClaimId, at: i64) -> Result<ClaimOutcome, Error> {
    let mut words = reply.words()?;
    Ok(match words.int()? {
        1 => ClaimOutcome::Done { id, at },
        2 => ClaimOutcome::Already,
        3 => ClaimOutcome::Inactive,
        4 => ClaimOutcome::NotStarted,
        5 => ClaimOutcome::Ended,
        6 => ClaimOutcome::Unmet(words.rest().map(index).collect::<Result<_, _>>()?),
        7 => ClaimOutcome::AboveLimit,
        other => return Err(Error::Protocol(format!("state {other}"))),
    })
}

/// Lua counts from 1.
fn index(word: ScriptReply) -> Result<usize, Error> {
    let place = usize::try_from(word.int()?).ok().and_then(|place| place.checked_sub(1));
    place.ok_or_else(|| Error::Protocol("a place below 1".into()))
}

/// `rewards/lay`.
pub(super) async fn lay(
    redis: &RedisClient,
    partition: Partition,
    code: &RewardCode,
    version: u64,
) -> Result<(), Error> {
    let mut args = ScriptArgs::new();
    args.text(code.as_str()).text(&version.to_string());
    redis.call(&scripts::REWARDS_LAY, KeyScope::partition(partition), args).await.map(drop)
}

/// `rewards/set_facts`. `facts` is JSON text.
pub(super) async fn set_facts(redis: &RedisClient, user: UserId, facts: &str) -> Result<(), Error> {
    let mut args = ScriptArgs::new();
    args.bytes(user.as_bytes()).text(facts);
    let place = KeyScope::partition(redis.keys().partition(user.slot()));
    redis.call(&scripts::REWARDS_SET_FACTS, place, args).await.map(drop)
}
