//! Prunes Redis: removes ended records that MySQL has and whose replay time is over, and archives
//! sales that are over. Deletes events that are older than their retention.

use std::time::Duration;

use chrono::DateTime;
use tokio_util::sync::CancellationToken;

use super::domain_services::DomainServices;
use super::error::Error;
use crate::mysql::checkpoint;
use crate::redis;

/// When ended records leave Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneSchedule {
    /// How long an ended reservation or payment stays in Redis: as long as an idempotency key.
    pub retention: Duration,
    /// Pause between two runs.
    pub interval: Duration,
}

impl Default for PruneSchedule {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(24 * 60 * 60),
            interval: Duration::from_secs(10 * 60),
        }
    }
}

/// Prunes at each interval until `stop` is cancelled.
pub(super) async fn run(
    services: DomainServices,
    schedule: PruneSchedule,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(schedule.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match stop.run_until_cancelled(services.events.delete_old()).await {
            Some(Ok(0)) | None => {}
            Some(Ok(deleted)) => tracing::info!(deleted, "deleted old events"),
            Some(Err(error)) => tracing::warn!(%error, "could not delete old events"),
        }
        match stop.run_until_cancelled(Box::pin(prune(&services, schedule.retention))).await {
            Some(Ok(0)) | None => {}
            Some(Ok(pruned)) => {
                tracing::info!(pruned, "pruned records from Redis that MySQL has");
            }
            Some(Err(error)) => tracing::warn!(%error, "pruning Redis failed"),
        }
    }
}

/// Prunes all partitions once. Returns the number of removed records.
async fn prune(services: &DomainServices, retention: Duration) -> Result<u64, Error> {
    // Checkpoints are read first: what lies before them is in MySQL and can be removed.
    let checkpoints =
        checkpoint::load_all(&services.mysql, services.redis.keys().partitions()).await?;
    let (mut pruned, mut latest) = (0, 0);
    for checkpoint in checkpoints {
        let (partition, n) = (checkpoint.partition, checkpoint.n);
        // Payments go first. A payment without its reservation in Redis is read from MySQL, and so
        // is a reservation without its payment.
        let outcome = async {
            let payments = services.payments.prune_ended(partition, n, retention).await?;
            let (reservations, now) = services.seats.prune_ended(partition, n, retention).await?;
            Ok::<_, redis::Error>((payments + reservations, now))
        };
        match outcome.await {
            Ok((count, now)) => (pruned, latest) = (pruned + count, now.max(latest)),
            Err(redis::Error::Recovering(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for concert in services
        .seats
        .archive_due(DateTime::from_timestamp_millis(latest).unwrap_or_default())
        .await?
    {
        tracing::info!(%concert, "archived a sale that is over");
    }
    match services.seats.purge_lapsed_marks().await {
        Ok(count) => Ok(pruned + count),
        Err(redis::Error::Recovering(_)) => Ok(pruned),
        Err(error) => Err(error.into()),
    }
}
