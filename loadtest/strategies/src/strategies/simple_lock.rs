//! One try for a lock in Redis; whoever does not get it is turned away.

use futures::future::BoxFuture;

use super::lease::{Held, Locks};
use crate::shop::{Guard, Shop};
use crate::work::{Failed, Outcome, Strategy, Work};

pub(crate) struct SimpleLock(pub(crate) Shop, pub(crate) Locks);

impl SimpleLock {
    async fn do_it(&self, work: &Work) -> Outcome {
        let held = Held::new(&format!("simple:{}", work.key()));
        if !self.1.take(&held).await? {
            return Err(Failed::Busy);
        }
        let outcome = self.0.transact(work, Guard::None).await;
        self.1.give_back(&held, "").await?;
        outcome
    }
}

impl Strategy for SimpleLock {
    fn work<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Outcome> {
        Box::pin(self.do_it(work))
    }
}
