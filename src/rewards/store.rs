//! The scripts of rewards, one batch or function each.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::reward::Reward;
use crate::ids::{ClaimId, EntryId, RewardCode, UserId};
use crate::money;
use crate::partition::Partition;
use crate::redis::{Args, Batch, Error, Place, Redis, Reply, Script, scripts};

/// What the claims of one call have in common: the partition of their users, and one version of one reward.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) partition: Partition,
    pub(super) reward: Arc<Reward>,
}

impl Terms {
    fn key(&self) -> (Partition, &RewardCode, u64) {
        (self.partition, &self.reward.code, self.reward.version)
    }
}

impl PartialEq for Terms {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Terms {}

impl Hash for Terms {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// What came of a claim.
#[derive(Debug)]
pub(super) enum Claimed {
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
pub(super) struct Claims(pub(super) Redis);

impl Batch for Claims {
    type Entity = Terms;
    type Request = UserId;
    type Answer = Claimed;

    fn script(&self) -> &'static Script {
        &scripts::REWARDS_CLAIM
    }

    async fn call(&self, terms: &Terms, users: &[UserId]) -> Result<Vec<Claimed>, Error> {
        let reward = &terms.reward;
        let mut args = Args::new();
        args.text(reward.code.as_str()).text(&reward.version.to_string()).int(reward.active.into());
        args.int(reward.starts_at.timestamp_millis()).int(reward.ends_at.timestamp_millis());
        args.int(reward.gift.points().get()).int(money::MAX);
        args.text(&reward.conditions.len().to_string());
        for condition in &reward.conditions {
            args.text(&condition.fact).text(condition.op.as_str()).int(condition.value);
        }
        let ids: Vec<_> = users.iter().map(|user| ClaimId::new(user.slot())).collect();
        for (user, id) in users.iter().zip(&ids) {
            args.bytes(user.as_bytes()).bytes(id.as_bytes()).bytes(EntryId::new(user.slot()).as_bytes());
        }
        let mut words = self.0.call(self.script(), Place::partition(terms.partition), args).await?.words()?;
        let at = words.int()?;
        words.rest().zip(ids).map(|(reply, id)| claimed(reply, id, at)).collect()
    }
}

fn claimed(reply: Reply, id: ClaimId, at: i64) -> Result<Claimed, Error> {
    let mut words = reply.words()?;
    Ok(match words.int()? {
        1 => Claimed::Done { id, at },
        2 => Claimed::Already,
        3 => Claimed::Inactive,
        4 => Claimed::NotStarted,
        5 => Claimed::Ended,
        6 => Claimed::Unmet(words.rest().map(index).collect::<Result<_, _>>()?),
        7 => Claimed::AboveLimit,
        other => return Err(Error::Protocol(format!("state {other}"))),
    })
}

/// Lua counts from 1.
fn index(word: Reply) -> Result<usize, Error> {
    let place = usize::try_from(word.int()?).ok().and_then(|place| place.checked_sub(1));
    place.ok_or_else(|| Error::Protocol("a place below 1".into()))
}

/// `rewards/lay`.
pub(super) async fn lay(
    redis: &Redis,
    partition: Partition,
    code: &RewardCode,
    version: u64,
) -> Result<(), Error> {
    let mut args = Args::new();
    args.text(code.as_str()).text(&version.to_string());
    redis.call(&scripts::REWARDS_LAY, Place::partition(partition), args).await.map(drop)
}

/// `rewards/set_facts`. `facts` is JSON text.
pub(super) async fn set_facts(redis: &Redis, user: UserId, facts: &str) -> Result<(), Error> {
    let mut args = Args::new();
    args.bytes(user.as_bytes()).text(facts);
    let place = Place::partition(redis.keys().partition(user.slot()));
    redis.call(&scripts::REWARDS_SET_FACTS, place, args).await.map(drop)
}
