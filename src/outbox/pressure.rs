//! Watermarks: how many events may wait for MySQL, and how full Redis may be, before new work is
//! refused.
//!
//! While MySQL is unavailable the outboxes grow in Redis, which must never be too full to confirm a
//! payment. Each instance measures both and sets the level that decides which scripts are refused
//! (`redis/pressure.rs`): a warning at the lower mark, no joins halfway to the upper mark, and at
//! the upper mark nothing but payments, releases, cancellations and refunds. A level ends when the
//! measured value falls below four fifths of its mark.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::partition::Partition;
use crate::redis::{Error, PressureLevel, RedisClient, RedisMemoryInfo};
use crate::telemetry::Metric;

const MEASURE_INTERVAL: Duration = Duration::from_millis(500);

/// The lower and the upper mark of one measured value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatermarkPair {
    /// An alert fires from here.
    pub warn: u64,
    /// Nothing but payments, releases, cancellations and refunds is accepted from here.
    pub limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PressureWatermarks {
    /// In entries of all outboxes.
    pub backlog: WatermarkPair,
    /// In percent of Redis' `maxmemory`; without `maxmemory` it is always 0.
    pub memory: WatermarkPair,
}

/// The current level of each measured value.
#[derive(Debug, Clone, Copy, Default)]
struct PressureLevels {
    backlog: PressureLevel,
    memory: PressureLevel,
}

/// Measures and sets the level until `stop`.
pub async fn watch(redis: RedisClient, marks: PressureWatermarks, stop: CancellationToken) {
    let partitions: Vec<_> = redis.keys().partitions().all().collect();
    let mut levels = PressureLevels::default();
    let mut ticks = interval(MEASURE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let (backlog, memory) = match measure(&redis, &partitions).await {
            Ok(measured) => measured,
            Err(error) => {
                tracing::debug!(%error, "could not measure the backlog and the memory of Redis");
                continue;
            }
        };
        let memory_percent = memory.percent_used();
        levels.backlog = next_level(levels.backlog, backlog, marks.backlog);
        levels.memory = next_level(levels.memory, memory_percent, marks.memory);
        let (before, level) = (redis.pressure().level(), levels.backlog.max(levels.memory));
        if level > before {
            tracing::warn!(
                ?level,
                backlog,
                memory_percent,
                "the outbox backlog or the memory of Redis reached a watermark"
            );
        } else if level < before {
            tracing::info!(
                ?level,
                backlog,
                memory_percent,
                "the outbox backlog and the memory of Redis are below a watermark again"
            );
        }
        redis.pressure().set(level);
        redis.pressure().set_memory_short(levels.memory >= PressureLevel::Warning);
        Metric::PressureLevel.gauge(&[]).set(f64::from(level as u8));
        Metric::RedisMemoryUsedBytes.gauge(&[]).set(memory.used as f64);
        Metric::RedisMemoryMaxBytes.gauge(&[]).set(memory.max as f64);
    }
}

async fn measure(
    redis: &RedisClient,
    partitions: &[Partition],
) -> Result<(u64, RedisMemoryInfo), Error> {
    let backlogs = redis.outbox_backlogs(partitions).await?;
    Ok((backlogs.iter().sum(), redis.memory().await?))
}

/// The highest level whose mark is reached. The current level is kept until its value falls below
/// four fifths of the mark.
fn next_level(before: PressureLevel, value: u64, marks: WatermarkPair) -> PressureLevel {
    let halfway = marks.warn + (marks.limit - marks.warn) / 2;
    let reached = |(level, mark): &(PressureLevel, u64)| {
        let mark = if before >= *level { mark * 4 / 5 } else { *mark };
        value >= mark.max(1)
    };
    let steps = [
        (PressureLevel::RefuseHolds, marks.limit),
        (PressureLevel::RefuseJoins, halfway),
        (PressureLevel::Warning, marks.warn),
    ];
    steps.iter().find(|step| reached(step)).map_or(PressureLevel::Normal, |(level, _)| *level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_start_at_their_marks_and_end_below_four_fifths() {
        let marks = WatermarkPair { warn: 100, limit: 200 };
        let mut level = PressureLevel::Normal;
        for (value, expected) in [
            (99, PressureLevel::Normal),
            (100, PressureLevel::Warning),
            (149, PressureLevel::Warning),
            (150, PressureLevel::RefuseJoins),
            (200, PressureLevel::RefuseHolds),
            // 160, 120 and 80 are four fifths.
            (160, PressureLevel::RefuseHolds),
            (159, PressureLevel::RefuseJoins),
            (199, PressureLevel::RefuseJoins),
            (120, PressureLevel::RefuseJoins),
            (119, PressureLevel::Warning),
            (80, PressureLevel::Warning),
            (79, PressureLevel::Normal),
            (1_000_000, PressureLevel::RefuseHolds),
            (0, PressureLevel::Normal),
        ] {
            level = next_level(level, value, marks);
            assert_eq!(level, expected, "{value}");
        }
    }
}
