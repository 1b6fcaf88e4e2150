//! The verifier's loop: verifies whenever it is asked to, and has lost partitions laid back, a few at a time.

use std::time::Duration;

use futures::StreamExt;
use sqlx::MySqlPool;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{PartitionRecovery, RecoveryOutcome, VerificationOutcome, verify};
use crate::outbox::WriterHandle;
use crate::partition::Partition;
use crate::redis::RedisClient;

/// How often closed partitions are looked at again: another instance may have laid them back.
const CLOSED_PARTITION_INTERVAL: Duration = Duration::from_millis(500);
/// How often everything is looked at, whether or not anybody has met something that is wrong: a partition that nobody asks for may be lost as well.
const FULL_VERIFY_INTERVAL: Duration = Duration::from_secs(2);
/// The pause after a verification that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Partitions that an instance lays back side by side. MySQL reads while Redis writes; more would only wait for the same two.
const PARALLEL_RESTORES: usize = 2;

/// Verifies whenever what was verified is in doubt, as long as a partition is closed, and now and then; and lays lost ones back. Runs until `stop`.
pub async fn run_verifier(
    redis: RedisClient,
    mysql: MySqlPool,
    nudge: WriterHandle,
    stop: CancellationToken,
) {
    let mut again = tokio::time::interval(CLOSED_PARTITION_INTERVAL);
    again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut laying: Option<JoinHandle<()>> = None;
    let mut verified = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = redis.verification_requested() => {}
            _ = again.tick() => {
                if redis.epochs().closed_count() == 0 && verified.elapsed() < FULL_VERIFY_INTERVAL {
                    continue;
                }
            }
        }
        verified = Instant::now();
        match verify(&redis, &mysql).await {
            Ok(VerificationOutcome { lost, error: unknown }) => {
                if !lost.is_empty() && laying.as_ref().is_none_or(JoinHandle::is_finished) {
                    let recovery =
                        PartitionRecovery::new(redis.clone(), mysql.clone(), nudge.clone());
                    laying = Some(tokio::spawn(restore_lost(recovery, lost)));
                }
                if let Some(error) = unknown {
                    tracing::debug!(%error, "some partitions can't be verified yet");
                    redis.request_verification();
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "verifying the partitions");
                // Whoever is in doubt waits for it, so it is not left to the next tick.
                redis.request_verification();
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
    if let Some(laying) = laying {
        // Cut off like by a kill: the partition stays barred, and whoever verifies next begins anew.
        laying.abort();
    }
}

async fn restore_lost(recovery: PartitionRecovery, lost: Vec<Partition>) {
    futures::stream::iter(lost)
        .for_each_concurrent(PARALLEL_RESTORES, async |partition| match recovery.recover(partition, false).await {
            Ok(RecoveryOutcome::Restored { .. } | RecoveryOutcome::AlreadyServing | RecoveryOutcome::InProgress) => {}
            Err(error) => {
                tracing::error!(%partition, %error, "a partition could not be laid back; it is tried again")
            }
        })
        .await;
}
