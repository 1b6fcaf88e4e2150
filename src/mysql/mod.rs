//! The way to MySQL 8.4 or MariaDB 10.11: a pool whose every connection behaves alike, the migrator, and the rows that
//! belong to no room: the definitions' version and the partitions' checkpoints.
//!
//! Sessions are set rather than trusted: UTC, strict SQL mode, READ COMMITTED (the writer's upserts would take gap locks
//! under the default), and short server-side waits, so that the locks of an instance that vanished are freed within a minute.

mod error;

pub mod checkpoint;
pub mod definitions;
pub mod migrate;

use std::time::Duration;

use sqlx::Executor;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};

pub use error::Error;

/// How long a caller waits for a free connection before it hears [`Error::is_transient`].
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection idle for so long is closed by the pool; it must be less than `wait_timeout` below, which closes it from the other side.
const IDLE_TIMEOUT: Duration = Duration::from_secs(40);

/// A connection is replaced after so long, so that a pool spreads over servers that come and go behind one address.
const MAX_CONNECTION_LIFETIME: Duration = Duration::from_secs(30 * 60);

/// Statements that one connection keeps prepared: the writer's dozen in four sizes, and the rooms' own.
const PREPARED_STATEMENTS_PER_CONNECTION: usize = 256;

/// `wait_timeout` also ends a transaction whose client fell silent; without it a vanished machine would hold a partition for eight hours.
const SET_SESSION_VARIABLES: &str = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', \
     wait_timeout = 60, innodb_lock_wait_timeout = 5";

/// `SET SESSION TRANSACTION`, because the variable behind it has another name on each of the two servers.
const SET_ISOLATION_LEVEL: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";

/// Connects to `url` (`mysql://user:password@host:port/database`) with at most `max_connections` connections, and proves that one works.
///
/// # Errors
/// [`Error::Sql`] when the address is malformed, or nothing answers there within three seconds.
pub async fn connect(url: &str, max_connections: u32) -> Result<MySqlPool, Error> {
    let options = url
        .parse::<MySqlConnectOptions>()?
        .charset("utf8mb4")
        .timezone(Some("+00:00".to_owned()))
        .statement_cache_capacity(PREPARED_STATEMENTS_PER_CONNECTION);
    let pool = MySqlPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(IDLE_TIMEOUT)
        .max_lifetime(MAX_CONNECTION_LIFETIME)
        .after_connect(|connection, _| {
            Box::pin(async move {
                connection.execute(SET_SESSION_VARIABLES).await?;
                connection.execute(SET_ISOLATION_LEVEL).await?;
                Ok(())
            })
        });
    Ok(pool.connect_with(options).await?)
}
