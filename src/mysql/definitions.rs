//! The version of everything that operators set: one row, counted up by each change, read by every instance.
//!
//! A change holds the row's lock from its first statement to its commit, so changes stand in one order. A reader that takes the
//! version first and the settings after it may see settings newer than that version, never older: it will see the version
//! differ at its next look and read again.

use sqlx::mysql::{MySql, MySqlPool};
use sqlx::{MySqlConnection, Transaction};

use super::Error;

/// The version of the settings that are committed now.
///
/// # Errors
/// [`Error::NotMigrated`], or [`Error::Sql`] from the database.
pub async fn version(pool: &MySqlPool) -> Result<u64, Error> {
    let version = sqlx::query_scalar("SELECT version FROM definitions WHERE id = 1")
        .fetch_optional(pool)
        .await?;
    version.ok_or(Error::NotMigrated("definitions"))
}

/// Opens a change: waits for the one under way (at most five seconds), counts the version up and hands out the open transaction with
/// the new version. What commits it makes the change visible; dropping it undoes all.
///
/// # Errors
/// [`Error::NotMigrated`], or [`Error::Sql`] from the database; [`Error::is_transient`] when another change took too long.
pub async fn begin_change(pool: &MySqlPool) -> Result<(Transaction<'static, MySql>, u64), Error> {
    let mut tx = pool.begin().await?;
    let version = locked(&mut tx).await? + 1;
    sqlx::query("UPDATE definitions SET version = ? WHERE id = 1")
        .bind(version)
        .execute(&mut *tx)
        .await?;
    Ok((tx, version))
}

/// Holds changes off without being one: the open transaction and the version that stands as long as it is open.
///
/// # Errors
/// As [`begin_change`].
pub async fn lock(pool: &MySqlPool) -> Result<(Transaction<'static, MySql>, u64), Error> {
    let mut tx = pool.begin().await?;
    let version = locked(&mut tx).await?;
    Ok((tx, version))
}

async fn locked(connection: &mut MySqlConnection) -> Result<u64, Error> {
    let version = sqlx::query_scalar("SELECT version FROM definitions WHERE id = 1 FOR UPDATE");
    version.fetch_optional(connection).await?.ok_or(Error::NotMigrated("definitions"))
}
