//! Checkpoints: how far MySQL has come in each partition's outbox, and the generation that Redis must show for it.
//!
//! The row's lock is the fence between writers, and between the writer and whoever gives a partition a new generation.

use sqlx::mysql::MySqlPool;
use sqlx::{MySqlConnection, QueryBuilder};

use super::Error;
use crate::partition::{Partition, PartitionCount};

/// What MySQL knows of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The partition.
    pub partition: Partition,
    /// The last outbox entry that is applied; 0 before the first.
    pub n: u64,
    /// The generation agreed on with Redis; `None` before the first.
    pub epoch: Option<u64>,
}

/// The checkpoints of all partitions, in order.
///
/// # Errors
/// [`Error::NotMigrated`] when a partition has none; [`Error::OtherPartitions`] when there are more, because the count was changed under a
/// running instance; [`Error::Sql`] from the database.
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

/// Locks all of them until the transaction ends, and gives them in order.
///
/// # Errors
/// Those of [`load_all`].
pub async fn lock_all(
    tx: &mut MySqlConnection,
    partitions: PartitionCount,
) -> Result<Vec<Checkpoint>, Error> {
    let select = "SELECT partition_id, n, generation FROM outbox_checkpoints ORDER BY partition_id FOR UPDATE";
    all(sqlx::query_as(select).fetch_all(tx).await?, partitions)
}

fn all(
    rows: Vec<(u16, u64, Option<u64>)>,
    partitions: PartitionCount,
) -> Result<Vec<Checkpoint>, Error> {
    let found = rows.len();
    let known = rows.into_iter().filter_map(|(number, n, generation)| {
        partitions.nth(number).map(|partition| Checkpoint { partition, n, epoch: generation })
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
/// [`Error::NotMigrated`] when the partition has none; [`Error::Sql`] from the database.
pub async fn load(pool: &MySqlPool, partition: Partition) -> Result<Checkpoint, Error> {
    let row: Option<(u64, Option<u64>)> =
        sqlx::query_as("SELECT n, generation FROM outbox_checkpoints WHERE partition_id = ?")
            .bind(partition.get())
            .fetch_optional(pool)
            .await?;
    let (n, generation) = row.ok_or(Error::NotMigrated("a row of outbox_checkpoints"))?;
    Ok(Checkpoint { partition, n, epoch: generation })
}

/// The checkpoints of some partitions once every writer that is at work on them is done, at most five seconds later: whatever such a writer had read from
/// Redis before this call is committed by then, or never will be.
///
/// # Errors
/// [`Error::Sql`] from the database, and when a writer is not done by then.
pub async fn load_after_writers(
    pool: &MySqlPool,
    of: &[Partition],
) -> Result<Vec<Checkpoint>, Error> {
    if of.is_empty() {
        return Ok(Vec::new());
    }
    // Shared locks, let go of as the statement ends: those who verify don't wait for each other.
    let mut select = QueryBuilder::new(
        "SELECT partition_id, n, generation FROM outbox_checkpoints WHERE partition_id IN (",
    );
    let mut list = select.separated(", ");
    for partition in of {
        list.push_bind(partition.get());
    }
    select.push(") ORDER BY partition_id LOCK IN SHARE MODE");
    let rows: Vec<(u16, u64, Option<u64>)> =
        select.build_query_as().persistent(false).fetch_all(pool).await?;
    let known = rows.into_iter().filter_map(|(number, n, generation)| {
        let partition = of.iter().find(|partition| partition.get() == number)?;
        Some(Checkpoint { partition: *partition, n, epoch: generation })
    });
    Ok(known.collect())
}

/// Locks a partition's checkpoint until the transaction ends: no writer touches the partition meanwhile. Waits for a writer that is at
/// work on it, at most five seconds.
///
/// # Errors
/// [`Error::NotMigrated`] when the partition has none; [`Error::Sql`] from the database.
pub async fn lock(tx: &mut MySqlConnection, partition: Partition) -> Result<Checkpoint, Error> {
    let row: Option<(u64, Option<u64>)> = sqlx::query_as(
        "SELECT n, generation FROM outbox_checkpoints WHERE partition_id = ? FOR UPDATE",
    )
    .bind(partition.get())
    .fetch_optional(tx)
    .await?;
    let (n, generation) = row.ok_or(Error::NotMigrated("a row of outbox_checkpoints"))?;
    Ok(Checkpoint { partition, n, epoch: generation })
}

/// Records the generation that Redis must show for the partition from this transaction's commit on.
///
/// # Errors
/// [`Error::NotMigrated`] when the partition has no checkpoint; [`Error::Sql`] from the database.
pub async fn set_epoch(
    tx: &mut MySqlConnection,
    partition: Partition,
    generation: u64,
) -> Result<(), Error> {
    let update = "UPDATE outbox_checkpoints SET generation = ?, updated_at = UTC_TIMESTAMP(3) WHERE partition_id = ?";
    let done = sqlx::query(update).bind(generation).bind(partition.get()).execute(tx).await?;
    // The driver asks the server for rows found, not rows changed, so setting the same generation again counts as one too.
    if done.rows_affected() == 1 {
        Ok(())
    } else {
        Err(Error::NotMigrated("a row of outbox_checkpoints"))
    }
}
