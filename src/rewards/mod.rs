//! Rewards: a user can claim each reward once, if the conditions on the user's facts hold. The
//! points are credited in the same step.
//!
//! A claim runs in the partition of its user, which stores the claims of the user (`claims`), the
//! facts (`facts`, and `tallies`, which the wallet's debits and refunds maintain) and the wallet.
//! One script checks the window and the conditions, records the claim, credits the points and
//! writes the history. There is no state between "claimed" and "paid" that a crash could leave
//! behind. If claims were stored with the reward, each would need two partitions, as a payment
//! does.
//!
//! For this, every partition would need the definition of every reward. Instead, a call carries the
//! definition that the instance has, with its version, and each partition stores only which version
//! can be claimed (`rewards`). An instance with an old snapshot is refused and refreshes.
//!
//! A change publishes its version to all partitions, under the row lock of the definitions, before
//! it commits. Until the commit, claims of the old version are refused and wait for the lock. So
//! once a change has been answered, no claim uses the previous definition, even if the process died
//! in between.
//!
//! MySQL stores the definitions (`rewards`), granted and refused claims (`reward_claims`, one row
//! per user, reward and reason of a refusal) and the facts (`user_facts`).
//!
//! A claim of a revocable reward keeps its points and conditions (`revocable`). The script that
//! refunds a payment evaluates them and takes the points back (`lua/lib/revoke.lua`), so a crash
//! cannot separate the refund from the revocation.
//!
//! Start reading with [`RewardService::claim`] and `lua/rewards/claim.lua`.

mod admin;
mod changes;
mod claim_admin;
mod definition;
mod error;
mod reward;
mod routes;
mod rules;
mod sql;
mod store;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt;
use sqlx::MySqlPool;
use tokio::sync::Mutex;

use crate::http::page::{self, PageCursor, PageLimit};
use crate::ids::{RewardCode, UserId};
use crate::money::Money;
use crate::mysql::{self, definitions};
use crate::outbox::event::ClaimStatus;
use crate::outbox::{self, WriterHandle};
use crate::partition::Partition;
use crate::redis::{self, Coalescer, RedisClient, ScriptCoalescer, ScriptOperation};
use crate::telemetry::Metric;

pub use admin::router as admin_router;
pub use claim_admin::AdminClaimDto;
#[cfg(test)]
pub(crate) use claim_admin::read_bodies;
pub use definition::RewardDefinition;
pub use error::Error;
pub use reward::{
    ComparisonOperator, Reward, RewardClaim, RewardCondition, RewardKind, UserFactChanges,
    UserFacts,
};
pub use routes::router;

/// The most requests that wait for one version of a reward and one partition in one instance.
const MAX_WAITING_REQUESTS: usize = 16_384;
/// How often a claim is attempted while the reward keeps changing.
const MAX_CLAIM_ATTEMPTS: u32 = 5;
/// How long a list waits until MySQL has the changes that were already answered.
const MAX_WRITE_WAIT: Duration = Duration::from_secs(1);
/// How many partitions are published to in parallel.
const MAX_PARALLEL_CALLS: usize = 32;

/// All operations on rewards. One value per process, shared by all requests.
pub struct RewardService {
    redis: RedisClient,
    mysql: MySqlPool,
    writer: WriterHandle,
    rewards: ArcSwap<HashMap<RewardCode, Arc<Reward>>>,
    /// Serializes reloads, so that an older read can't replace a newer one.
    reloading: Mutex<()>,
    lookup: definitions::DefinitionLookup,
    /// Serializes refreshes: many claims may meet a changed reward at once, and one of them asks
    /// MySQL.
    refreshing: Mutex<()>,
    claims: ScriptCoalescer<store::ClaimBatch>,
}

#[derive(Debug, Clone)]
pub struct GrantedClaim {
    pub claim: RewardClaim,
    /// The reward as it was defined at the claim.
    pub reward: Arc<Reward>,
    /// Whether the claim has reached the durability that the configuration asks for.
    pub durable: bool,
}

impl RewardService {
    /// Call [`RewardService::reload`] before serving. `limit`: the largest balance that points may
    /// lead to.
    pub fn new(redis: RedisClient, mysql: MySqlPool, writer: WriterHandle, limit: Money) -> Self {
        Self {
            rewards: ArcSwap::default(),
            reloading: Mutex::default(),
            lookup: definitions::DefinitionLookup::default(),
            refreshing: Mutex::default(),
            claims: Coalescer::new(
                ScriptOperation::new(&redis, store::ClaimBatch { limit }),
                MAX_WAITING_REQUESTS,
            ),
            redis,
            mysql,
            writer,
        }
    }

    /// The reward as of the last reload.
    pub fn reward(&self, code: &RewardCode) -> Option<Arc<Reward>> {
        self.rewards.load().get(code).cloned()
    }

    /// The reward, also when another instance has just created it.
    pub async fn find_reward(&self, code: &RewardCode) -> Result<Arc<Reward>, Error> {
        if let Some(known) = self.reward(code) {
            return Ok(known);
        }
        Box::pin(self.lookup.refresh(&self.mysql, async || self.reload().await)).await?;
        self.reward(code).ok_or(Error::NotFound)
    }

    /// All rewards, in no order.
    fn all(&self) -> Vec<Arc<Reward>> {
        self.rewards.load().values().cloned().collect()
    }

    /// Claims a reward for a user. Refused attempts are recorded in the history too.
    pub async fn claim(&self, code: &RewardCode, user: UserId) -> Result<GrantedClaim, Error> {
        let durability = self.writer.start_durability_wait();
        let outcome = self.try_claim(code, user).await;
        let label = match &outcome {
            Ok(_) => "success",
            Err(Error::AlreadyClaimed) => "already_claimed",
            Err(Error::Inactive) => "inactive",
            Err(Error::NotStarted) => "not_started",
            Err(Error::Ended) => "ended",
            Err(Error::ConditionNotMet(_)) => "condition_not_met",
            Err(Error::NotFound) => return Err(Error::NotFound),
            Err(_) => "error",
        };
        Metric::RewardClaimsTotal.counter(&[("outcome", label)]).increment(1);
        // A refused attempt has emitted an event too.
        self.writer.wake();
        let (claim, reward) = outcome?;
        let partition = self.redis.keys().partition(user.slot());
        let durable = durability.wait_until_written(&[partition]).await;
        Ok(GrantedClaim { claim, reward, durable })
    }

    async fn try_claim(
        &self,
        code: &RewardCode,
        user: UserId,
    ) -> Result<(RewardClaim, Arc<Reward>), Error> {
        let partition = self.redis.keys().partition(user.slot());
        for _ in 0..MAX_CLAIM_ATTEMPTS {
            let reward = self.find_reward(code).await?;
            let terms = store::ClaimTerms { partition, reward: reward.clone() };
            let outcome = match self.claims.submit(terms, store::ClaimRequest::new(user)).await {
                Err(redis::Error::NotPublished) => {
                    Box::pin(self.refresh(&reward, partition)).await?;
                    continue;
                }
                other => other?,
            };
            return match outcome {
                store::ClaimOutcome::Claimed { id, at } => {
                    let claim = RewardClaim {
                        id,
                        user,
                        status: ClaimStatus::Success,
                        reason: None,
                        attempts: 1,
                        claimed_at: at,
                    };
                    Ok((claim, reward))
                }
                store::ClaimOutcome::AlreadyClaimed => Err(Error::AlreadyClaimed),
                store::ClaimOutcome::Inactive => Err(Error::Inactive),
                store::ClaimOutcome::NotStarted => Err(Error::NotStarted),
                store::ClaimOutcome::Ended => Err(Error::Ended),
                store::ClaimOutcome::ConditionsNotMet(indexes) => Err(Error::ConditionNotMet(
                    indexes
                        .into_iter()
                        .filter_map(|at| reward.conditions.get(at).cloned())
                        .collect(),
                )),
                store::ClaimOutcome::BalanceLimitExceeded => Err(Error::BalanceLimitExceeded),
            };
        }
        Err(redis::Error::NotPublished.into())
    }

    /// A page of attempts to claim a reward, newest first. `user` and `status` filter them.
    pub async fn history(
        &self,
        code: &RewardCode,
        user: Option<UserId>,
        status: Option<ClaimStatus>,
        (before, limit): (PageCursor, PageLimit),
    ) -> Result<(Vec<RewardClaim>, Option<PageCursor>), Error> {
        self.find_reward(code).await?;
        match user {
            Some(user) => self.wait_until_written(user).await?,
            None => self.wait_until_all_written().await?,
        }
        let claims =
            sql::claims(&self.mysql, code, &sql::ClaimFilter { user, status, before, limit })
                .await?;
        let cursor = |claim: &RewardClaim| PageCursor { at: claim.claimed_at, id: claim.id.uuid() };
        Ok(page::cut(claims, limit, cursor))
    }

    /// Waits a moment for MySQL to have what the user's partition has recorded.
    async fn wait_until_written(&self, user: UserId) -> Result<(), Error> {
        self.wait_for(&[self.redis.keys().partition(user.slot())]).await
    }

    async fn wait_until_all_written(&self) -> Result<(), Error> {
        let all: Vec<Partition> = self.redis.keys().partitions().all().collect();
        self.wait_for(&all).await
    }

    async fn wait_for(&self, partitions: &[Partition]) -> Result<(), Error> {
        let (redis, mysql) = (&self.redis, &self.mysql);
        outbox::wait_until_written(redis, mysql, &self.writer, partitions, MAX_WRITE_WAIT).await?;
        Ok(())
    }

    /// Replaces the facts of a user. Returns whether the change has reached the durability that the
    /// configuration asks for.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every violation. Nothing has changed then.
    pub async fn set_facts(&self, user: UserId, facts: &UserFacts) -> Result<bool, Error> {
        let violations = rules::fact_violations(facts);
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        let text =
            serde_json::to_string(facts).map_err(|e| redis::Error::Protocol(e.to_string()))?;
        let durability = self.writer.start_durability_wait();
        store::set_facts(&self.redis, user, &text).await?;
        self.writer.wake();
        Ok(durability.wait_until_written(&[self.redis.keys().partition(user.slot())]).await)
    }

    /// Changes some facts of a user. Returns all facts after the change, and whether it has reached
    /// the durability that the configuration asks for.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every violation. Nothing has changed then.
    pub async fn merge_facts(
        &self,
        user: UserId,
        changes: &UserFactChanges,
    ) -> Result<(UserFacts, bool), Error> {
        let violations = rules::fact_change_violations(changes);
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        let durability = self.writer.start_durability_wait();
        let facts = store::merge_facts(&self.redis, user, changes)
            .await?
            .ok_or_else(|| Error::Invalid(vec![rules::too_many_facts()]))?;
        self.writer.wake();
        let partition = self.redis.keys().partition(user.slot());
        Ok((facts, durability.wait_until_written(&[partition]).await))
    }

    /// Publishes this version to all partitions, 0 for none.
    async fn publish_to_all(&self, code: &RewardCode, version: u64) -> Result<(), Error> {
        let all: Vec<_> = self.redis.keys().partitions().all().collect();
        let outcomes = self.publish_to(all, code, version).await;
        Ok(outcomes.into_iter().try_for_each(|(_, outcome)| outcome)?)
    }

    async fn publish_to(
        &self,
        partitions: Vec<Partition>,
        code: &RewardCode,
        version: u64,
    ) -> Vec<(Partition, Result<(), redis::Error>)> {
        let mut calls = Vec::with_capacity(partitions.len());
        for partition in partitions {
            calls.push(async move {
                (partition, store::publish(&self.redis, partition, code, version).await)
            });
        }
        futures::stream::iter(calls).buffer_unordered(MAX_PARALLEL_CALLS).collect().await
    }

    /// Replaces the snapshot with what MySQL stores.
    pub async fn reload(&self) -> Result<(), Error> {
        let _one_at_a_time = self.reloading.lock().await;
        let mut connection = self.mysql.acquire().await.map_err(mysql::Error::from)?;
        let rewards = sql::load_all(&mut connection).await?;
        let by_code =
            rewards.into_iter().map(|reward| (reward.code.clone(), Arc::new(reward))).collect();
        self.rewards.store(Arc::new(by_code));
        Ok(())
    }

    /// Publishes the committed version of a reward to all partitions and reloads this instance.
    /// Called after the partition `needed` refused the version of `stale`: the reward has changed,
    /// or Redis has lost the version. Waits for a change that is in progress.
    async fn refresh(&self, stale: &Arc<Reward>, needed: Partition) -> Result<(), Error> {
        let _one_at_a_time = self.refreshing.lock().await;
        if self.reward(&stale.code).is_some_and(|current| !Arc::ptr_eq(&current, stale)) {
            return Ok(());
        }
        let (mut tx, _) = definitions::lock(&self.mysql).await?;
        let version = sql::version(&mut tx, &stale.code).await?.ok_or(Error::NotFound)?;
        let all = self.redis.keys().partitions().all().collect();
        for (partition, outcome) in self.publish_to(all, &stale.code, version).await {
            // Other partitions may be recovering, which does not affect this claim.
            if partition == needed {
                outcome?;
            }
        }
        tx.commit().await.map_err(mysql::Error::from)?;
        self.reload().await
    }
}
