//! The errors of MySQL, and whether a retry can help.

use std::io::ErrorKind;

use sqlx::migrate::MigrateError;
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A statement failed, or the connection under it.
    #[error("MySQL: {0}")]
    Sql(#[from] sqlx::Error),
    /// No connection could be made.
    #[error("MySQL is unavailable: {address} {cause} (USHER_MYSQL_URL)")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the server did, such as "refused the connection".
        cause: String,
    },
    /// The schema could not be brought up to date.
    #[error("migration: {0}")]
    Migration(#[from] MigrateError),
    /// A newer release changed the schema in a way that this one can't work with. Their names.
    #[error(
        "the database has migrations of a newer release that usher {version} can't work with: {0}; \
         run that release or a newer one",
        version = env!("CARGO_PKG_VERSION")
    )]
    NewerSchema(String),
    /// The schema lacks migrations of this release. Their names.
    #[error("the database lacks migrations: {0}; run `usher migrate`")]
    PendingMigrations(String),
    /// Another migrator held the lock for a minute.
    #[error("another migration has been running for a minute; try again when it is done")]
    MigrationBusy,
    /// The database has another number of partitions, which a setting can't change.
    #[error(
        "the database has {recorded} partitions, but the setting says {asked}; set \
         USHER_PARTITIONS={recorded}"
    )]
    OtherPartitions {
        /// The number in the database.
        recorded: u16,
        /// The number in the settings.
        asked: u16,
    },
    /// A row that every migrated database has is missing.
    #[error("the database has not been migrated ({0} is missing); run `usher migrate`")]
    NotMigrated(&'static str),
}

/// Server errors that are temporary: the statement itself is valid.
const TRANSIENT: &[u16] = &[
    1205, // lock wait timeout
    1213, // deadlock
    1020, // the row changed since it was read (MariaDB's snapshot check)
    1040, 1203, // too many connections
    1053, 1077, 1079, // the server is shutting down
    1152, 1158, 1159, 1160, 1161, 1184, // the connection was cut
    1290, 1792, 1836, // read-only: a failover is in progress
    1317, // the statement was interrupted
    1927, 4031, // the connection was killed or timed out
];

/// Server errors that concern the content of a row: the same row fails every time.
const REFUSALS: &[u16] = &[
    1048, // a null where none may be
    1062, // a second row under one key
    1264, 1690, // out of range
    1265, 1292, 1366, // not a value of the column's type
    1406, // too long
    1216, 1452, // no such parent
    3140, 3819, 4025, // not JSON, a check constraint
];

impl Error {
    /// Names the server to which no connection could be made, and why.
    pub(super) fn unreachable(options: &MySqlConnectOptions, error: &sqlx::Error) -> Self {
        let cause = match error {
            sqlx::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
                "refused the connection".to_owned()
            }
            sqlx::Error::PoolTimedOut => "does not answer".to_owned(),
            sqlx::Error::Database(error) if number(error.as_ref()) == Some(1045) => {
                "refused the user name or the password".to_owned()
            }
            sqlx::Error::Database(error) => format!("refused the connection: {}", error.message()),
            other => format!("can't be reached: {other}"),
        };
        Self::Unreachable {
            address: format!("{}:{}", options.get_host(), options.get_port()),
            cause,
        }
    }

    /// Whether MySQL rejected the content of a row. Other rows can still be written.
    pub fn is_row_rejection(&self) -> bool {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => {
                number(error.as_ref()).is_some_and(|number| REFUSALS.contains(&number))
            }
            _ => false,
        }
    }

    /// Whether the same transaction may succeed when it is repeated: a deadlock, a lock wait
    /// timeout, a lost connection, or no free connection. A commit whose reply was lost may have
    /// succeeded, so only idempotent work may be repeated.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Sql(error) | Self::Migration(MigrateError::Execute(error)) => is_transient(error),
            _ => false,
        }
    }
}

fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            number(error.as_ref()).is_some_and(|number| TRANSIENT.contains(&number))
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        _ => false,
    }
}

/// The server's error number, such as 1062 for a duplicate key.
fn number(error: &(dyn sqlx::error::DatabaseError + 'static)) -> Option<u16> {
    error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
}

/// Whether a query failed because its table does not exist (1146).
pub(super) fn is_missing_table(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if number(error.as_ref()) == Some(1146))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_connection_is_transient_and_missing_row_is_not() {
        let io = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(Error::from(sqlx::Error::Io(io)).is_transient());
        assert!(Error::from(sqlx::Error::PoolTimedOut).is_transient());
        assert!(!Error::from(sqlx::Error::RowNotFound).is_transient());
        assert!(!Error::OtherPartitions { recorded: 64, asked: 16 }.is_transient());
    }
}
