//! The database locks the row that is read: not at all, shared (others may read it too), or exclusively.

use futures::future::BoxFuture;

use crate::shop::{Guard, Shop};
use crate::work::{Outcome, Strategy, Work};

pub(crate) struct RowLock(pub(crate) Shop, pub(crate) Guard);

impl Strategy for RowLock {
    fn work<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Outcome> {
        Box::pin(self.0.transact(work, self.1))
    }
}
