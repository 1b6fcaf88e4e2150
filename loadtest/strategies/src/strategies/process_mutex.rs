//! A mutex in the process of one instance. Another instance has another mutex.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use futures::future::BoxFuture;
use tokio::sync::Mutex;

use crate::naive_service::{NaiveService, RowGuard, apply};
use crate::work_item::{LockStrategy, WorkItem, WorkResult};

/// One mutex, released inside the transaction, like a lock in a method that is itself
/// transactional.
pub(crate) struct MutexInside(NaiveService, Mutex<()>);

/// One mutex around the whole transaction.
pub(crate) struct MutexOutside(NaiveService, Mutex<()>);

/// One mutex per user or coupon, around the whole transaction.
pub(crate) struct MutexPerKey(NaiveService, StdMutex<HashMap<String, Arc<Mutex<()>>>>);

impl MutexInside {
    pub(crate) fn new(service: NaiveService) -> Self {
        Self(service, Mutex::default())
    }
}

impl MutexOutside {
    pub(crate) fn new(service: NaiveService) -> Self {
        Self(service, Mutex::default())
    }
}

impl MutexPerKey {
    pub(crate) fn new(service: NaiveService) -> Self {
        Self(service, StdMutex::default())
    }
}

impl LockStrategy for MutexInside {
    fn execute<'a>(&'a self, item: &'a WorkItem) -> BoxFuture<'a, WorkResult> {
        Box::pin(async move {
            let mut transaction = self.0.begin().await?;
            let locked = self.1.lock().await;
            let answer = apply(&mut transaction, item, RowGuard::None).await?;
            drop(locked);
            transaction.commit().await?;
            Ok(answer)
        })
    }
}

impl LockStrategy for MutexOutside {
    fn execute<'a>(&'a self, item: &'a WorkItem) -> BoxFuture<'a, WorkResult> {
        Box::pin(async move {
            let _locked = self.1.lock().await;
            self.0.transact(item, RowGuard::None).await
        })
    }
}

impl LockStrategy for MutexPerKey {
    fn execute<'a>(&'a self, item: &'a WorkItem) -> BoxFuture<'a, WorkResult> {
        Box::pin(async move {
            let mutex = {
                let mut mutexes = self.1.lock().unwrap_or_else(PoisonError::into_inner);
                mutexes.entry(item.lock_key()).or_default().clone()
            };
            let _locked = mutex.lock().await;
            self.0.transact(item, RowGuard::None).await
        })
    }
}
