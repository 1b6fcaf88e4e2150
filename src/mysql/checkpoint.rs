//! Checkpoints (table `outbox_checkpoints`): how much of each partition's outbox is in MySQL, and
//! the epoch that Redis must have for it (column `generation`).
//!
//! The row lock of a checkpoint separates writers from each other, and from a recovery that assigns
//! a new epoch.

use sqlx::mysql::MySqlPool;
use sqlx::{MySqlConnection, QueryBuilder};

use super::Error;
use crate::partition::{Partition, PartitionCount};

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    pub partition: Partition,
    /// The number of the last outbox entry in MySQL; 0 before the first.
    pub n: u64,
    /// The epoch that Redis must have; `None` before the partition was first opened.
    pub epoch: Option<u64>,
}

/// The checkpoints of all partitions, in order.
///
/// # Errors
/// [`Error::NotMigrated`] when a row is missing; [`Error::OtherPartitions`] when there are more,
/// because the number of partitions was changed while this instance was running; [`Error::Sql`]
/// from the database.
pub async fn load_all(
    pool: &MySqlPool,
    partitions: PartitionCount,
) -> Result<Vec<Checkpoint>, Error> {
    let rows: Vec<(u16, u64, Option<u64>)> = sqlx::query_as(
        "SELECT partition_id, n, generation FROM outbox_checkpoints ORDER BY partition_id",
    )
    .fetch_all(pool)
    .await?;
    all(rows, partitions)
}

/// Locks all checkpoints until the transaction ends, and returns them in order.
///
/// # Errors
/// As [`load_all`].
pub async fn lock_all(
    tx: &mut MySqlConnection,
    partitions: PartitionCount,
) -> Result<Vec<Checkpoint>, Error> {
    let select = "SELECT partition_id, n, generation FROM outbox_checkpoints ORDER BY partition_id \
                  FOR UPDATE";
    all(sqlx::query_as(select).fetch_all(tx).await?, partitions)
}

fn all(
    rows: Vec<(u16, u64, Option<u64>)>,
    partitions: PartitionCount,
) -> Result<Vec<Checkpoint>, Error> {
    let found = rows.len();
    let known = rows.into_iter().filter_map(|(number, n, epoch)| {
        partitions.nth(number).map(|partition| Checkpoint { partition, n, epoch })
    });
    let checkpoints: Vec<_> = known.collect();
    let asked = partitions.count();
    if found > usize::from(asked) {
        Err(Error::OtherPartitions { recorded: u16::try_from(found).unwrap_or(u16::MAX), asked })
    } else if checkpoints.len() == usize::from(asked) {
        Ok(checkpoints)
    } else {
        Err(Error::NotMigrated("a row of outbox_checkpoints"))
    }
}

/// The checkpoint of one partition.
///
/// # Errors
/// [`Error::NotMigrated`] when the row is missing; [`Error::Sql`] from the database.
pub async fn load(pool: &MySqlPool, partition: Partition) -> Result<Checkpoint, Error> {
    let row: Option<(u64, Option<u64>)> =
        sqlx::query_as("SELECT n, generation FROM outbox_checkpoints WHERE partition_id = ?")
            .bind(partition.get())
            .fetch_optional(pool)
            .await?;
    let (n, epoch) = row.ok_or(Error::NotMigrated("a row of outbox_checkpoints"))?;
    Ok(Checkpoint { partition, n, epoch })
}

/// The checkpoints of some partitions after every writer that has them locked is done, at most five
/// seconds later. What such a writer read from Redis before this call is then committed, or never
/// will be.
///
/// # Errors
/// [`Error::Sql`] from the database, and when a writer is not done in time.
pub async fn load_after_writers(
    pool: &MySqlPool,
    of: &[Partition],
) -> Result<Vec<Checkpoint>, Error> {
    if of.is_empty() {
        return Ok(Vec::new());
    }
    // Shared locks that end with the statement, so that several verifiers do not wait for each
    // other.
    let mut select = QueryBuilder::new(
        "SELECT partition_id, n, generation FROM outbox_checkpoints WHERE partition_id IN (",
    );
    let mut list = select.separated(", ");
    // Repeating a partition is harmless, so the list is padded to one of a few lengths, and the
    // statement stays prepared.
    let padding = of.last().into_iter().cycle();
    for partition in of.iter().chain(padding).take(of.len().next_power_of_two()) {
        list.push_bind(partition.get());
    }
    select.push(") ORDER BY partition_id LOCK IN SHARE MODE");
    let rows: Vec<(u16, u64, Option<u64>)> = select.build_query_as().fetch_all(pool).await?;
    let known = rows.into_iter().filter_map(|(number, n, epoch)| {
        let partition = of.iter().find(|partition| partition.get() == number)?;
        Some(Checkpoint { partition: *partition, n, epoch })
    });
    Ok(known.collect())
}

/// Locks a checkpoint until the transaction ends, so that no writer changes the partition. Waits at
/// most five seconds for a writer that has it locked.
///
/// # Errors
/// [`Error::NotMigrated`] when the row is missing; [`Error::Sql`] from the database.
pub async fn lock(tx: &mut MySqlConnection, partition: Partition) -> Result<Checkpoint, Error> {
    let row: Option<(u64, Option<u64>)> = sqlx::query_as(
        "SELECT n, generation FROM outbox_checkpoints WHERE partition_id = ? FOR UPDATE",
    )
    .bind(partition.get())
    .fetch_optional(tx)
    .await?;
    let (n, epoch) = row.ok_or(Error::NotMigrated("a row of outbox_checkpoints"))?;
    Ok(Checkpoint { partition, n, epoch })
}

/// Sets the epoch that Redis must have for the partition once this transaction is committed.
///
/// # Errors
/// [`Error::NotMigrated`] when the row is missing; [`Error::Sql`] from the database.
pub async fn set_epoch(
    tx: &mut MySqlConnection,
    partition: Partition,
    epoch: u64,
) -> Result<(), Error> {
    let update = "UPDATE outbox_checkpoints SET generation = ?, updated_at = UTC_TIMESTAMP(3) \
                  WHERE partition_id = ?";
    let done = sqlx::query(update).bind(epoch).bind(partition.get()).execute(tx).await?;
    // The driver counts rows found, not rows changed, so setting the same epoch again counts too.
    if done.rows_affected() == 1 {
        Ok(())
    } else {
        Err(Error::NotMigrated("a row of outbox_checkpoints"))
    }
}
