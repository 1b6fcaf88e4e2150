//! The version of the records in Redis, which each partition stores with the release that raised it.
//!
//! A release refuses to start on records of a higher version than its own, because it would misread
//! them. Raise [`RECORD_VERSION`] with a change after which the previous release misreads a record;
//! a field that it ignores is no such change. Records are rebuilt by a restore from MySQL.

use std::fmt;

use fred::clients::Client;
use fred::interfaces::KeysInterface;
use futures::future::try_join_all;

use super::cluster::READ_PATIENCE;
use super::{Error, RedisClient};
use crate::partition::Partition;

/// The version of the records that this release writes, and the highest that it reads.
pub const RECORD_VERSION: u32 = 1;

/// What a partition stores about its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordVersion {
    pub partition: Partition,
    /// 0 when nothing is stored.
    pub version: u32,
    /// The release that raised it.
    pub release: String,
}

impl RecordVersion {
    /// Whether this release can't read the records.
    pub fn is_newer(&self) -> bool {
        self.version > RECORD_VERSION
    }

    fn read(partition: Partition, stored: Option<&str>) -> Self {
        let (version, release) = stored.unwrap_or("0").split_once(' ').unwrap_or(("0", ""));
        // What this release can't read was not written by an older one.
        Self {
            partition,
            version: version.parse().unwrap_or(u32::MAX),
            release: release.to_owned(),
        }
    }
}

impl fmt::Display for RecordVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, version, release } = self;
        write!(f, "version {version} (usher {release}) in partition {partition}")
    }
}

impl RedisClient {
    /// The version of the records of each partition.
    ///
    /// # Errors
    /// When a server does not answer.
    pub async fn record_versions(&self) -> Result<Vec<RecordVersion>, Error> {
        try_join_all(self.keys().partitions().all().map(async |partition| {
            let read = |client: Client| {
                let key = self.keys().of_partition(partition, "records");
                async move { client.get::<Option<String>, _>(key).await }
            };
            let stored = self.with_owner(partition, READ_PATIENCE, read).await?;
            Ok(RecordVersion::read(partition, stored.as_deref()))
        }))
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::PartitionCount;

    #[test]
    fn only_higher_versions_are_newer() {
        let partition = PartitionCount::new(1).unwrap().nth(0).unwrap();
        for (stored, newer) in [
            (None, false),
            (Some("1 0.1.0"), false),
            (Some("2 0.2.0"), true),
            (Some("x 0.2.0"), true),
        ] {
            assert_eq!(RecordVersion::read(partition, stored).is_newer(), newer, "{stored:?}");
        }
    }
}
