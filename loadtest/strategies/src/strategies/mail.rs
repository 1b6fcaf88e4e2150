//! Requests that went off as messages, and their answers when they come.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex as Lock, PoisonError};

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::work::{Failed, Outcome, PATIENCE};

/// Messages that a consumer takes into one transaction, at most.
pub(crate) const BATCH: usize = 256;

/// Who waits for which answer, in one instance.
#[derive(Default)]
pub(crate) struct Desk {
    next: AtomicU64,
    waiting: Lock<HashMap<u64, oneshot::Sender<Outcome>>>,
}

impl Desk {
    /// A number for a request, and where its answer will be.
    pub(crate) fn ask(&self) -> (u64, oneshot::Receiver<Outcome>) {
        let (id, (answer, wait)) = (self.next.fetch_add(1, Ordering::Relaxed), oneshot::channel());
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, answer);
        (id, wait)
    }

    /// Hands an answer over.
    pub(crate) fn answer(&self, id: u64, outcome: Outcome) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        // Whoever has lost patience does not hear it.
        let _ = waiting.map(|answer| answer.send(outcome));
    }
}

/// Waits for an answer, ten times as long as for a lock: the request may be done any time from now on, so giving up means not to know.
pub(crate) async fn answered(wait: oneshot::Receiver<Outcome>) -> Outcome {
    match timeout(PATIENCE * 10, wait).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) | Err(_) => Err(Failed::Broken),
    }
}
