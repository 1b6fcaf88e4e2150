//! A mutex of this process, taken and given back inside the transaction, as a lock in a method that is itself transactional is.

use futures::future::BoxFuture;
use tokio::sync::Mutex;

use crate::shop::{Guard, Shop, apply};
use crate::work::{Outcome, Strategy, Work};

pub(crate) struct MutexInside {
    shop: Shop,
    turn: Mutex<()>,
}

impl MutexInside {
    pub(crate) fn new(shop: Shop) -> Self {
        Self { shop, turn: Mutex::default() }
    }

    async fn do_it(&self, work: &Work) -> Outcome {
        let mut tx = self.shop.begin().await?;
        let turn = self.turn.lock().await;
        let answer = apply(&mut tx, work, Guard::None).await?;
        drop(turn);
        tx.commit().await?;
        Ok(answer)
    }
}

impl Strategy for MutexInside {
    fn work<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Outcome> {
        Box::pin(self.do_it(work))
    }
}
