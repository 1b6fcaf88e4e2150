//! Keeps Redis to what contention needs: what has ended leaves it once MySQL has it and its replay time is over, and a sale that is over is archived.

use std::time::Duration;

use chrono::DateTime;
use tokio_util::sync::CancellationToken;

use super::{DomainServices, Error};
use crate::mysql::generation;
use crate::redis;

/// When what has ended leaves Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneSchedule {
    /// For so long after its end a reservation or a payment answers from Redis: as long as an idempotency key is kept.
    pub keep: Duration,
    /// How often everything is gone through.
    pub every: Duration,
}

impl Default for PruneSchedule {
    fn default() -> Self {
        Self { keep: Duration::from_secs(24 * 60 * 60), every: Duration::from_secs(10 * 60) }
    }
}

/// Runs until `stop`.
pub(super) async fn run(rooms: DomainServices, settings: PruneSchedule, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(settings.every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match stop.run_until_cancelled(Box::pin(retire(&rooms, settings.keep))).await {
            Some(Ok(0)) | None => {}
            Some(Ok(dropped)) => tracing::info!(dropped, "records that MySQL has left Redis"),
            Some(Err(error)) => tracing::warn!(%error, "clearing what has ended out of Redis"),
        }
    }
}

/// Goes through everything once.
async fn retire(rooms: &DomainServices, keep: Duration) -> Result<u64, Error> {
    // The checkpoints first: what they say MySQL has, it has for good.
    let checkpoints = generation::load(&rooms.mysql, rooms.redis.keys().partitions()).await?;
    let (mut dropped, mut latest) = (0, 0);
    for checkpoint in checkpoints {
        let (partition, n) = (checkpoint.partition, checkpoint.n);
        // A payment first: without its reservation it is read from MySQL, and so is a reservation without its payment.
        let outcome = async {
            let payments = rooms.payments.retire(partition, n, keep).await?;
            let (reservations, now) = rooms.seats.retire(partition, n, keep).await?;
            Ok::<_, redis::Error>((payments + reservations, now))
        };
        match outcome.await {
            Ok((count, now)) => (dropped, latest) = (dropped + count, now.max(latest)),
            Err(redis::Error::Recovering(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for concert in
        rooms.seats.archive_due(DateTime::from_timestamp_millis(latest).unwrap_or_default()).await?
    {
        tracing::info!(%concert, "a sale that is over was archived");
    }
    match rooms.seats.clear().await {
        Ok(count) => Ok(dropped + count),
        Err(redis::Error::Recovering(_)) => Ok(dropped),
        Err(error) => Err(error.into()),
    }
}
