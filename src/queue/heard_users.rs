//! Which waiting users this instance has heard of, for queues with `abandon_after_seconds`.
//!
//! A poll or a tick of a stream notes the user in memory. A task writes the notes to Redis in
//! batches, each user at most once in half of `abandon_after_seconds`. A note is written before
//! the place could be taken: it is never older than that half.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{QueueService, heard_store as store};
use crate::ids::{QueueId, UserId};

const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// Users in one call.
const WRITE_PAGE_SIZE: usize = 256;

#[derive(Debug, Clone, Copy)]
struct SignOfLife {
    heard_at: Instant,
    /// When the last note was written.
    written_at: Option<Instant>,
}

type SignsByQueue = HashMap<QueueId, HashMap<UserId, SignOfLife>>;

#[derive(Debug, Default)]
pub(super) struct HeardUsers(Mutex<SignsByQueue>);

impl HeardUsers {
    fn lock(&self) -> MutexGuard<'_, SignsByQueue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a waiting user was heard of now.
    pub(super) fn record(&self, queue: &QueueId, user: UserId) {
        let now = Instant::now();
        let mut all = self.lock();
        let users = match all.get_mut(queue) {
            Some(users) => users,
            None => all.entry(queue.clone()).or_default(),
        };
        users.entry(user).or_insert(SignOfLife { heard_at: now, written_at: None }).heard_at = now;
    }

    /// The users whose notes are to be written, with the age of each note. Forgets users who were
    /// not heard of for `abandon_after`, or all of a queue without that setting.
    fn take_due(
        &self,
        queue: &QueueId,
        abandon_after: Option<Duration>,
    ) -> Vec<(UserId, Duration)> {
        let now = Instant::now();
        let mut all = self.lock();
        let Some(abandon_after) = abandon_after else {
            all.remove(queue);
            return Vec::new();
        };
        let Some(users) = all.get_mut(queue) else { return Vec::new() };
        users.retain(|_, sign| now.duration_since(sign.heard_at) < abandon_after);
        let mut due = Vec::new();
        for (user, sign) in users {
            let is_due = sign.written_at.is_none_or(|written_at| {
                sign.heard_at > written_at && now.duration_since(written_at) >= abandon_after / 2
            });
            if is_due {
                sign.written_at = Some(now);
                due.push((*user, now.duration_since(sign.heard_at)));
            }
        }
        due
    }

    /// Lets the users of a call that failed be written again.
    fn put_back(&self, queue: &QueueId, users: &[(UserId, Duration)]) {
        let mut all = self.lock();
        let Some(known) = all.get_mut(queue) else { return };
        for (user, _) in users {
            if let Some(sign) = known.get_mut(user) {
                sign.written_at = None;
            }
        }
    }
}

/// Writes the notes of all queues until `stop` is cancelled.
pub async fn run(queue: Arc<QueueService>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(WRITE_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let ids: Vec<QueueId> = queue.heard.lock().keys().cloned().collect();
        for id in ids {
            write(&queue, &id).await;
        }
    }
}

async fn write(queue: &QueueService, id: &QueueId) {
    let abandon_after = queue.settings(id).and_then(|it| it.settings.abandon_after());
    let due = queue.heard.take_due(id, abandon_after);
    for users in due.chunks(WRITE_PAGE_SIZE) {
        let written = queue.with_settings(id, || store::hear(&queue.redis, id, users)).await;
        if let Err(error) = written {
            tracing::warn!(queue = %id, %error, "noting who was heard of failed");
            queue.heard.put_back(id, users);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_is_written_once_in_half_of_the_time() {
        let heard = HeardUsers::default();
        let (queue, user): (QueueId, _) =
            ("show".parse().unwrap(), UserId::from(uuid::Uuid::nil()));
        let minute = Some(Duration::from_secs(60));
        heard.record(&queue, user);
        assert_eq!(heard.take_due(&queue, minute).len(), 1);
        heard.record(&queue, user);
        assert!(heard.take_due(&queue, minute).is_empty(), "the last note is new");
        heard.put_back(&queue, &[(user, Duration::ZERO)]);
        assert_eq!(heard.take_due(&queue, minute).len(), 1, "the call failed");
        heard.record(&queue, user);
        assert_eq!(heard.take_due(&queue, Some(Duration::ZERO)).len(), 0, "forgotten");
        heard.record(&queue, user);
        assert!(heard.take_due(&queue, None).is_empty());
        assert!(heard.lock().is_empty());
    }
}
