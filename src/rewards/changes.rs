//! Changes of rewards: in MySQL under the row lock of the definitions, and in every partition
//! before the commit.

use std::time::Duration;

use super::{Error, Reward, RewardDefinition, RewardService, sql};
use crate::definition::{
    ChangePreconditions, ChangedDefinition, DefinitionEtag, InUseItem, MAX_IN_USE_ITEMS,
};
use crate::http::merge_patch::DefinitionChange;
use crate::ids::RewardCode;
use crate::mysql::{self, definitions};
use crate::outbox::{self, dead_letters};
use crate::partition::Partition;

/// How long a deletion waits until MySQL has all claims. Other changes wait meanwhile, five seconds
/// at most.
const DELETION_PATIENCE: Duration = Duration::from_secs(2);

impl RewardService {
    /// Creates a reward, or replaces or patches its definition. When this returns, all instances
    /// use the new definition.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every violation, [`Error::PreconditionFailed`], or
    /// [`Error::NotFound`] for a patch. Nothing has changed then.
    pub async fn change(
        &self,
        code: &RewardCode,
        change: DefinitionChange<RewardDefinition>,
        preconditions: &ChangePreconditions,
    ) -> Result<ChangedDefinition<RewardDefinition>, Error> {
        if let DefinitionChange::Replace(definition) = &change {
            definition.clone().validate(code).map_err(Error::Invalid)?;
        }
        let (mut tx, version) = definitions::begin_change(&self.mysql).await?;
        let stored = sql::load(&mut tx, code).await?.as_ref().map(RewardDefinition::from);
        let definition = change.resolve(code.as_str(), stored.as_ref(), preconditions)?;
        let reward = Reward { version, ..definition.validate(code).map_err(Error::Invalid)? };
        sql::save(&mut tx, &reward).await?;
        self.publish_to_all(code, version).await?;
        tx.commit().await.map_err(mysql::Error::from)?;
        self.reload().await?;
        Ok(ChangedDefinition { before: stored, after: RewardDefinition::from(&reward) })
    }

    /// Deletes a reward that no user has claimed.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PreconditionFailed`], [`Error::InUse`], or
    /// [`Error::NotWritten`] while MySQL lacks claims.
    pub async fn delete(
        &self,
        code: &RewardCode,
        preconditions: &ChangePreconditions,
    ) -> Result<RewardDefinition, Error> {
        let (mut tx, _) = definitions::begin_change(&self.mysql).await?;
        let reward = sql::load(&mut tx, code).await?.ok_or(Error::NotFound)?;
        let stored = RewardDefinition::from(&reward);
        preconditions.check(Some(&DefinitionEtag::of(code.as_str(), &stored)))?;
        // First stop new claims, then check. A claim that is refused now waits for the lock.
        let checked = match self.publish_to_all(code, 0).await {
            Ok(()) => self.check_unclaimed(code).await,
            Err(error) => Err(error),
        };
        if let Err(error) = checked {
            self.publish_to_all(code, reward.version).await?;
            return Err(error);
        }
        sql::delete(&mut tx, code).await?;
        tx.commit().await.map_err(mysql::Error::from)?;
        self.reload().await?;
        Ok(stored)
    }

    async fn check_unclaimed(&self, code: &RewardCode) -> Result<(), Error> {
        let all: Vec<Partition> = self.redis.keys().partitions().all().collect();
        let (redis, pool) = (&self.redis, &self.mysql);
        let is_written =
            outbox::wait_until_written(redis, pool, &self.writer, &all, DELETION_PATIENCE).await?;
        // Another connection than that of the lock, whose snapshot is older.
        let mut connection = self.mysql.acquire().await.map_err(mysql::Error::from)?;
        let granted = sql::first_granted(&mut connection, code, MAX_IN_USE_ITEMS).await?;
        if !granted.is_empty() {
            let items = granted.into_iter().map(|id| InUseItem::Claim { id });
            return Err(Error::InUse(items.collect()));
        }
        let mut has_letters = false;
        for partition in all {
            has_letters |= dead_letters::has_any(pool, partition).await?;
        }
        if is_written && !has_letters { Ok(()) } else { Err(Error::NotWritten) }
    }
}
