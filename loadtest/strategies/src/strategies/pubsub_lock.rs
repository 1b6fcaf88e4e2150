//! A lock in Redis whose release is published: whoever waits sleeps until then. Of those who wait in one instance, one wakes up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{EventInterface, PubsubInterface};
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout};

use super::lease::{Held, Locks, client};
use crate::Failure;
use crate::shop::{Guard, Shop};
use crate::work::{Failed, Outcome, PATIENCE, Strategy, Work};

const CHANNEL: &str = "given-back";
/// A release between a failed try and the sleep after it is heard by nobody; so nobody sleeps longer than this.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

pub(crate) struct PubsubLock {
    shop: Shop,
    locks: Locks,
    waiting: Arc<Waiting>,
    _listener: Client,
}

type Waiting = Lock<HashMap<String, Arc<Notify>>>;

impl PubsubLock {
    pub(crate) async fn new(shop: Shop, url: &str) -> Result<Self, Failure> {
        let (locks, listener, waiting) =
            (Locks::connect(url).await?, client(url).await?, Arc::<Waiting>::default());
        let mut given_back = listener.message_rx();
        listener.subscribe(CHANNEL).await?;
        let heard = waiting.clone();
        tokio::spawn(async move {
            loop {
                let message = given_back.recv().await;
                let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                match message {
                    Ok(message) => {
                        let key = message.value.as_string().unwrap_or_default();
                        heard.get(&key).into_iter().for_each(|one| one.notify_one());
                    }
                    // More came than this task could hear: whoever waits has to look.
                    Err(RecvError::Lagged(_)) => heard.values().for_each(|all| all.notify_waiters()),
                    Err(RecvError::Closed) => return,
                }
            }
        });
        Ok(Self { shop, locks, waiting, _listener: listener })
    }

    async fn do_it(&self, work: &Work) -> Outcome {
        let key = format!("pubsub:{}", work.key());
        let held = Held::new(&key);
        let deadline = Instant::now() + PATIENCE;
        if !self.locks.take(&held).await? {
            let waiting =
                self.waiting.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
            while !self.locks.take(&held).await? {
                if Instant::now() > deadline {
                    return Err(Failed::Patience);
                }
                let _ = timeout(LONGEST_SLEEP, waiting.notified()).await;
            }
        }
        let outcome = self.shop.transact(work, Guard::None).await;
        self.locks.give_back(&held, CHANNEL).await?;
        outcome
    }
}

impl Strategy for PubsubLock {
    fn work<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Outcome> {
        Box::pin(self.do_it(work))
    }
}
