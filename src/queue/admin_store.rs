//! Calls of the scripts that answer operators, one function for each.

use crate::ids::{QueueId, UserId};
use crate::redis::codes::QueueFindUserCode;
use crate::redis::{Error, KeyScope, RedisClient, ScriptArgs, scripts};

/// Where a user is in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FoundPlace {
    Waiting {
        score: u64,
    },
    /// `until` in milliseconds since 1970.
    Active {
        score: u64,
        until: i64,
    },
}

/// `queue/find_user`.
pub(super) async fn find_user(
    redis: &RedisClient,
    queue: &QueueId,
    user: UserId,
) -> Result<Option<FoundPlace>, Error> {
    let mut args = ScriptArgs::new();
    args.bytes(user.as_bytes());
    let scope = KeyScope::queue(redis.keys(), queue);
    let mut words = redis.call(&scripts::QUEUE_FIND_USER, scope, args).await?.words()?;
    let (code, score, until) = (words.code()?, words.count()?, words.int()?);
    Ok(match code {
        QueueFindUserCode::Waiting => Some(FoundPlace::Waiting { score }),
        QueueFindUserCode::Active => Some(FoundPlace::Active { score, until }),
        QueueFindUserCode::Absent => None,
    })
}

/// Counts of one queue, or the sums of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueTotals {
    pub waiting: u64,
    pub active: u64,
    pub holds: u64,
    /// Payments and cancellations in progress.
    pub pending: u64,
}

/// `queue/totals`.
pub(super) async fn totals(redis: &RedisClient, queue: &QueueId) -> Result<QueueTotals, Error> {
    let scope = KeyScope::queue(redis.keys(), queue);
    let mut words = redis.call(&scripts::QUEUE_TOTALS, scope, ScriptArgs::new()).await?.words()?;
    Ok(QueueTotals {
        waiting: words.count()?,
        active: words.count()?,
        holds: words.count()?,
        pending: words.count()?,
    })
}
