//! Watermarks: how much may wait for MySQL, and how full Redis may be, before new work is refused.
//!
//! While MySQL is away, the outboxes grow in Redis, which must never be so full that a payment can't be confirmed. So each instance looks at both, and sets
//! the level by which the scripts are refused (`redis/pressure.rs`): first a warning, halfway from there to the limit no new places in line, at the
//! limit no promotions and no holds. A level is left when what raised it has fallen to four fifths of its mark.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::partition::Partition;
use crate::redis::{Error, PressureLevel, RedisClient, RedisMemoryInfo};
use crate::telemetry::Metric;

/// How often both are looked at.
const MEASURE_INTERVAL: Duration = Duration::from_millis(500);

/// Two marks of one measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatermarkPair {
    /// From here on somebody is told.
    pub warn: u64,
    /// From here on nobody is let in and nothing is held.
    pub limit: u64,
}

/// The marks of both measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PressureWatermarks {
    /// Entries in all outboxes.
    pub backlog: WatermarkPair,
    /// Percent of Redis' `maxmemory`; without that bound there is nothing to measure.
    pub memory: WatermarkPair,
}

/// The levels to which the measures have come.
#[derive(Debug, Clone, Copy, Default)]
struct PressureLevels {
    backlog: PressureLevel,
    memory: PressureLevel,
}

/// Looks at both until `stop`.
pub async fn watch(redis: RedisClient, marks: PressureWatermarks, stop: CancellationToken) {
    let partitions: Vec<_> = redis.keys().partitions().all().collect();
    let mut levels = PressureLevels::default();
    let mut ticks = interval(MEASURE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let (backlog, memory) = match measure(&redis, &partitions).await {
            Ok(measured) => measured,
            Err(error) => {
                tracing::debug!(%error, "measuring the backlog");
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
                "more waits for MySQL, or stands in Redis, than should"
            );
        } else if level < before {
            tracing::info!(?level, backlog, memory_percent, "the backlog has fallen");
        }
        redis.pressure().set(level);
        Metric::PressureLevel.gauge(&[]).set(f64::from(level as u8));
        Metric::RedisMemoryUsedBytes.gauge(&[]).set(memory.used as f64);
        Metric::RedisMemoryMaxBytes.gauge(&[]).set(memory.max as f64);
    }
}

async fn measure(
    redis: &RedisClient,
    partitions: &[Partition],
) -> Result<(u64, RedisMemoryInfo), Error> {
    let lengths = redis.outbox_lengths(partitions).await?;
    Ok((lengths.iter().sum(), redis.memory().await?))
}

/// The highest level whose mark is reached; one that holds already is left at four fifths of its mark.
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
    fn levels_are_reached_at_their_marks_and_left_below_them() {
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
