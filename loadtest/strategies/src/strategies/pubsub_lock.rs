//! A lock in Redis whose release is published: waiting requests sleep until then. A release wakes
//! one request per instance.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{EventInterface, PubsubInterface};
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout};

use super::lease_lock::{HeldLease, LeaseLocks, connect};
use crate::BoxError;
use crate::naive_service::{NaiveService, RowGuard};
use crate::work_item::{LOCK_TIMEOUT, LockStrategy, WorkFailure, WorkItem, WorkResult};

const RELEASE_CHANNEL: &str = "released";
/// A release between a failed attempt and the sleep after it is missed, so sleep is bounded.
const MAX_SLEEP: Duration = Duration::from_millis(100);

pub(crate) struct PubsubLock {
    service: NaiveService,
    locks: LeaseLocks,
    waiters: Arc<LocalWaiters>,
    _listener: Client,
}

/// Wakes the waiting requests of this instance, by key.
type LocalWaiters = StdMutex<HashMap<String, Arc<Notify>>>;

impl PubsubLock {
    pub(crate) async fn new(service: NaiveService, url: &str) -> Result<Self, BoxError> {
        let (locks, listener) = (LeaseLocks::connect(url).await?, connect(url).await?);
        let waiters = Arc::<LocalWaiters>::default();
        let mut releases = listener.message_rx();
        listener.subscribe(RELEASE_CHANNEL).await?;
        let notified = waiters.clone();
        tokio::spawn(async move {
            loop {
                let message = releases.recv().await;
                let waiters = notified.lock().unwrap_or_else(PoisonError::into_inner);
                match message {
                    Ok(message) => {
                        let key = message.value.as_string().unwrap_or_default();
                        waiters.get(&key).into_iter().for_each(|waiter| waiter.notify_one());
                    }
                    // Messages were dropped, so every waiting request must try again.
                    Err(RecvError::Lagged(_)) => {
                        waiters.values().for_each(|waiter| waiter.notify_waiters());
                    }
                    Err(RecvError::Closed) => return,
                }
            }
        });
        Ok(Self { service, locks, waiters, _listener: listener })
    }
}

impl LockStrategy for PubsubLock {
    fn execute<'a>(&'a self, item: &'a WorkItem) -> BoxFuture<'a, WorkResult> {
        Box::pin(async move {
            let key = format!("pubsub:{}", item.lock_key());
            let lease = HeldLease::new(&key);
            let deadline = Instant::now() + LOCK_TIMEOUT;
            if !self.locks.take(&lease).await? {
                let waiter = {
                    let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
                    waiters.entry(key).or_default().clone()
                };
                while !self.locks.take(&lease).await? {
                    if Instant::now() > deadline {
                        return Err(WorkFailure::TimedOut);
                    }
                    let _ = timeout(MAX_SLEEP, waiter.notified()).await;
                }
            }
            let result = self.service.transact(item, RowGuard::None).await;
            self.locks.release(&lease, RELEASE_CHANNEL).await?;
            result
        })
    }
}
