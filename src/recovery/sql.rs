//! The table `recoveries`, and the checkpoint lock of a restore.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{MySqlConnection, MySqlExecutor, MySqlPool};

use crate::mysql;
use crate::mysql::checkpoint::Checkpoint;
use crate::partition::{Partition, PartitionCount};
use crate::redis;

/// Every epoch of every partition that `recoveries` records, as pairs of partition and epoch.
pub(super) async fn known_epochs(pool: &MySqlPool) -> Result<HashSet<(u16, u64)>, mysql::Error> {
    let rows: Vec<(u16, u64)> =
        sqlx::query_as("SELECT partition_id, generation FROM recoveries").fetch_all(pool).await?;
    Ok(rows.into_iter().collect())
}

/// How often, and how long apart, to try a lock that a writer may hold: a flush is short.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_RETRY_PAUSE: Duration = Duration::from_millis(15);

/// Locks a partition's checkpoint; `None` while another recovery has it locked.
pub(super) async fn lock(
    tx: &mut MySqlConnection,
    partition: Partition,
) -> Result<Option<Checkpoint>, mysql::Error> {
    let select = "SELECT n, generation FROM outbox_checkpoints WHERE partition_id = ? FOR UPDATE \
                  SKIP LOCKED";
    for _ in 0..LOCK_ATTEMPTS {
        let row: Option<(u64, Option<u64>)> =
            sqlx::query_as(select).bind(partition.get()).fetch_optional(&mut *tx).await?;
        if let Some((n, epoch)) = row {
            return Ok(Some(Checkpoint { partition, n, epoch }));
        }
        tokio::time::sleep(LOCK_RETRY_PAUSE).await;
    }
    Ok(None)
}

/// Records the start of a restore: the epoch that the partition had and the one that it will have.
pub(super) async fn record_start(
    tx: &mut MySqlConnection,
    partition: Partition,
    previous: Option<u64>,
    next: u64,
) -> Result<(), mysql::Error> {
    let insert = "INSERT IGNORE INTO recoveries (partition_id, generation, began_at, settled_at) \
                  VALUES (?, ?, UTC_TIMESTAMP(3), UTC_TIMESTAMP(3))";
    if let Some(previous) = previous {
        sqlx::query(insert).bind(partition.get()).bind(previous).execute(&mut *tx).await?;
    }
    sqlx::query(insert).bind(partition.get()).bind(next).execute(&mut *tx).await?;
    Ok(())
}

/// The `partition_id` of a reconciliation without a restore.
const NO_PARTITION: u16 = u16::MAX;

/// Requests a reconciliation without a restore: Redis may have lost entries that MySQL does not
/// have either.
pub(super) async fn request_reconciliation(pool: &MySqlPool) -> Result<(), mysql::Error> {
    let insert = "INSERT INTO recoveries (partition_id, generation, began_at, laid_at, settled_at) \
                  VALUES (?, 0, UTC_TIMESTAMP(3), UTC_TIMESTAMP(3), NULL) \
                  ON DUPLICATE KEY UPDATE began_at = VALUES(began_at), laid_at = VALUES(laid_at), \
                  settled_at = NULL";
    sqlx::query(insert).bind(NO_PARTITION).execute(pool).await?;
    Ok(())
}

/// How often a partition was restored, including the current restore.
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

/// Records the end of a restore and requests its reconciliation.
pub(super) async fn record_restored(
    tx: &mut MySqlConnection,
    partition: Partition,
    epoch: u64,
) -> Result<(), mysql::Error> {
    let update = "UPDATE recoveries SET laid_at = UTC_TIMESTAMP(3), settled_at = NULL WHERE \
                  partition_id = ? AND generation = ?";
    sqlx::query(update).bind(partition.get()).bind(epoch).execute(tx).await?;
    Ok(())
}

pub(super) async fn dead_letters(executor: impl MySqlExecutor<'_>) -> Result<i64, mysql::Error> {
    Ok(sqlx::query_scalar("SELECT COUNT(*) FROM dead_letters").fetch_one(executor).await?)
}

/// The highest number of partitions that `recoveries` shows.
pub(super) async fn max_partition_count(pool: &MySqlPool) -> Result<Option<u16>, mysql::Error> {
    let highest: Option<u16> =
        sqlx::query_scalar("SELECT MAX(partition_id) FROM recoveries WHERE partition_id <> ?")
            .bind(NO_PARTITION)
            .fetch_one(pool)
            .await?;
    Ok(highest.map(|number| number + 1))
}

/// Copies to each new partition the restore times of the old partitions that share a hash slot with
/// it. Two partitions share a slot exactly when their numbers agree modulo the greatest common
/// divisor of both counts.
pub(super) async fn inherit_restore_times(
    tx: &mut MySqlConnection,
    from: PartitionCount,
    to: PartitionCount,
) -> Result<(), mysql::Error> {
    let restored: Vec<(u16, DateTime<Utc>, DateTime<Utc>)> = sqlx::query_as(
        "SELECT partition_id, began_at, laid_at FROM recoveries WHERE laid_at IS NOT NULL AND \
         partition_id < ?",
    )
    .bind(from.count())
    .fetch_all(&mut *tx)
    .await?;
    let shared = greatest_common_divisor(from.count(), to.count());
    for (old, began_at, laid_at) in restored {
        let sharing =
            to.all().map(Partition::get).filter(|new| *new != old && new % shared == old % shared);
        for new in sharing {
            // No partition ever has this epoch; the row only records the time.
            let insert = "INSERT INTO recoveries (partition_id, generation, began_at, laid_at, \
                          settled_at) VALUES (?, ?, ?, ?, ?)";
            sqlx::query(insert)
                .bind(new)
                .bind(redis::new_epoch())
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
    fn shared_slots_agree_modulo_the_common_divisor() {
        for (from, to) in [(64, 128), (128, 64), (6, 4), (64, 63), (1, 7)] {
            let shared = greatest_common_divisor(from, to);
            for slot in 0..crate::partition::HASH_SLOTS {
                assert_eq!(slot % from % shared, slot % to % shared, "{from} to {to}");
            }
        }
    }
}
