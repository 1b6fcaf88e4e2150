//! Rewards: once per user, if the user's facts say so, paid in the same step.
//!
//! A claim happens in the partition of its *user*: there lie who claimed what (`claims`), what is known of the user (`facts`, and `tallies`, which the
//! wallet's debits and refunds keep) and the wallet. So one script judges the window and the conditions, marks the claim, credits the points and writes the
//! history; there is no state between "claimed" and "paid" in which a process could die, and nothing to confirm, cancel or sweep. Had the
//! claim lain with the reward, it would have crossed partitions like a payment.
//!
//! The price is that a reward's settings are wanted in every partition. They travel with the call instead: an instance sends the version
//! that it knows, and each partition holds which version may be claimed (`rewards`), so an instance with an old snapshot claims nothing and looks again.
//! A change lays its version in all partitions under the row lock of the definitions before it commits; until the commit, and if it never comes,
//! claims of the old version wait for the lock and find out. So when a change is answered, no claim goes by what stood before.
//!
//! MySQL holds the settings (`rewards`), every attempt with its reason (`reward_claims`) and the facts (`user_facts`).

mod admin;
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
use crate::mysql::{self, definitions};
use crate::outbox::{self, WriterHandle};
use crate::partition::Partition;
use crate::redis::{self, Coalescer, RedisClient, ScriptCoalescer, ScriptOperation};
use crate::telemetry::Metric;

#[cfg(test)]
pub(crate) use admin::read_bodies;
pub use admin::router as admin_router;
pub use error::Error;
pub use reward::{ComparisonOperator, Reward, RewardClaim, RewardCondition, RewardKind, UserFacts};
pub use routes::router;
pub use rules::Flaw;

/// Requests that may wait for one reward and partition in one instance.
const MAX_WAITING: usize = 16_384;
/// How often a claim is tried against a reward that changes under it.
const TRIES: u32 = 5;
/// For how long a list waits until MySQL has what was just answered.
const PATIENCE: Duration = Duration::from_secs(1);
/// Partitions told of a change side by side.
const PARALLEL: usize = 32;

/// The façade of the room.
pub struct RewardService {
    redis: RedisClient,
    mysql: MySqlPool,
    nudge: WriterHandle,
    known: ArcSwap<HashMap<RewardCode, Arc<Reward>>>,
    /// One reading at a time: what was read first must not be kept last.
    reloading: Mutex<()>,
    /// One renewal at a time: a crowd that meets a changed reward asks MySQL once.
    renewing: Mutex<()>,
    claims: ScriptCoalescer<store::ClaimBatch>,
}

/// A claim that was granted.
#[derive(Debug, Clone)]
pub struct GrantedClaim {
    /// The line of the history.
    pub claim: RewardClaim,
    /// What was claimed, as it stood.
    pub reward: Arc<Reward>,
    /// Whether it is as durable as answers are set to be.
    pub written: bool,
}

impl RewardService {
    /// Rewards over Redis and MySQL; `nudge` wakes the writer. Call [`RewardService::reload`] before serving.
    pub fn new(redis: RedisClient, mysql: MySqlPool, nudge: WriterHandle) -> Self {
        Self {
            known: ArcSwap::default(),
            reloading: Mutex::default(),
            renewing: Mutex::default(),
            claims: Coalescer::new(ScriptOperation::new(&redis, store::ClaimBatch), MAX_WAITING),
            redis,
            mysql,
            nudge,
        }
    }

    /// A reward as this instance knows it.
    pub fn reward(&self, code: &RewardCode) -> Option<Arc<Reward>> {
        self.known.load().get(code).cloned()
    }

    /// Claims a reward for the user.
    pub async fn claim(&self, code: &RewardCode, user: UserId) -> Result<GrantedClaim, Error> {
        let follow = self.nudge.follow();
        let outcome = self.try_claim(code, user).await;
        let word = match &outcome {
            Ok(_) => "success",
            Err(Error::AlreadyClaimed) => "already_claimed",
            Err(Error::Inactive) => "inactive",
            Err(Error::NotStarted) => "not_started",
            Err(Error::Ended) => "ended",
            Err(Error::ConditionNotMet(_)) => "condition_not_met",
            Err(Error::NotFound) => return Err(Error::NotFound),
            Err(_) => "error",
        };
        Metric::RewardClaimsTotal.counter(&[("outcome", word)]).increment(1);
        // Refused attempts leave a line too.
        self.nudge.poke();
        let (claim, reward) = outcome?;
        let written = follow.written(&[self.redis.keys().partition(user.slot())]).await;
        Ok(GrantedClaim { claim, reward, written })
    }

    async fn try_claim(
        &self,
        code: &RewardCode,
        user: UserId,
    ) -> Result<(RewardClaim, Arc<Reward>), Error> {
        let partition = self.redis.keys().partition(user.slot());
        for _ in 0..TRIES {
            let reward = self.reward(code).ok_or(Error::NotFound)?;
            let terms = store::ClaimTerms { partition, reward: reward.clone() };
            let claimed = match self.claims.submit(terms, store::ClaimRequest::new(user)).await {
                Err(redis::Error::NotLaid) => {
                    Box::pin(self.renew(&reward, partition)).await?;
                    continue;
                }
                other => other?,
            };
            return match claimed {
                store::ClaimOutcome::Done { id, at } => {
                    let claim =
                        RewardClaim { id, user, success: true, reason: None, claimed_at: at };
                    Ok((claim, reward))
                }
                store::ClaimOutcome::Already => Err(Error::AlreadyClaimed),
                store::ClaimOutcome::Inactive => Err(Error::Inactive),
                store::ClaimOutcome::NotStarted => Err(Error::NotStarted),
                store::ClaimOutcome::Ended => Err(Error::Ended),
                store::ClaimOutcome::Unmet(indexes) => Err(Error::ConditionNotMet(
                    indexes
                        .into_iter()
                        .filter_map(|at| reward.conditions.get(at).cloned())
                        .collect(),
                )),
                store::ClaimOutcome::AboveLimit => Err(Error::BalanceLimitExceeded),
            };
        }
        Err(redis::Error::NotLaid.into())
    }

    /// A page of attempts to claim a reward, newest first: of one user or of all, of one status or of both.
    pub async fn history(
        &self,
        code: &RewardCode,
        user: Option<UserId>,
        success: Option<bool>,
        (before, limit): (PageCursor, PageLimit),
    ) -> Result<(Vec<RewardClaim>, Option<PageCursor>), Error> {
        if self.reward(code).is_none() {
            return Err(Error::NotFound);
        }
        let keys = self.redis.keys();
        let partitions: Vec<Partition> = match user {
            Some(user) => vec![keys.partition(user.slot())],
            None => keys.partitions().all().collect(),
        };
        outbox::written(&self.redis, &self.mysql, &self.nudge, &partitions, PATIENCE).await?;
        let claims =
            sql::claims(&self.mysql, code, &sql::ClaimFilter { user, success, before, limit })
                .await?;
        let place = |claim: &RewardClaim| PageCursor { at: claim.claimed_at, id: claim.id.uuid() };
        Ok(page::cut(claims, limit, place))
    }

    /// Sets what is known of a user, in place of all that was known before. Answers whether that is as durable as answers are set to be.
    ///
    /// # Errors
    /// [`Error::Unsound`] with every fact that may not be set; then nothing has changed.
    pub async fn set_facts(&self, user: UserId, facts: &UserFacts) -> Result<bool, Error> {
        let flaws = rules::fact_flaws(facts);
        if !flaws.is_empty() {
            return Err(Error::Unsound(flaws));
        }
        let text =
            serde_json::to_string(facts).map_err(|e| redis::Error::Protocol(e.to_string()))?;
        let follow = self.nudge.follow();
        store::set_facts(&self.redis, user, &text).await?;
        self.nudge.poke();
        Ok(follow.written(&[self.redis.keys().partition(user.slot())]).await)
    }

    /// Changes a reward, or makes it. When this returns, the change holds on every instance.
    ///
    /// # Errors
    /// [`Error::Unsound`] with every field that is not; then nothing has changed.
    pub async fn put(&self, mut reward: Reward) -> Result<(), Error> {
        let flaws = rules::flaws(&reward);
        if !flaws.is_empty() {
            return Err(Error::Unsound(flaws));
        }
        let (mut tx, version) = definitions::begin_change(&self.mysql).await?;
        reward.version = version;
        sql::put(&mut tx, &reward).await?;
        self.lay_everywhere(&reward).await?;
        tx.commit().await.map_err(mysql::Error::from)?;
        self.reload().await
    }

    async fn lay_everywhere(&self, reward: &Reward) -> Result<(), Error> {
        let all: Vec<_> = self.redis.keys().partitions().all().collect();
        let laid = self.lay(all, &reward.code, reward.version).await;
        Ok(laid.into_iter().try_for_each(|(_, outcome)| outcome)?)
    }

    async fn lay(
        &self,
        partitions: Vec<Partition>,
        code: &RewardCode,
        version: u64,
    ) -> Vec<(Partition, Result<(), redis::Error>)> {
        let mut lays = Vec::with_capacity(partitions.len());
        for partition in partitions {
            lays.push(async move {
                (partition, store::lay(&self.redis, partition, code, version).await)
            });
        }
        futures::stream::iter(lays).buffer_unordered(PARALLEL).collect().await
    }

    /// Reads all rewards from MySQL.
    pub async fn reload(&self) -> Result<(), Error> {
        let _one_at_a_time = self.reloading.lock().await;
        let mut connection = self.mysql.acquire().await.map_err(mysql::Error::from)?;
        let rewards = sql::all(&mut connection).await?;
        let known =
            rewards.into_iter().map(|reward| (reward.code.clone(), Arc::new(reward))).collect();
        self.known.store(Arc::new(known));
        Ok(())
    }

    /// Brings this instance to the committed version of a reward, and the partitions too, after one of them had another than `stale`: it was
    /// changed meanwhile, or Redis lost it. Waits for a change that is under way.
    async fn renew(&self, stale: &Arc<Reward>, needed: Partition) -> Result<(), Error> {
        let _one_at_a_time = self.renewing.lock().await;
        if self.reward(&stale.code).is_some_and(|known| !Arc::ptr_eq(&known, stale)) {
            return Ok(());
        }
        let (mut tx, _) = definitions::lock(&self.mysql).await?;
        let version = sql::version(&mut tx, &stale.code).await?.ok_or(Error::NotFound)?;
        let all = self.redis.keys().partitions().all().collect();
        for (partition, outcome) in self.lay(all, &stale.code, version).await {
            // Another partition may be recovering; that is its users' trouble alone.
            if partition == needed {
                outcome?;
            }
        }
        tx.commit().await.map_err(mysql::Error::from)?;
        self.reload().await
    }
}
