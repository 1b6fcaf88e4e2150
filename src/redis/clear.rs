//! The keys of one partition, for whoever lays it back.

use std::sync::Arc;

use fred::interfaces::KeysInterface;
use fred::types::Value;

use super::{Args, Error, Place, Redis, Reply, scripts};
use crate::partition::Partition;

/// Keys that Redis looks at in one step of a walk, and how many are dropped by one script.
const LOOK: u32 = 1_000;
const DROP: usize = 500;

impl Redis {
    /// The name of one of a place's keys, as a script's header would call it.
    pub fn key(&self, place: Place<'_>, word: &str) -> String {
        self.keys().build(place, word)
    }

    /// Drops everything of a partition but its fence, in bounded steps, as long as that fence stands. Gives how many keys, or `None` when it does not.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn clear(&self, partition: Partition, fence: &str) -> Result<Option<u64>, Error> {
        let own = self.keys().of_partition(partition, "generation");
        let pattern = self.keys().of_partition(partition, "*");
        let node = self.owner(partition).ok_or(Error::Recovering(partition))?;
        let (mut cursor, mut dropped) = ("0".to_owned(), 0);
        loop {
            let page: Value = node.client().scan_page(cursor, pattern.as_str(), Some(LOOK), None).await?;
            let mut words = Reply::try_from(page)?.words()?;
            cursor = words.text()?;
            let mut keys = Vec::new();
            for key in words.word()?.words()?.rest() {
                let key = String::from_utf8(key.bytes()?.into())
                    .map_err(|_| Error::Protocol("a key that is not UTF-8".into()))?;
                if key != own {
                    keys.push(key);
                }
            }
            for some in keys.chunks(DROP) {
                let place = Place::partition(partition);
                let gone = self
                    .call_fenced(&scripts::RECOVERY_CLEAR, place, fence, Args::new(), some.to_vec())
                    .await?;
                let Some(gone) = gone else { return Ok(None) };
                dropped += u64::try_from(gone.int()?).unwrap_or(0);
            }
            // A walk is one server's; on another it would have to begin anew.
            if self.owner(partition).is_none_or(|owner| !Arc::ptr_eq(&owner, &node)) {
                return Err(Error::Unavailable("the partition is held by another server now".into()));
            }
            if cursor == "0" {
                return Ok(Some(dropped));
            }
        }
    }
}
