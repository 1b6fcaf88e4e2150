//! MySQL 8.4 or MariaDB 10.11: the connection pool, the migrator, and the tables that belong to no
//! domain (the version of all definitions, and the checkpoint of each partition).
//!
//! Every connection sets its session variables instead of relying on the server's defaults: UTC,
//! strict SQL mode, READ COMMITTED (the default isolation level takes gap locks in the writer's
//! upserts), and short server-side timeouts, so that the locks of a crashed instance are released
//! within a minute.

mod error;

pub mod checkpoint;
pub mod definitions;
pub mod migrate;

use std::sync::Arc;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};
use sqlx::{ConnectOptions, Executor};

pub use error::Error;

/// How long a caller waits for a free connection before it gets a transient error.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// When the pool closes an idle connection. Must be less than `wait_timeout` below, after which the
/// server closes it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(40);

/// When a connection is replaced, so that the pool spreads over servers that change behind one
/// address.
const MAX_CONNECTION_LIFETIME: Duration = Duration::from_secs(30 * 60);

/// Statements that one connection keeps prepared: a dozen of the writer in four sizes, and those of
/// the domains.
const PREPARED_STATEMENTS_PER_CONNECTION: usize = 256;

/// `wait_timeout` also ends the transaction of a client that does not respond; with the default a
/// crashed host would lock a partition for eight hours.
const SET_SESSION_VARIABLES: &str = "SET SESSION sql_mode = CONCAT('STRICT_ALL_TABLES,', \
     'NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'), \
     wait_timeout = 60, innodb_lock_wait_timeout = 5";

/// A statement instead of a variable, because the variable has a different name in MySQL and
/// MariaDB.
const SET_ISOLATION_LEVEL: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";

/// Connects to `url` (`mysql://user:password@host:port/database`) and checks that one connection
/// works.
///
/// # Errors
/// [`Error::Sql`] when the URL is invalid, [`Error::Unreachable`] when no connection is possible
/// within three seconds.
pub async fn connect(url: &str, max_connections: u32) -> Result<MySqlPool, Error> {
    connect_observed(url, max_connections, || ()).await
}

/// As [`connect`]. Calls `on_connect` for each new connection: it may lead to another server, or to
/// one that restarted with less data.
///
/// # Errors
/// As [`connect`].
pub async fn connect_observed(
    url: &str,
    max_connections: u32,
    on_connect: impl Fn() + Send + Sync + 'static,
) -> Result<MySqlPool, Error> {
    let on_connect = Arc::new(on_connect);
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
        .after_connect(move |connection, _| {
            let on_connect = on_connect.clone();
            Box::pin(async move {
                connection.execute(SET_SESSION_VARIABLES).await?;
                connection.execute(SET_ISOLATION_LEVEL).await?;
                on_connect();
                Ok(())
            })
        });
    match pool.connect_with(options.clone()).await {
        Ok(pool) => Ok(pool),
        // The pool tries again until its timeout and does not say why.
        Err(sqlx::Error::PoolTimedOut) => {
            let cause = match tokio::time::timeout(ACQUIRE_TIMEOUT, options.connect()).await {
                Ok(Err(cause)) => cause,
                Ok(Ok(_)) | Err(_) => sqlx::Error::PoolTimedOut,
            };
            Err(Error::unreachable(&options, &cause))
        }
        Err(cause) => Err(Error::unreachable(&options, &cause)),
    }
}
