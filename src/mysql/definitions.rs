//! The version of all definitions (queues, concerts, coupons, rewards): one row that each change
//! increments and every instance polls.
//!
//! A change holds the row lock from its first statement to its commit, so changes have one order. A
//! reader takes the version first and the definitions second. It may read definitions that are
//! newer than its version, never older ones; at the next poll it sees a new version and reads
//! again.

use std::time::Duration;

use sqlx::mysql::{MySql, MySqlPool};
use sqlx::{MySqlConnection, Transaction};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use super::Error;

/// The minimum time between two lookups of one kind of definition.
const LOOKUP_INTERVAL: Duration = Duration::from_millis(200);
/// Requests for unknown names that wait for a lookup. Further ones are not found without one, so
/// that a flood of such requests uses neither MySQL nor the requests in flight of other users.
const MAX_WAITING_LOOKUPS: usize = 1_000;

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

/// Lets an instance look into MySQL for a name before it says that the name is unknown. Another
/// instance may have created it since the last reload.
///
/// Concurrent requests share a lookup, and there is at most one per [`LOOKUP_INTERVAL`]. A lookup
/// reads one row, and reloads all definitions of its kind only when the version has changed. So
/// requests for names that do not exist can't flood MySQL.
pub struct DefinitionLookup {
    waiting: Semaphore,
    last: Mutex<LastLookup>,
}

#[derive(Default)]
struct LastLookup {
    attempted_at: Option<Instant>,
    /// The start of the last lookup that succeeded.
    succeeded_at: Option<Instant>,
    version: Option<u64>,
}

impl Default for DefinitionLookup {
    fn default() -> Self {
        Self { waiting: Semaphore::new(MAX_WAITING_LOOKUPS), last: Mutex::default() }
    }
}

impl DefinitionLookup {
    /// Returns after a lookup that began after this call. `reload` reads the definitions of one
    /// kind.
    ///
    /// # Errors
    /// From MySQL, or from `reload`.
    pub async fn refresh<E: From<Error>>(
        &self,
        pool: &MySqlPool,
        reload: impl AsyncFnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        self.refresh_with(async || version(pool).await, reload).await
    }

    async fn refresh_with<E: From<Error>>(
        &self,
        version: impl AsyncFnOnce() -> Result<u64, Error>,
        reload: impl AsyncFnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let asked_at = Instant::now();
        let Ok(_waiting) = self.waiting.try_acquire() else { return Ok(()) };
        let mut last = self.last.lock().await;
        if last.succeeded_at.is_some_and(|started_at| started_at >= asked_at) {
            // Another request has looked while this one waited for the lock.
            return Ok(());
        }
        if let Some(attempted_at) = last.attempted_at {
            tokio::time::sleep_until(attempted_at + LOOKUP_INTERVAL).await;
        }
        let started_at = Instant::now();
        last.attempted_at = Some(started_at);
        let version = version().await?;
        if last.version != Some(version) {
            reload().await?;
            last.version = Some(version);
        }
        last.succeeded_at = Some(started_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[tokio::test]
    async fn many_unknown_names_share_few_lookups() {
        let lookup = DefinitionLookup::default();
        let (versions, reloads) = (AtomicU64::new(0), AtomicU64::new(0));
        let version = AtomicU64::new(1);
        let ask = || {
            lookup.refresh_with::<Error>(
                async || {
                    versions.fetch_add(1, Ordering::Relaxed);
                    Ok(version.load(Ordering::Relaxed))
                },
                async || {
                    reloads.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                },
            )
        };
        let count = || (versions.load(Ordering::Relaxed), reloads.load(Ordering::Relaxed));
        ask().await.unwrap();
        assert_eq!(count(), (1, 1));
        for outcome in futures::future::join_all((0..10_000).map(|_| ask())).await {
            outcome.unwrap();
        }
        assert_eq!(count(), (2, 1), "the version is the same");
        version.store(2, Ordering::Relaxed);
        ask().await.unwrap();
        assert_eq!(count(), (3, 2));
    }
}
