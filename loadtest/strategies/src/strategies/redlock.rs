//! A lock that two of three Redis must grant, all asked at once; tried again with back-off.

use futures::future::{BoxFuture, join_all};
use tokio::time::Instant;

use super::lease::{Held, LEASE, Locks, Pause};
use crate::shop::{Guard, Shop};
use crate::work::{Failed, Outcome, PATIENCE, Strategy, Work};

pub(crate) struct Redlock(pub(crate) Shop, pub(crate) Vec<Locks>);

impl Redlock {
    async fn take(&self, held: &Held) -> bool {
        let asked = Instant::now();
        let granted = join_all(self.1.iter().map(|locks| locks.take(held))).await;
        let granted = granted.iter().filter(|answer| matches!(answer, Ok(true))).count();
        granted > self.1.len() / 2 && asked.elapsed() < LEASE / 2
    }

    async fn give_back(&self, held: &Held) {
        join_all(self.1.iter().map(|locks| locks.give_back(held, ""))).await;
    }

    async fn do_it(&self, work: &Work) -> Outcome {
        let held = Held::new(&format!("redlock:{}", work.key()));
        let (deadline, mut pause) = (Instant::now() + PATIENCE, Pause::new());
        while !self.take(&held).await {
            self.give_back(&held).await;
            if Instant::now() > deadline {
                return Err(Failed::Patience);
            }
            pause.take().await;
        }
        let outcome = self.0.transact(work, Guard::None).await;
        self.give_back(&held).await;
        outcome
    }
}

impl Strategy for Redlock {
    fn work<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Outcome> {
        Box::pin(self.do_it(work))
    }
}
