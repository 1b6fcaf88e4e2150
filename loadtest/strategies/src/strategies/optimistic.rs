//! Nobody waits: whoever finds that the row has another version than it read begins anew, after a moment at random.

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::lease::Pause;
use crate::shop::{Guard, Shop};
use crate::work::{Failed, Outcome, PATIENCE, Strategy, Work};

pub(crate) struct Optimistic(pub(crate) Shop);

impl Optimistic {
    async fn do_it(&self, work: &Work) -> Outcome {
        let (deadline, mut pause) = (Instant::now() + PATIENCE, Pause::new());
        while Instant::now() < deadline {
            match self.0.transact(work, Guard::Version).await {
                Err(Failed::Conflict | Failed::Deadlock) => pause.take().await,
                outcome => return outcome,
            }
        }
        Err(Failed::Patience)
    }
}

impl Strategy for Optimistic {
    fn work<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Outcome> {
        Box::pin(self.do_it(work))
    }
}
