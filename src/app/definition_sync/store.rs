//! Calls of the scripts in `lua/definitions/`.

use crate::redis::{Error, KeyScope, RedisClient, ScriptArgs, scripts};

/// `definitions/drop_instances`: removes records that are still as they were read.
pub(super) async fn drop_instances(
    redis: &RedisClient,
    records: &[(String, u64)],
) -> Result<(), Error> {
    let mut args = ScriptArgs::new();
    for (instance, version) in records {
        args.text(instance).text(&version.to_string());
    }
    let scope = KeyScope::partition(redis.instances_partition()?);
    redis.call(&scripts::DEFINITIONS_DROP_INSTANCES, scope, args).await.map(drop)
}
