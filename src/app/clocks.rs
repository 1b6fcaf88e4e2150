//! Whether the clocks of Redis and MySQL agree.
//!
//! Redis' clock decides deadlines. MySQL's clock decides which draws have taken place when settings
//! change, and when a key of passes may sign. So both must agree to about a second.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;

use crate::mysql;
use crate::redis::RedisClient;
use crate::store_error::StoreError;
use crate::telemetry::Metric;

const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// A larger difference is logged.
const TOLERABLE_MS: i64 = 1_000;

/// How far MySQL's clock is ahead of Redis' clock, in milliseconds; negative if it is behind. Of
/// several Redis servers, the one with the largest difference counts. The time of the reads does
/// not count as a difference.
pub(super) async fn difference_ms(
    redis: &RedisClient,
    mysql: &MySqlPool,
) -> Result<i64, StoreError> {
    let mut largest = 0_i64;
    for partition in redis.keys().partitions().all() {
        let before = redis.clock(partition).await?;
        let now = "SELECT CAST(UTC_TIMESTAMP(3) AS DATETIME(3))";
        let at: DateTime<Utc> =
            sqlx::query_scalar(now).fetch_one(mysql).await.map_err(mysql::Error::from)?;
        let after = redis.clock(partition).await?;
        let difference = outside(at.timestamp_millis(), before, after);
        if difference.abs() > largest.abs() {
            largest = difference;
        }
    }
    Ok(largest)
}

/// How far `at` is outside the span; negative before it.
fn outside(at: i64, from: i64, to: i64) -> i64 {
    if at < from { at - from } else { (at - to).max(0) }
}

/// A sentence about the difference.
pub(super) fn describe(difference_ms: i64) -> String {
    let seconds = difference_ms.unsigned_abs() as f64 / 1_000.0;
    let direction = if difference_ms < 0 { "behind" } else { "ahead of" };
    match difference_ms.abs() {
        0..=TOLERABLE_MS => "the clocks of Redis and MySQL agree".to_owned(),
        _ => format!("MySQL's clock is {seconds:.1} s {direction} Redis' clock"),
    }
}

/// Checks the clocks at start and then periodically, until `stop` is cancelled.
pub(super) async fn watch(redis: RedisClient, mysql: MySqlPool, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match difference_ms(&redis, &mysql).await {
            Ok(difference) => {
                let seconds = difference as f64 / 1_000.0;
                Metric::ClockDifferenceSeconds.gauge(&[]).set(seconds);
                if difference.abs() > TOLERABLE_MS {
                    tracing::warn!(
                        difference_seconds = seconds,
                        "{}; synchronize both (NTP)",
                        describe(difference)
                    );
                }
            }
            Err(error) => tracing::debug!(%error, "comparing the clocks failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_does_not_count_the_time_of_the_reads() {
        assert_eq!([99, 100, 105, 110, 111].map(|at| outside(at, 100, 110)), [-1, 0, 0, 0, 1]);
    }

    #[test]
    fn description_names_the_clock_that_is_ahead() {
        assert_eq!(describe(-1_000), "the clocks of Redis and MySQL agree");
        assert_eq!(describe(1_500), "MySQL's clock is 1.5 s ahead of Redis' clock");
        assert_eq!(describe(-60_000), "MySQL's clock is 60.0 s behind Redis' clock");
    }
}
