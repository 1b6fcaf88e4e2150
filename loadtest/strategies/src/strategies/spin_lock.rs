//! A lock in Redis, retried with back-off.

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::lease_lock::{HeldLease, LeaseLocks, RetryBackoff};
use crate::naive_service::{NaiveService, RowGuard};
use crate::work_item::{LOCK_TIMEOUT, LockStrategy, WorkFailure, WorkItem, WorkResult};

pub(crate) struct SpinLock(pub(crate) NaiveService, pub(crate) LeaseLocks);

impl LockStrategy for SpinLock {
    fn execute<'a>(&'a self, item: &'a WorkItem) -> BoxFuture<'a, WorkResult> {
        Box::pin(async move {
            let lease = HeldLease::new(&format!("spin:{}", item.lock_key()));
            let (deadline, mut backoff) = (Instant::now() + LOCK_TIMEOUT, RetryBackoff::new());
            while !self.1.take(&lease).await? {
                if Instant::now() > deadline {
                    return Err(WorkFailure::TimedOut);
                }
                backoff.wait().await;
            }
            let result = self.0.transact(item, RowGuard::None).await;
            self.1.release(&lease, "").await?;
            result
        })
    }
}
