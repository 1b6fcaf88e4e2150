//! The call of `queue/hear`.

use std::time::Duration;

use crate::ids::{QueueId, UserId};
use crate::redis::{Error, KeyScope, RedisClient, ScriptArgs, millis, scripts};

/// `queue/hear`. Notes for how long each user was not heard of.
pub(super) async fn hear(
    redis: &RedisClient,
    queue: &QueueId,
    users: &[(UserId, Duration)],
) -> Result<(), Error> {
    let mut args = ScriptArgs::new();
    for (user, silence) in users {
        args.bytes(user.as_bytes()).int(millis(*silence));
    }
    redis.call(&scripts::QUEUE_HEAR, KeyScope::queue(redis.keys(), queue), args).await.map(drop)
}
