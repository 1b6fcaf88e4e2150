//! The version of all definitions (queues, concerts, coupons, rewards): one row that each change
//! increments and every instance polls.
//!
//! A change holds the row lock from its first statement to its commit, so changes have one order. A
//! reader takes the version first and the definitions second. It may read definitions that are
//! newer than its version, never older ones; at the next poll it sees a new version and reads
//! again.

use sqlx::mysql::{MySql, MySqlPool};
use sqlx::{MySqlConnection, Transaction};

use super::Error;

/// The committed version.
///
/// # Errors
/// [`Error::NotMigrated`], or [`Error::Sql`] from the database.
pub async fn version(pool: &MySqlPool) -> Result<u64, Error> {
    let version = sqlx::query_scalar("SELECT version FROM definitions WHERE id = 1")
        .fetch_optional(pool)
        .await?;
    version.ok_or(Error::NotMigrated("definitions"))
}

/// Starts a change: waits at most five seconds for another one, increments the version, and returns
/// the open transaction with the new version. Committing it makes the change visible; dropping it
/// rolls back.
///
/// # Errors
/// [`Error::NotMigrated`], or [`Error::Sql`] from the database; [`Error::is_transient`] when
/// another change took too long.
pub async fn begin_change(pool: &MySqlPool) -> Result<(Transaction<'static, MySql>, u64), Error> {
    let mut tx = pool.begin().await?;
    let version = locked(&mut tx).await? + 1;
    sqlx::query("UPDATE definitions SET version = ? WHERE id = 1")
        .bind(version)
        .execute(&mut *tx)
        .await?;
    Ok((tx, version))
}

/// Blocks changes without making one: returns the open transaction and the version, which can't
/// change until it ends.
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
