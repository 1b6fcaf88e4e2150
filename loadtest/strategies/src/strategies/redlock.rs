//! A lock that two of three Redis servers must grant, all asked at once; retried with back-off.

use futures::future::{BoxFuture, join_all};
use tokio::time::Instant;

use super::lease_lock::{HeldLease, LEASE_TIME, LeaseLocks, RetryBackoff};
use crate::naive_service::{NaiveService, RowGuard};
use crate::work_item::{LOCK_TIMEOUT, LockStrategy, WorkFailure, WorkItem, WorkResult};

pub(crate) struct RedlockLock(pub(crate) NaiveService, pub(crate) Vec<LeaseLocks>);

impl RedlockLock {
    async fn take(&self, lease: &HeldLease) -> bool {
        let started = Instant::now();
        let granted = join_all(self.1.iter().map(|locks| locks.take(lease))).await;
        let granted = granted.iter().filter(|answer| matches!(answer, Ok(true))).count();
        granted > self.1.len() / 2 && started.elapsed() < LEASE_TIME / 2
    }

    async fn release(&self, lease: &HeldLease) {
        join_all(self.1.iter().map(|locks| locks.release(lease, ""))).await;
    }
}

impl LockStrategy for RedlockLock {
    fn execute<'a>(&'a self, item: &'a WorkItem) -> BoxFuture<'a, WorkResult> {
        Box::pin(async move {
            let lease = HeldLease::new(&format!("redlock:{}", item.lock_key()));
            let (deadline, mut backoff) = (Instant::now() + LOCK_TIMEOUT, RetryBackoff::new());
            while !self.take(&lease).await {
                // A minority that granted the lock must not keep it.
                self.release(&lease).await;
                if Instant::now() > deadline {
                    return Err(WorkFailure::TimedOut);
                }
                backoff.wait().await;
            }
            let result = self.0.transact(item, RowGuard::None).await;
            self.release(&lease).await;
            result
        })
    }
}
