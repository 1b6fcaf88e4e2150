//! The script that records what MySQL has, and trims the outbox.

use futures::future::join_all;

use crate::partition::Partition;
use crate::redis::{self, FenceReading, KeyScope, RedisClient, ScriptArgs, scripts};

/// How far MySQL has a partition's outbox.
#[derive(Debug, Clone, Copy)]
pub(super) struct WrittenOutbox {
    pub(super) partition: Partition,
    /// The fence under which the outbox was read.
    pub(super) fence: FenceReading,
    /// The committed checkpoint.
    pub(super) through: u64,
    /// The bytes of the entries that the last flush wrote.
    pub(super) bytes: usize,
}

/// Records committed checkpoints in Redis and trims entries that need not be kept any more. A
/// failure is only logged: the next call records the same.
pub(super) async fn record_written(redis: &RedisClient, written: &[WrittenOutbox]) {
    let calls = written.iter().filter_map(|outbox| {
        let fence = outbox.fence.text()?;
        Some(async move { record_one(redis, outbox, &fence).await })
    });
    if let Some(error) = join_all(calls).await.into_iter().find_map(Result::err) {
        tracing::warn!(%error, "could not record in Redis what MySQL has; the next flush tries \
                                again");
    }
}

async fn record_one(
    redis: &RedisClient,
    outbox: &WrittenOutbox,
    fence: &str,
) -> Result<(), redis::Error> {
    let keep = redis.kept_entries();
    let mut args = ScriptArgs::new();
    args.text(&outbox.through.to_string()).text(&outbox.bytes.to_string());
    args.text(&keep.period.as_millis().to_string()).text(&keep.bytes.to_string());
    let scope = KeyScope::partition(outbox.partition);
    redis.call_under_fence(&scripts::OUTBOX_RECORD_WRITTEN, scope, fence, args).await
}
