//! The call of `queue/list_busy`.

use std::sync::Arc;

use crate::ids::QueueId;
use crate::partition::Partition;
use crate::redis::{BatchOperation, Error, KeyScope, LuaScript, RedisClient, ScriptArgs, scripts};

/// `queue/list_busy`. One read answers all requests that wait for it.
pub(super) struct BusyQueuesBatch(pub(super) RedisClient);

impl BatchOperation for BusyQueuesBatch {
    type Entity = Partition;
    type Request = ();
    type Answer = Arc<Vec<QueueId>>;

    fn script(&self) -> &'static LuaScript {
        &scripts::QUEUE_LIST_BUSY
    }

    async fn call(
        &self,
        partition: &Partition,
        requests: &[()],
    ) -> Result<Vec<Self::Answer>, Error> {
        let scope = KeyScope::partition(*partition);
        let mut names = self.0.call(self.script(), scope, ScriptArgs::new()).await?.words()?;
        let mut queues: Vec<QueueId> = Vec::new();
        while !names.is_empty() {
            let name = names.text()?.parse();
            queues.push(name.map_err(|_| Error::Protocol("expected a queue".into()))?);
        }
        Ok(vec![queues.into(); requests.len()])
    }
}
