//! The migrator: creates the tables of `migrations/`, and records the number of partitions.
//!
//! Any number of instances may run it at once. One holds a named lock for the lifetime of its
//! connection; the others wait. The driver's own lock is not used: it waits with a timeout of −1,
//! for which MariaDB returns NULL and takes no lock.
//!
//! A database may have migrations of a newer release, after a step back. This release works with
//! those that declare themselves compatible (table `compatible_migrations`) and refuses the others.

use std::collections::HashSet;
use std::sync::LazyLock;

use sqlx::migrate::Migrator;
use sqlx::mysql::MySqlPool;
use sqlx::{Connection, MySqlConnection};

use super::error::{Error, is_missing_table};
use crate::partition::PartitionCount;

static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("./migrations");
    migrator.set_locking(false);
    // `check_newer` decides about them.
    migrator.set_ignore_missing(true);
    migrator
});

/// The name contains a hash of the database, because named locks are shared by all databases of a
/// server and are limited to 64 characters. SHA2, because MySQL 9.7 removed SHA1.
const MIGRATION_LOCK_QUERY: &str =
    "SELECT GET_LOCK(CONCAT('usher-migrate-', LEFT(SHA2(DATABASE(), 256), 40)), 60)";

/// Rows per INSERT of checkpoints.
const CHECKPOINTS_PER_INSERT: usize = 1024;

/// Brings the schema up to date. The first run also records the number of partitions, inserts one
/// checkpoint per partition and sets the version of the definitions to 0: `configured`, or
/// `default` without it. Later runs compare `configured` with the recorded number. It can be
/// repeated at any time.
///
/// # Errors
/// [`Error::OtherPartitions`] when the recorded number differs; [`Error::NewerSchema`] when a newer
/// release has changed the schema in a way that this one can't work with; [`Error::MigrationBusy`]
/// when another migrator runs for more than a minute; [`Error::Migration`] and [`Error::Sql`] from
/// the database.
pub async fn migrate(
    pool: &MySqlPool,
    configured: Option<PartitionCount>,
    default: PartitionCount,
) -> Result<(), Error> {
    // Detached from the pool: closing the connection releases the lock, also when this future is
    // dropped.
    let mut connection = pool.acquire().await?.detach();
    let held: Option<i64> =
        sqlx::query_scalar(MIGRATION_LOCK_QUERY).fetch_one(&mut connection).await?;
    if held != Some(1) {
        return Err(Error::MigrationBusy);
    }
    delete_unfinished_migrations(&mut connection).await?;
    check_newer(&applied(&mut connection).await?, &mut connection).await?;
    // Not `run`: with a connection its future can't be spawned ("not general enough").
    MIGRATOR.run_direct(None, &mut connection, false).await?;
    record(&mut connection, configured, default).await?;
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

/// Refuses a database whose schema this release can't work with.
///
/// # Errors
/// [`Error::NewerSchema`]; [`Error::PendingMigrations`] when `usher migrate` of this release has not
/// run; [`Error::Sql`] from the database.
pub async fn check_schema(pool: &MySqlPool) -> Result<(), Error> {
    let mut connection = pool.acquire().await?;
    let applied = applied(&mut connection).await?;
    check_newer(&applied, &mut connection).await?;
    let has = |version| applied.iter().any(|(known, _)| *known == version);
    let pending: Vec<_> = MIGRATOR
        .iter()
        .filter(|migration| !has(migration.version))
        .map(|migration| migration_name(migration.version, &migration.description))
        .collect();
    if pending.is_empty() { Ok(()) } else { Err(Error::PendingMigrations(pending.join(", "))) }
}

/// The migrations of the database, with their descriptions.
async fn applied(connection: &mut MySqlConnection) -> Result<Vec<(i64, String)>, Error> {
    let select = "SELECT version, description FROM _sqlx_migrations WHERE success = TRUE ORDER BY \
                  version";
    or_empty(sqlx::query_as(select).fetch_all(connection).await)
}

/// Refuses migrations of a newer release that are not declared as compatible.
async fn check_newer(
    applied: &[(i64, String)],
    connection: &mut MySqlConnection,
) -> Result<(), Error> {
    let newer: Vec<_> =
        applied.iter().filter(|(version, _)| !MIGRATOR.version_exists(*version)).collect();
    if newer.is_empty() {
        return Ok(());
    }
    let select = "SELECT version FROM compatible_migrations";
    let compatible: Vec<i64> = or_empty(sqlx::query_scalar(select).fetch_all(connection).await)?;
    let compatible: HashSet<i64> = compatible.into_iter().collect();
    let refused: Vec<_> = newer
        .into_iter()
        .filter(|(version, _)| !compatible.contains(version))
        .map(|(version, description)| migration_name(*version, description))
        .collect();
    if refused.is_empty() { Ok(()) } else { Err(Error::NewerSchema(refused.join(", "))) }
}

/// The rows of a table that may not exist yet.
fn or_empty<T>(rows: Result<Vec<T>, sqlx::Error>) -> Result<Vec<T>, Error> {
    match rows {
        Err(error) if is_missing_table(&error) => Ok(Vec::new()),
        rows => Ok(rows?),
    }
}

/// The name of its file, with spaces.
fn migration_name(version: i64, description: &str) -> String {
    format!("{version:04} {description}")
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

async fn record(
    connection: &mut MySqlConnection,
    configured: Option<PartitionCount>,
    default: PartitionCount,
) -> Result<(), Error> {
    let partitions = configured.unwrap_or(default);
    let asked = partitions.count();
    let mut tx = connection.begin().await?;
    let recorded: Option<u16> =
        sqlx::query_scalar("SELECT partitions FROM usher WHERE id = 1 FOR UPDATE")
            .fetch_optional(&mut *tx)
            .await?;
    match recorded {
        Some(recorded) if configured.is_none() || recorded == asked => {
            return Ok(tx.rollback().await?);
        }
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
    // A user's events would be in two partitions, so there is no order to continue.
    sqlx::query("UPDATE event_logs SET deleted_through = position").execute(&mut *tx).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The last migration of the first release.
    const LAST_OF_FIRST_RELEASE: i64 = 59;

    #[test]
    fn every_migration_says_whether_the_previous_release_can_work_with_it() {
        for migration in MIGRATOR.iter().filter(|it| it.version > LAST_OF_FIRST_RELEASE) {
            let version = migration.version;
            let declared =
                format!("INSERT IGNORE INTO compatible_migrations (version) VALUES ({version});");
            let sql = migration.sql.as_str();
            assert!(
                sql.contains(&declared) != sql.contains("-- Not compatible: "),
                "{version:04}: end it with `{declared}` when the previous release can serve with \
                 it, else begin a comment with `-- Not compatible: ` and the reason"
            );
        }
    }
}
