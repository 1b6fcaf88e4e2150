//! A mutex of this process for each user (or coupon) around the whole transaction.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as Lock, PoisonError};

use futures::future::BoxFuture;
use tokio::sync::Mutex;

use crate::shop::{Guard, Shop};
use crate::work::{Outcome, Strategy, Work};

pub(crate) struct MutexPerUser {
    shop: Shop,
    turns: Lock<HashMap<String, Arc<Mutex<()>>>>,
}

impl MutexPerUser {
    pub(crate) fn new(shop: Shop) -> Self {
        Self { shop, turns: Lock::default() }
    }

    async fn do_it(&self, work: &Work) -> Outcome {
        let turn =
            self.turns.lock().unwrap_or_else(PoisonError::into_inner).entry(work.key()).or_default().clone();
        let _turn = turn.lock().await;
        self.shop.transact(work, Guard::None).await
    }
}

impl Strategy for MutexPerUser {
    fn work<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Outcome> {
        Box::pin(self.do_it(work))
    }
}
