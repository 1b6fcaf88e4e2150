//! Matches replies from a broker with the requests that wait for them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex as StdMutex, PoisonError};

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::work_item::{LOCK_TIMEOUT, WorkFailure, WorkResult};

/// Messages that a consumer applies in one transaction, at most.
pub(crate) const MAX_CONSUMER_BATCH: usize = 256;

/// Requests of one instance that wait for their replies.
#[derive(Default)]
pub(crate) struct PendingReplies {
    next: AtomicU64,
    waiting: StdMutex<HashMap<u64, oneshot::Sender<WorkResult>>>,
}

impl PendingReplies {
    /// Returns a request id and the receiver for its reply.
    pub(crate) fn register(&self) -> (u64, oneshot::Receiver<WorkResult>) {
        let (id, (sender, receiver)) =
            (self.next.fetch_add(1, Ordering::Relaxed), oneshot::channel());
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        (id, receiver)
    }

    pub(crate) fn complete(&self, id: u64, result: WorkResult) {
        let sender = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        // Fails if the request has timed out.
        let _ = sender.map(|sender| sender.send(result));
    }
}

/// Waits for a reply, ten times as long as for a lock: after a timeout the result is unknown,
/// because the consumer may still apply the request.
pub(crate) async fn await_reply(receiver: oneshot::Receiver<WorkResult>) -> WorkResult {
    match timeout(LOCK_TIMEOUT * 10, receiver).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) | Err(_) => Err(WorkFailure::Broken),
    }
}
