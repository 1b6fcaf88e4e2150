//! The rows of `recoveries`, and the lock under which a partition is laid back.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{MySqlConnection, MySqlExecutor, MySqlPool};

use crate::mysql;
use crate::mysql::checkpoint::Checkpoint;
use crate::partition::{Partition, PartitionCount};

/// Every generation that any partition has had since it was first laid back.
pub(super) async fn known_epochs(pool: &MySqlPool) -> Result<HashSet<(u16, u64)>, mysql::Error> {
    let rows: Vec<(u16, u64)> =
        sqlx::query_as("SELECT partition_id, generation FROM recoveries").fetch_all(pool).await?;
    Ok(rows.into_iter().collect())
}

/// How often and how long apart a lock is asked for that a writer holds: its passes are short.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_RETRY_PAUSE: Duration = Duration::from_millis(15);

/// Locks a partition's checkpoint; `None` while another recovery is at work on it.
pub(super) async fn lock(
    tx: &mut MySqlConnection,
    partition: Partition,
) -> Result<Option<Checkpoint>, mysql::Error> {
    let select = "SELECT n, generation FROM outbox_checkpoints WHERE partition_id = ? FOR UPDATE SKIP LOCKED";
    for _ in 0..LOCK_ATTEMPTS {
        let row: Option<(u64, Option<u64>)> =
            sqlx::query_as(select).bind(partition.get()).fetch_optional(&mut *tx).await?;
        if let Some((n, generation)) = row {
            return Ok(Some(Checkpoint { partition, n, epoch: generation }));
        }
        tokio::time::sleep(LOCK_RETRY_PAUSE).await;
    }
    Ok(None)
}

/// Notes that a partition is about to be laid back under a generation, and which one it had.
pub(super) async fn record_start(
    tx: &mut MySqlConnection,
    partition: Partition,
    had: Option<u64>,
    gets: u64,
) -> Result<(), mysql::Error> {
    let insert = "INSERT IGNORE INTO recoveries (partition_id, generation, began_at, settled_at) \
                  VALUES (?, ?, UTC_TIMESTAMP(3), UTC_TIMESTAMP(3))";
    if let Some(had) = had {
        sqlx::query(insert).bind(partition.get()).bind(had).execute(&mut *tx).await?;
    }
    sqlx::query(insert).bind(partition.get()).bind(gets).execute(&mut *tx).await?;
    Ok(())
}

/// In place of a partition: none was laid back.
const NO_PARTITION: u16 = u16::MAX;

/// Notes that Redis may have gone back in time by less than what MySQL has: nothing is laid back, but what crossed partitions is to be settled.
pub(super) async fn request_reconciliation(pool: &MySqlPool) -> Result<(), mysql::Error> {
    let insert = "INSERT INTO recoveries (partition_id, generation, began_at, laid_at, settled_at) \
                  VALUES (?, 0, UTC_TIMESTAMP(3), UTC_TIMESTAMP(3), NULL) \
                  ON DUPLICATE KEY UPDATE began_at = VALUES(began_at), laid_at = VALUES(laid_at), settled_at = NULL";
    sqlx::query(insert).bind(NO_PARTITION).execute(pool).await?;
    Ok(())
}

/// How often a partition was laid back, this time included.
pub(super) async fn restore_count(
    tx: &mut MySqlConnection,
    partition: Partition,
) -> Result<u64, mysql::Error> {
    let count: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) + 1 FROM recoveries WHERE partition_id = ? AND laid_at IS NOT NULL",
    )
    .bind(partition.get())
    .fetch_one(tx)
    .await?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Notes that a partition is laid back; what crossed partitions is to be settled from now on.
pub(super) async fn record_restored(
    tx: &mut MySqlConnection,
    partition: Partition,
    generation: u64,
) -> Result<(), mysql::Error> {
    let update = "UPDATE recoveries SET laid_at = UTC_TIMESTAMP(3), settled_at = NULL WHERE partition_id = ? AND generation = ?";
    sqlx::query(update).bind(partition.get()).bind(generation).execute(tx).await?;
    Ok(())
}

/// How many dead letters there are.
pub(super) async fn dead_letters(executor: impl MySqlExecutor<'_>) -> Result<i64, mysql::Error> {
    Ok(sqlx::query_scalar("SELECT COUNT(*) FROM dead_letters").fetch_one(executor).await?)
}

/// The highest count of partitions that there has been, as far as some of them were ever barred.
pub(super) async fn max_partition_count(pool: &MySqlPool) -> Result<Option<u16>, mysql::Error> {
    let most: Option<u16> =
        sqlx::query_scalar("SELECT MAX(partition_id) FROM recoveries WHERE partition_id <> ?")
            .bind(NO_PARTITION)
            .fetch_one(pool)
            .await?;
    Ok(most.map(|number| number + 1))
}

/// Notes for each partition of the new layout when those of the old one were laid back from which it gets anything: a slot that is dealt to both makes their
/// numbers agree by the greatest divisor that the two counts share.
pub(super) async fn inherit_restore_times(
    tx: &mut MySqlConnection,
    from: PartitionCount,
    to: PartitionCount,
) -> Result<(), mysql::Error> {
    let laid: Vec<(u16, DateTime<Utc>, DateTime<Utc>)> = sqlx::query_as(
        "SELECT partition_id, began_at, laid_at FROM recoveries WHERE laid_at IS NOT NULL AND partition_id < ?",
    )
    .bind(from.count())
    .fetch_all(&mut *tx)
    .await?;
    let shared = greatest_common_divisor(from.count(), to.count());
    for (old, began_at, laid_at) in laid {
        let fed =
            to.all().map(Partition::get).filter(|new| *new != old && new % shared == old % shared);
        for new in fed {
            // Nobody ever has this generation: it only stands for the time.
            let insert = "INSERT INTO recoveries (partition_id, generation, began_at, laid_at, settled_at) VALUES (?, ?, ?, ?, ?)";
            sqlx::query(insert)
                .bind(new)
                .bind(super::open::new_epoch())
                .bind(began_at)
                .bind(laid_at)
                .bind(laid_at)
                .execute(&mut *tx)
                .await?;
        }
    }
    Ok(())
}

fn greatest_common_divisor(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_both_agree_by_the_shared_divisor() {
        for (from, to) in [(64, 128), (128, 64), (6, 4), (64, 63), (1, 7)] {
            let shared = greatest_common_divisor(from, to);
            for slot in 0..crate::partition::SLOTS {
                assert_eq!(slot % from % shared, slot % to % shared, "{from} to {to}");
            }
        }
    }
}
