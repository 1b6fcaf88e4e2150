//! No lock: a request that finds a changed row version at its write starts again, with back-off.

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::lease_lock::RetryBackoff;
use crate::naive_service::{NaiveService, RowGuard};
use crate::work_item::{LOCK_TIMEOUT, LockStrategy, WorkFailure, WorkItem, WorkResult};

pub(crate) struct OptimisticVersion(pub(crate) NaiveService);

impl LockStrategy for OptimisticVersion {
    fn execute<'a>(&'a self, item: &'a WorkItem) -> BoxFuture<'a, WorkResult> {
        Box::pin(async move {
            let (deadline, mut backoff) = (Instant::now() + LOCK_TIMEOUT, RetryBackoff::new());
            while Instant::now() < deadline {
                match self.0.transact(item, RowGuard::Version).await {
                    Err(WorkFailure::Conflict | WorkFailure::Deadlock) => backoff.wait().await,
                    result => return result,
                }
            }
            Err(WorkFailure::TimedOut)
        })
    }
}
