//! The migrator: creates the tables of `migrations/`, and records the number of partitions.
//!
//! Any number of instances may run it at once. One holds a named lock for the lifetime of its
//! connection; the others wait. The driver's own lock is not used: it waits with a timeout of −1,
//! for which MariaDB returns NULL and takes no lock.

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

/// The name contains a hash of the database, because named locks are shared by all databases of a
/// server and are limited to 64 characters. SHA2, because MySQL 9.7 removed SHA1.
const MIGRATION_LOCK_QUERY: &str =
    "SELECT GET_LOCK(CONCAT('usher-migrate-', LEFT(SHA2(DATABASE(), 256), 40)), 60)";

/// Rows per INSERT of checkpoints.
const CHECKPOINTS_PER_INSERT: usize = 1024;

/// Brings the schema up to date. The first run also records the number of partitions, inserts one
/// checkpoint per partition and sets the version of the definitions to 0. Later runs compare
/// `partitions` with the recorded number. It can be repeated at any time.
///
/// # Errors
/// [`Error::OtherPartitions`] when the recorded number differs; [`Error::MigrationBusy`] when
/// another migrator runs for more than a minute; [`Error::Migration`] and [`Error::Sql`] from the
/// database.
pub async fn migrate(pool: &MySqlPool, partitions: PartitionCount) -> Result<(), Error> {
    // Detached from the pool: closing the connection releases the lock, also when this future is
    // dropped.
    let mut connection = pool.acquire().await?.detach();
    let held: Option<i64> =
        sqlx::query_scalar(MIGRATION_LOCK_QUERY).fetch_one(&mut connection).await?;
    if held != Some(1) {
        return Err(Error::MigrationBusy);
    }
    delete_unfinished_migrations(&mut connection).await?;
    // Not `run`: with a connection its future can't be spawned ("not general enough").
    MIGRATOR.run_direct(None, &mut connection, false).await?;
    record(&mut connection, partitions).await?;
    connection.close().await?;
    Ok(())
}

/// The recorded number of partitions; `None` when the database was never migrated.
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

/// A killed migrator leaves its file marked as started, and the driver then refuses every later
/// migration. Under the lock no other migrator is running, and every file can be repeated, so the
/// mark is deleted and the file runs again.
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

/// Compares a number of partitions with the recorded one, inside a transaction. With `lock` it
/// can't change until the transaction ends.
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
        (recorded.ok_or(Error::NotMigrated("the number of partitions"))?, partitions.count());
    if recorded == asked { Ok(()) } else { Err(Error::OtherPartitions { recorded, asked }) }
}

/// Changes the number of partitions: replaces all checkpoints by new ones at `n` without an epoch.
/// The caller has fenced every partition in Redis and holds the locks of the recorded number and of
/// all checkpoints.
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

/// The number of other connections to this database that the user may see: its own, or all with the
/// privilege PROCESS.
///
/// # Errors
/// [`Error::Sql`] from the database.
pub async fn others_connected(connection: &mut MySqlConnection) -> Result<i64, Error> {
    let count = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() AND id \
                 <> CONNECTION_ID()";
    Ok(sqlx::query_scalar(count).fetch_one(connection).await?)
}
