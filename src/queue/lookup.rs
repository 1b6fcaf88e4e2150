//! Finds queues by name, also those that another instance has just created.

use std::sync::Arc;

use super::{Error, PublishedQueue, QueueService};
use crate::ids::QueueId;

impl QueueService {
    /// The settings, also of a queue that another instance has just created.
    pub async fn find_settings(&self, queue: &QueueId) -> Result<Arc<PublishedQueue>, Error> {
        if let Some(known) = self.settings(queue) {
            return Ok(known);
        }
        Box::pin(self.lookup.refresh(&self.mysql, async || self.reload().await)).await?;
        self.settings(queue).ok_or(Error::NotFound)
    }

    /// The ids of all queues, sorted.
    pub fn ids(&self) -> Vec<QueueId> {
        let mut ids: Vec<_> = self.queues.load().keys().cloned().collect();
        ids.sort();
        ids
    }
}
