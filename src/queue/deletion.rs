//! Deletes a queue, or removes a user from one.
//!
//! The steps of a deletion, under the row lock of the definitions:
//! 1. Refuse it while a concert names the queue that is not archived.
//! 2. Withdraw the settings from Redis. From now on no user can join, hold seats or be admitted.
//!    A call that misses the settings waits for the lock, and then finds no queue.
//! 3. Mark the row in MySQL as deleted, and commit.
//! 4. Delete the keys in Redis.
//!
//! After a failure before the commit, the next call publishes the settings again. After a crash
//! before step 4, the keys stay until a queue of this name is created, which deletes them first.

use super::{Error, QueueService, QueueSettings, deletion_store as store, sql};
use crate::definition::{ChangePreconditions, DefinitionEtag, InUseItem, MAX_IN_USE_ITEMS};
use crate::ids::{QueueId, UserId};
use crate::mysql::{self, definitions};

impl QueueService {
    /// Deletes a queue, with `force` also while users wait or are active.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PreconditionFailed`], or [`Error::InUse`] while a concert
    /// that is not archived names the queue, seats are held or paid, or users are in the queue and
    /// `force` is false.
    pub(super) async fn delete(
        &self,
        queue: &QueueId,
        force: bool,
        preconditions: &ChangePreconditions,
    ) -> Result<QueueSettings, Error> {
        let (mut tx, version) = definitions::begin_change(&self.mysql).await?;
        let stored = sql::one(&mut tx, queue).await?.ok_or(Error::NotFound)?;
        preconditions.check(Some(&DefinitionEtag::of(queue.as_str(), &stored.settings)))?;
        let concerts = sql::concerts(&mut tx, queue, MAX_IN_USE_ITEMS).await?;
        if !concerts.is_empty() {
            return Err(Error::InUse(
                concerts
                    .into_iter()
                    .filter_map(|id| Some(InUseItem::Concert { id: id.parse().ok()? }))
                    .collect(),
            ));
        }
        let arrivals = self.withdraw(queue, force).await?;
        sql::delete(&mut tx, queue, version, arrivals).await?;
        tx.commit().await.map_err(mysql::Error::from)?;
        store::delete(&self.redis, queue).await?;
        self.reload().await?;
        Ok(stored.settings)
    }

    async fn withdraw(&self, queue: &QueueId, force: bool) -> Result<u64, Error> {
        match store::withdraw(&self.redis, queue, force).await? {
            store::WithdrawOutcome::Withdrawn { arrivals } => Ok(arrivals),
            store::WithdrawOutcome::InUse(users) => {
                let items = users.into_iter().map(|user| InUseItem::User { id: user.into() });
                Err(Error::InUse(items.collect()))
            }
        }
    }

    /// Removes a user who waits, or ends their visit. Returns whether they did either.
    pub async fn remove_user(&self, queue: &QueueId, user: UserId) -> Result<bool, Error> {
        self.find_settings(queue).await?;
        let score = store::remove(&self.redis, queue, user).await?;
        if let Some(score) = score {
            self.snapshots.of(queue).mark_vacated(score);
        }
        Ok(score.is_some())
    }
}
