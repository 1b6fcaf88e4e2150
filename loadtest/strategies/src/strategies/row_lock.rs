//! The database locks the row when it is read: not at all, shared, or exclusively.

use futures::future::BoxFuture;

use crate::naive_service::{NaiveService, RowGuard};
use crate::work_item::{LockStrategy, WorkItem, WorkResult};

pub(crate) struct RowLock(pub(crate) NaiveService, pub(crate) RowGuard);

impl LockStrategy for RowLock {
    fn execute<'a>(&'a self, item: &'a WorkItem) -> BoxFuture<'a, WorkResult> {
        Box::pin(self.0.transact(item, self.1))
    }
}
