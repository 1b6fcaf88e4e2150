//! The call of `queue/read_draw`.

use chrono::DateTime;

use super::sql::StoredDraw;
use crate::ids::QueueId;
use crate::redis::{Error, KeyScope, RedisClient, ScriptArgs, scripts};

/// The newest draw that Redis has published, and `None` before the first. Its change may be missing
/// in MySQL.
pub(super) async fn published_draw(
    redis: &RedisClient,
    queue: &QueueId,
) -> Result<Option<StoredDraw>, Error> {
    let scope = KeyScope::queue(redis.keys(), queue);
    let mut words =
        redis.call(&scripts::QUEUE_READ_DRAW, scope, ScriptArgs::new()).await?.words()?;
    let (draw, seed, opens_at) = (words.int()?, words.text()?, words.int()?);
    let draw = u32::try_from(draw).map_err(|_| Error::Protocol("not a number of a draw".into()))?;
    let opens_at = DateTime::from_timestamp_millis(opens_at).filter(|_| opens_at > 0);
    Ok((draw > 0).then_some(StoredDraw { draw, seed, opens_at, drawn_at: None, entrants: None }))
}
