//! A mutex of this process around the whole transaction.

use futures::future::BoxFuture;
use tokio::sync::Mutex;

use crate::shop::{Guard, Shop};
use crate::work::{Outcome, Strategy, Work};

pub(crate) struct MutexOutside {
    shop: Shop,
    turn: Mutex<()>,
}

impl MutexOutside {
    pub(crate) fn new(shop: Shop) -> Self {
        Self { shop, turn: Mutex::default() }
    }

    async fn do_it(&self, work: &Work) -> Outcome {
        let _turn = self.turn.lock().await;
        self.shop.transact(work, Guard::None).await
    }
}

impl Strategy for MutexOutside {
    fn work<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Outcome> {
        Box::pin(self.do_it(work))
    }
}
