//! One attempt to take a lock in Redis; a request that does not get it is refused.

use futures::future::BoxFuture;

use super::lease_lock::{HeldLease, LeaseLocks};
use crate::naive_service::{NaiveService, RowGuard};
use crate::work_item::{LockStrategy, WorkFailure, WorkItem, WorkResult};

pub(crate) struct SimpleLock(pub(crate) NaiveService, pub(crate) LeaseLocks);

impl LockStrategy for SimpleLock {
    fn execute<'a>(&'a self, item: &'a WorkItem) -> BoxFuture<'a, WorkResult> {
        Box::pin(async move {
            let lease = HeldLease::new(&format!("simple:{}", item.lock_key()));
            if !self.1.take(&lease).await? {
                return Err(WorkFailure::Busy);
            }
            let result = self.0.transact(item, RowGuard::None).await;
            self.1.release(&lease, "").await?;
            result
        })
    }
}
