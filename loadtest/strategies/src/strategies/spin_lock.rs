//! A lock in Redis, tried again and again with back-off.

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::lease::{Held, Locks, Pause};
use crate::shop::{Guard, Shop};
use crate::work::{Failed, Outcome, PATIENCE, Strategy, Work};

pub(crate) struct SpinLock(pub(crate) Shop, pub(crate) Locks);

impl SpinLock {
    async fn do_it(&self, work: &Work) -> Outcome {
        let held = Held::new(&format!("spin:{}", work.key()));
        let (deadline, mut pause) = (Instant::now() + PATIENCE, Pause::new());
        while !self.1.take(&held).await? {
            if Instant::now() > deadline {
                return Err(Failed::Patience);
            }
            pause.take().await;
        }
        let outcome = self.0.transact(work, Guard::None).await;
        self.1.give_back(&held, "").await?;
        outcome
    }
}

impl Strategy for SpinLock {
    fn work<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Outcome> {
        Box::pin(self.do_it(work))
    }
}
