//! Stores the version of the records of a partition: after a restore, and at the start of a release
//! that writes a higher one than is stored.

use super::Error;
use crate::partition::Partition;
use crate::redis::{self, KeyScope, RECORD_VERSION, RedisClient, ScriptArgs, scripts};

/// Raises the stored version of every partition that serves.
///
/// # Errors
/// When Redis does not answer.
pub async fn raise_record_versions(redis: &RedisClient) -> Result<(), Error> {
    for stored in redis.record_versions().await? {
        if stored.version >= RECORD_VERSION {
            continue;
        }
        match raise(redis, stored.partition).await {
            // Its restore raises it.
            Ok(()) | Err(redis::Error::Recovering(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Raises the stored version of a partition to that of this release.
pub(super) async fn raise(redis: &RedisClient, partition: Partition) -> Result<(), redis::Error> {
    let mut args = ScriptArgs::new();
    args.int(RECORD_VERSION.into()).text(env!("CARGO_PKG_VERSION"));
    let scope = KeyScope::partition(partition);
    redis.call(&scripts::RECOVERY_RAISE_RECORDS, scope, args).await.map(drop)
}
