//! Reads and writes the fences of partitions in Redis.

use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::KeysInterface;
use futures::future::{join_all, try_join_all, try_join3};

use super::epochs::FenceReading;
use crate::partition::Partition;
use crate::redis::cluster::{NO_PATIENCE, READ_PATIENCE};
use crate::redis::{Error, RedisClient};

/// What Redis stores about a partition: its fence and how far its outbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FenceMarks {
    pub fence: FenceReading,
    /// The number of the newest outbox entry; 0 before the first.
    pub seq: u64,
    /// The highest checkpoint of MySQL that Redis knows. When MySQL's checkpoint is below it, MySQL
    /// went back.
    pub written: u64,
}

impl RedisClient {
    /// Reads the fences of several partitions.
    ///
    /// # Errors
    /// When any of them can't be read.
    pub async fn fence_marks(&self, partitions: &[Partition]) -> Result<Vec<FenceMarks>, Error> {
        try_join_all(
            partitions.iter().map(|partition| self.read_fence_marks(*partition, READ_PATIENCE)),
        )
        .await
    }

    /// Reads the fences of several partitions independently: a server that does not answer affects
    /// only its own partitions.
    pub async fn fence_marks_each(
        &self,
        partitions: &[Partition],
    ) -> Vec<Result<FenceMarks, Error>> {
        join_all(partitions.iter().map(|partition| self.read_fence_marks(*partition, NO_PATIENCE)))
            .await
    }

    async fn read_fence_marks(
        &self,
        partition: Partition,
        patience: Duration,
    ) -> Result<FenceMarks, Error> {
        let key = |name| self.keys().of_partition(partition, name);
        let read = |client: Client| {
            let (epoch, seq, written) = (key("epoch"), key("seq"), key("written"));
            async move {
                // Boxed: three futures of the driver are 20 kilobytes.
                let all = try_join3(client.get(epoch), client.get(seq), client.get(written));
                Box::pin(all).await
            }
        };
        let (epoch, seq, written): (Option<String>, Option<u64>, Option<u64>) =
            self.with_owner(partition, patience, read).await?;
        let fence = epoch.map_or(FenceReading::Absent, |text| FenceReading::read(&text));
        Ok(FenceMarks { fence, seq: seq.unwrap_or(0), written: written.unwrap_or(0) })
    }

    /// The stored text of a partition's fence.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn read_fence_text(&self, partition: Partition) -> Result<Option<String>, Error> {
        let read = |client: Client| {
            let key = self.keys().of_partition(partition, "epoch");
            async move { client.get(key).await }
        };
        self.with_owner(partition, READ_PATIENCE, read).await
    }

    /// Writes a partition's epoch or a [`super::recovery_fence`]. The caller holds the row lock of
    /// its checkpoint in MySQL.
    pub async fn write_fence(&self, partition: Partition, fence: &str) -> Result<(), Error> {
        let key = self.keys().of_partition(partition, "epoch");
        let write = |client: Client| {
            let (key, fence) = (key.clone(), fence.to_owned());
            async move { client.set::<(), _, _>(key, fence, None, None, false).await }
        };
        self.with_owner(partition, READ_PATIENCE, write).await
    }
}
