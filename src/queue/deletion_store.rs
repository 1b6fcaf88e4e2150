//! Calls of the scripts that remove users and queues, one function for each.

use super::store::user_id;
use crate::ids::{QueueId, UserId};
use crate::redis::codes::QueueWithdrawCode;
use crate::redis::{Error, KeyScope, RedisClient, ScriptArgs, scripts};

/// `queue/remove`. The score that the user had.
pub(super) async fn remove(
    redis: &RedisClient,
    queue: &QueueId,
    user: UserId,
) -> Result<Option<u64>, Error> {
    let mut args = ScriptArgs::new();
    args.bytes(user.as_bytes());
    let scope = KeyScope::queue(redis.keys(), queue);
    let score = redis.call(&scripts::QUEUE_REMOVE, scope, args).await?.int()?;
    Ok(u64::try_from(score).ok())
}

pub(super) enum WithdrawOutcome {
    /// How many scores were given to arrivals.
    Withdrawn {
        arrivals: u64,
    },
    InUse(Vec<UserId>),
}

/// `queue/withdraw`.
pub(super) async fn withdraw(
    redis: &RedisClient,
    queue: &QueueId,
    force: bool,
) -> Result<WithdrawOutcome, Error> {
    let mut args = ScriptArgs::new();
    args.int(force.into());
    let scope = KeyScope::queue(redis.keys(), queue);
    let mut words = redis.call(&scripts::QUEUE_WITHDRAW, scope, args).await?.words()?;
    let (code, arrivals) = (words.code()?, words.count()?);
    Ok(match code {
        QueueWithdrawCode::Withdrawn => WithdrawOutcome::Withdrawn { arrivals },
        QueueWithdrawCode::InUse => {
            WithdrawOutcome::InUse(words.rest().map(user_id).collect::<Result<_, _>>()?)
        }
    })
}

/// `queue/delete`.
pub(super) async fn delete(redis: &RedisClient, queue: &QueueId) -> Result<(), Error> {
    let mut args = ScriptArgs::new();
    args.text(queue.as_str());
    let scope = KeyScope::queue(redis.keys(), queue);
    redis.call(&scripts::QUEUE_DELETE, scope, args).await.map(drop)
}
