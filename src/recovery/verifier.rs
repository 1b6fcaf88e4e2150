//! The verifier's loop: verifies periodically and on request, and restores lost partitions.

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

/// How often the verifier runs while a partition is closed: another instance may have restored it.
const CLOSED_PARTITION_INTERVAL: Duration = Duration::from_millis(500);
/// How often it runs without a request: a partition that receives no calls may be lost as well.
const FULL_VERIFY_INTERVAL: Duration = Duration::from_secs(2);
/// The pause after a failed verification.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Partitions that one instance restores at the same time. MySQL reads while Redis writes; more
/// would only wait for the same two servers.
const PARALLEL_RESTORES: usize = 4;

/// Verifies and restores until `stop`.
pub async fn run_verifier(
    redis: RedisClient,
    mysql: MySqlPool,
    writer: WriterHandle,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(CLOSED_PARTITION_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut restores: Option<JoinHandle<()>> = None;
    let mut last_verified = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = redis.verification_requested() => {}
            _ = ticks.tick() => {
                let is_recent = last_verified.elapsed() < FULL_VERIFY_INTERVAL;
                if redis.epochs().closed_count() == 0 && is_recent {
                    continue;
                }
            }
        }
        last_verified = Instant::now();
        match verify(&redis, &mysql).await {
            Ok(VerificationOutcome { lost, error }) => {
                if !lost.is_empty() && restores.as_ref().is_none_or(JoinHandle::is_finished) {
                    let recovery =
                        PartitionRecovery::new(redis.clone(), mysql.clone(), writer.clone());
                    restores = Some(tokio::spawn(restore_lost(recovery, lost)));
                }
                if let Some(error) = error {
                    tracing::debug!(%error, "could not verify some partitions yet");
                    redis.request_verification();
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "could not verify the partitions; trying again");
                // Calls of unverified partitions wait for this, so do not wait for the next tick.
                redis.request_verification();
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
    if let Some(restores) = restores {
        // Same as a crash: the partition stays fenced, and the next verifier restores it.
        restores.abort();
    }
}

async fn restore_lost(recovery: PartitionRecovery, lost: Vec<Partition>) {
    futures::stream::iter(lost)
        .for_each_concurrent(PARALLEL_RESTORES, async |partition| {
            match recovery.recover(partition, false).await {
                Ok(
                    RecoveryOutcome::Restored { .. }
                    | RecoveryOutcome::AlreadyServing
                    | RecoveryOutcome::InProgress,
                ) => {}
                Err(error) => {
                    tracing::error!(%partition, %error, "could not restore a partition; trying \
                                                         again");
                }
            }
        })
        .await;
}
