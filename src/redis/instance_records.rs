//! The version of the definitions that each instance has loaded, in one hash.
//!
//! An instance writes only its own field, so this needs no script. A lost hash fills again with the
//! next exchange of each instance.

use super::{Error, RedisClient};
use crate::partition::Partition;

const INSTANCES: &str = "instances";

/// What an instance learns from the others.
#[derive(Debug)]
pub struct VersionExchange {
    /// Whether Redis had no record of this instance.
    pub is_new: bool,
    /// The ids and versions of the other instances.
    pub others: Vec<(String, u64)>,
}

impl RedisClient {
    /// Records the version that an instance has loaded, and then reads those of the others.
    ///
    /// # Errors
    /// [`Error::Recovering`] while the partition does not serve: a foreign Redis is never written.
    pub async fn exchange_version(
        &self,
        instance: &str,
        version: u64,
    ) -> Result<VersionExchange, Error> {
        let partition = self.instances_partition()?;
        let record = vec![instance.into(), version.to_string().into()];
        let is_new = self.command("HSET", partition, INSTANCES, record).await?.int()? > 0;
        let mut words = self.command("HGETALL", partition, INSTANCES, Vec::new()).await?.words()?;
        let mut others = Vec::new();
        while !words.is_empty() {
            let (id, version) = (words.text()?, words.text()?);
            if id != instance {
                let version = version.parse().map_err(|_| {
                    Error::Protocol(format!("the version of instance {id} is {version}"))
                })?;
                others.push((id, version));
            }
        }
        Ok(VersionExchange { is_new, others })
    }

    /// The partition that has the records of the instances, if it serves.
    pub fn instances_partition(&self) -> Result<Partition, Error> {
        let first = self.keys().partitions().all().next();
        let partition = first.ok_or_else(|| Error::Protocol("there is no partition".into()))?;
        let serves = self.is_verified(partition) && self.epochs().get(partition).is_some();
        if serves { Ok(partition) } else { Err(Error::Recovering(partition)) }
    }
}
