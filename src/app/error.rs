//! Why a command failed, as the process prints it.

use crate::http::jwt;
use crate::store_error::{StoreError, from_store_errors};
use crate::{catalogue, config, coupons, dev, queue, recovery, redis, rewards, seats, tls};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Settings(#[from] config::InvalidSettings),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\nusher: "))]
    Several(Vec<Error>),
    #[error("the MySQL database has no schema: run `usher migrate` first")]
    NotMigrated,
    #[error("USHER_PARTITIONS is {configured}, but the database was migrated with {recorded}")]
    PartitionCountMismatch { recorded: u16, configured: u16 },
    #[error(
        "Redis has records of {0}; usher {release} reads version {known} at most. Start that release \
         again, or rebuild the records from MySQL with `usher recover`, which ends all holds",
        release = env!("CARGO_PKG_VERSION"),
        known = redis::RECORD_VERSION
    )]
    NewerRecords(redis::RecordVersion),
    #[error("USHER_JWT_KEY: the file {0}")]
    JwtKeys(#[from] jwt::InvalidJwtKeys),
    #[error(transparent)]
    Recovery(#[from] recovery::Error),
    #[error("queues: {0}")]
    Queue(#[from] queue::Error),
    #[error("concerts: {0}")]
    Catalogue(#[from] catalogue::Error),
    #[error("coupons: {0}")]
    Coupons(#[from] coupons::Error),
    #[error("rewards: {0}")]
    Rewards(#[from] rewards::Error),
    #[error("seats: {0}")]
    Seats(#[from] seats::Error),
    #[error(transparent)]
    PrivateServer(#[from] dev::Error),
    #[error("USHER_DATA_DIR (--data-dir): {0}")]
    DataDir(std::io::Error),
    #[error("cannot write to standard output: {0}")]
    Output(std::io::Error),
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    #[error("--partition: there is no partition {0}")]
    NoSuchPartition(u16),
    #[error("TLS: {0}")]
    Tls(#[from] tls::Error),
    #[error("{0} partitions do not serve")]
    NotRecovered(usize),
    #[error(
        "{0} other connections to the database: stop every instance and every other client of the \
         database, then try again"
    )]
    OtherConnections(i64),
    #[error("MySQL refused {0} dead letters again")]
    DeadLettersRefused(u32),
    #[error(transparent)]
    Top(#[from] dev::top::Error),
    #[error(transparent)]
    Operator(#[from] super::operator::OperatorError),
    #[error("the audit found faults")]
    AuditFailed,
    #[error("cannot listen on {address}: {source}")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
}

from_store_errors!(Error);
