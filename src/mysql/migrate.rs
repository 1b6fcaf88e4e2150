//! The migrator, and the count of partitions that it records: the tables of `migrations/`, and the rows that decide how the data is laid out.
//!
//! Any number of instances may run it at once. One of them holds a named lock for as long as its connection lives; the
//! others wait. The driver's own lock isn't used: it waits with a timeout of −1, which MariaDB answers with NULL and no lock.

use std::sync::LazyLock;

use sqlx::migrate::Migrator;
use sqlx::mysql::MySqlPool;
use sqlx::{Connection, MySqlConnection};

use super::error::{Error, is_missing_table};
use crate::partition::PartitionCount;

static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("./migrations");
    migrator.set_locking(false);
    migrator
});

/// The lock is named after the database, since the server knows named locks for all of them together, and no longer than the 64
/// characters that MySQL allows. By SHA2, since MySQL has no SHA1 any more (9.7).
const MIGRATION_LOCK_QUERY: &str = "SELECT GET_LOCK(CONCAT('usher-migrate-', LEFT(SHA2(DATABASE(), 256), 40)), 60)";

/// Rows of a checkpoint statement: P is at most 4,096, and three values a row stay below the 65,535 that a statement can bind.
const CHECKPOINTS_PER_INSERT: usize = 1024;

/// Brings the schema up to date. The first time it also records P, lays one checkpoint for each partition and starts the
/// definitions at version 0; afterwards it holds `partitions` against what was recorded. It can be repeated at any time.
///
/// # Errors
/// [`Error::OtherPartitions`] when the database was laid out for another P; [`Error::MigrationBusy`] when another
/// migrator ran for more than a minute; [`Error::Migration`] and [`Error::Sql`] from the database.
pub async fn migrate(pool: &MySqlPool, partitions: PartitionCount) -> Result<(), Error> {
    // Not given back to the pool: closing the connection is what frees the lock, also when this future is dropped half-way.
    let mut connection = pool.acquire().await?.detach();
    let held: Option<i64> = sqlx::query_scalar(MIGRATION_LOCK_QUERY).fetch_one(&mut connection).await?;
    if held != Some(1) {
        return Err(Error::MigrationBusy);
    }
    delete_unfinished_migrations(&mut connection).await?;
    // `run` is the same call, but its future can't be spawned when it is given a connection ("not general enough").
    MIGRATOR.run_direct(None, &mut connection, false).await?;
    record(&mut connection, partitions).await?;
    connection.close().await?;
    Ok(())
}

/// The count of partitions that the database was laid out for; `None` when it was never migrated.
///
/// # Errors
/// [`Error::Sql`] from the database.
pub async fn partitions(pool: &MySqlPool) -> Result<Option<PartitionCount>, Error> {
    let count = sqlx::query_scalar::<_, u16>("SELECT partitions FROM usher WHERE id = 1")
        .fetch_optional(pool)
        .await;
    match count {
        Ok(count) => Ok(count.and_then(PartitionCount::new)),
        Err(error) if is_missing_table(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A migrator that was killed leaves its file marked as begun, and the driver would refuse to go on for ever. Under our lock nobody is
/// at work on it, and every file can be run again, so it is simply run again.
async fn delete_unfinished_migrations(connection: &mut MySqlConnection) -> Result<(), Error> {
    match sqlx::query("DELETE FROM _sqlx_migrations WHERE success = FALSE")
        .execute(connection)
        .await
    {
        Err(error) if !is_missing_table(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

async fn record(connection: &mut MySqlConnection, partitions: PartitionCount) -> Result<(), Error> {
    let asked = partitions.count();
    let mut tx = connection.begin().await?;
    let recorded: Option<u16> =
        sqlx::query_scalar("SELECT partitions FROM usher WHERE id = 1 FOR UPDATE")
            .fetch_optional(&mut *tx)
            .await?;
    match recorded {
        Some(recorded) if recorded == asked => return Ok(tx.rollback().await?),
        Some(recorded) => return Err(Error::OtherPartitions { recorded, asked }),
        None => {}
    }
    sqlx::query("INSERT INTO usher (id, partitions, created_at) VALUES (1, ?, UTC_TIMESTAMP(3))")
        .bind(asked)
        .execute(&mut *tx)
        .await?;
    sqlx::query("INSERT INTO definitions (id, version) VALUES (1, 0)").execute(&mut *tx).await?;
    insert_checkpoints(&mut tx, partitions, 0).await?;
    Ok(tx.commit().await?)
}

async fn insert_checkpoints(
    tx: &mut MySqlConnection,
    partitions: PartitionCount,
    n: u64,
) -> Result<(), Error> {
    let all: Vec<u16> = (0..partitions.count()).collect();
    for some in all.chunks(CHECKPOINTS_PER_INSERT) {
        let mut insert = sqlx::QueryBuilder::new(
            "INSERT INTO outbox_checkpoints (partition_id, n, updated_at) ",
        );
        insert.push_values(some, |mut row, partition| {
            row.push_bind(*partition).push_bind(n).push("UTC_TIMESTAMP(3)");
        });
        insert.build().persistent(false).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Holds a count against the recorded one, inside a transaction; with `lock` nobody changes it until that ends.
///
/// # Errors
/// [`Error::OtherPartitions`] when they differ, [`Error::Sql`] from the database.
pub async fn check_count(
    tx: &mut MySqlConnection,
    partitions: PartitionCount,
    lock: bool,
) -> Result<(), Error> {
    let select = match lock {
        true => "SELECT partitions FROM usher WHERE id = 1 FOR UPDATE",
        false => "SELECT partitions FROM usher WHERE id = 1",
    };
    let recorded: Option<u16> = sqlx::query_scalar(select).fetch_optional(tx).await?;
    let (recorded, asked) =
        (recorded.ok_or(Error::NotMigrated("the count of partitions"))?, partitions.count());
    if recorded == asked { Ok(()) } else { Err(Error::OtherPartitions { recorded, asked }) }
}

/// Makes `partitions` the count: as many checkpoints, each at `n` and without a generation, in place of those that were there. Whoever calls it has
/// barred every partition in Redis and holds the locks of the count and of all checkpoints.
///
/// # Errors
/// [`Error::Sql`] from the database.
pub async fn replace_partitions(
    tx: &mut MySqlConnection,
    partitions: PartitionCount,
    n: u64,
) -> Result<(), Error> {
    sqlx::query("DELETE FROM outbox_checkpoints").execute(&mut *tx).await?;
    insert_checkpoints(tx, partitions, n).await?;
    sqlx::query("UPDATE usher SET partitions = ? WHERE id = 1")
        .bind(partitions.count())
        .execute(tx)
        .await?;
    Ok(())
}

/// How many connections others have to this database, as far as the user may see: the user's own, or everybody's with the right PROCESS.
///
/// # Errors
/// [`Error::Sql`] from the database.
pub async fn others_connected(connection: &mut MySqlConnection) -> Result<i64, Error> {
    let count = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()";
    Ok(sqlx::query_scalar(count).fetch_one(connection).await?)
}
