//! Coupons: first come, first served, one for each user, never more than the quota.
//!
//! A coupon is stored in the partition of its id. Redis stores the published settings
//! (`c:settings`), the issues (`c:issues`, user → issue) and what payments do with the issues
//! (`c:uses`, `coupon_ops`). Ownership, record and count of the issues are in one key, so they
//! can't disagree, and an issue costs one write. MySQL stores the settings (`coupons`), which are
//! authoritative, and, through the outbox, every issue (`coupon_issues`).
//!
//! One script checks the window, the quota and the user, and issues to up to 256 users in one call,
//! so any number of instances together issue exactly the quota. A user who asks again gets the same
//! issue. Once a coupon is sold out, users without one are refused from memory ([`winners`]).
//!
//! No call takes an issue away from its user. Operators can raise the quota, lower it to the number
//! of issues, and end the window early. Once such a change has been answered, all instances apply
//! it, also those that answered "sold out" from memory.
//!
//! Settings change under the row lock of the definitions. A restriction (a smaller quota, an
//! earlier end) is published before the commit. A larger quota is published after it: issues made
//! under a change that MySQL then refuses could not be taken back. When a crash leaves settings
//! unpublished, the next call that finds them missing publishes them, or the next instance that
//! starts or sees a new version of the definitions.
//!
//! Start reading with [`CouponService::issue`] and `lua/coupons/issue.lua`. [`redemption`] is the
//! interface to payments.

mod admin;
mod changes;
mod coupon;
mod definition;
mod error;
mod publish;
mod redemption;
mod routes;
mod rules;
mod sql;
mod store;
mod unwritten_store;

mod winners;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex as Lock};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::{StreamExt, TryStreamExt};
use sqlx::MySqlPool;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::http::page::{self, PageCursor, PageLimit};
use crate::ids::{CouponId, UserId};
use crate::money::CurrencyCode;
use crate::mysql;
use crate::mysql::definitions::DefinitionLookup;
use crate::outbox::{self, WriterHandle};
use crate::partition::Partition;
use crate::redis::{
    self, Coalescer, PartitionNamesBatch, RedisClient, ScriptCoalescer, ScriptOperation,
};
use crate::telemetry::Metric;

#[cfg(test)]
pub(crate) use admin::read_bodies;
pub use admin::router as admin_router;
pub use coupon::{Coupon, CouponCounts, CouponIssue, CouponRedemption, RedemptionOutcome};
pub use definition::CouponDefinition;
pub use error::Error;

pub use routes::{CouponIssueDto, router};
pub use rules::CouponStatus;

/// The most requests that wait for one coupon in one instance.
const MAX_WAITING_REQUESTS: usize = 16_384;
/// How often tombstones whose retention is over are deleted.
const PURGE_INTERVAL: Duration = Duration::from_secs(30);
/// How often the gauges of issues and quotas are updated.
const METRICS_INTERVAL: Duration = Duration::from_secs(5);
/// How many coupons one update of the gauges covers. Each costs one call to Redis.
const MAX_COUPONS_IN_METRICS: usize = 256;
/// How long an operator's list waits until MySQL has the issues that were already answered.
const MAX_WRITE_WAIT: Duration = Duration::from_secs(1);
/// A coupon that ended this long ago has ended, even if the clock of this machine is hours wrong.
const SURELY_ENDED_AFTER: chrono::TimeDelta = chrono::TimeDelta::days(2);
/// How many calls are made in parallel for the issues of one user.
const MAX_PARALLEL_CALLS: usize = 32;

type CouponsById = HashMap<CouponId, Arc<Coupon>>;

#[derive(Debug, Clone)]
pub struct IssuedCoupon {
    pub issue: CouponIssue,
    /// Whether this call created the issue.
    pub is_new: bool,
    /// Whether the issue has reached the durability that the configuration asks for.
    pub durable: bool,
}

/// All operations on coupons. One value per process, shared by all requests.
pub struct CouponService {
    redis: RedisClient,
    mysql: MySqlPool,
    writer: WriterHandle,
    currency: CurrencyCode,
    coupons: ArcSwap<CouponsById>,
    /// Serializes reloads, so that an older read can't replace a newer one.
    reloading: Mutex<()>,
    lookup: DefinitionLookup,
    winners: Arc<winners::WinnersCache>,
    /// Serializes publications: many requests may meet an unpublished coupon at once, and one of
    /// them asks MySQL.
    publishing: Mutex<()>,
    /// Coupons whose published settings may differ from those in MySQL.
    unverified: Lock<HashSet<CouponId>>,
    issues: ScriptCoalescer<store::IssueBatch>,
    own_issue: ScriptCoalescer<store::OwnIssueBatch>,
    unwritten: Coalescer<PartitionNamesBatch<CouponId>>,
    counts: ScriptCoalescer<store::CouponCountsBatch>,
}

impl CouponService {
    /// Call [`CouponService::reload`] before serving.
    pub fn new(
        redis: RedisClient,
        mysql: MySqlPool,
        writer: WriterHandle,
        currency: CurrencyCode,
    ) -> Self {
        Self {
            coupons: ArcSwap::default(),
            reloading: Mutex::default(),
            lookup: DefinitionLookup::default(),
            winners: Arc::new(winners::WinnersCache::new(redis.clone())),
            publishing: Mutex::default(),
            unverified: Lock::default(),
            issues: Coalescer::new(
                ScriptOperation::new(&redis, store::IssueBatch),
                MAX_WAITING_REQUESTS,
            ),
            own_issue: Coalescer::new(
                ScriptOperation::new(&redis, store::OwnIssueBatch),
                MAX_WAITING_REQUESTS,
            ),
            unwritten: Coalescer::new(
                unwritten_store::unwritten_coupons(&redis),
                MAX_WAITING_REQUESTS,
            ),
            counts: Coalescer::new(
                ScriptOperation::new(&redis, store::CouponCountsBatch),
                MAX_WAITING_REQUESTS,
            ),
            redis,
            mysql,
            writer,
            currency,
        }
    }

    /// The coupon as of the last reload.
    pub fn coupon(&self, id: &CouponId) -> Option<Arc<Coupon>> {
        self.coupons.load().get(id).cloned()
    }

    /// The coupon, also when another instance has just created it.
    async fn find_definition(&self, id: &CouponId) -> Result<Arc<Coupon>, Error> {
        if let Some(known) = self.coupon(id) {
            return Ok(known);
        }
        Box::pin(self.lookup.refresh(&self.mysql, async || self.reload().await)).await?;
        self.coupon(id).ok_or(Error::NotFound)
    }

    /// All coupons, in no order.
    fn all(&self) -> Vec<Arc<Coupon>> {
        self.coupons.load().values().cloned().collect()
    }

    /// Issues a coupon to the user, or returns the issue that they have already.
    pub async fn issue(&self, id: &CouponId, user: UserId) -> Result<IssuedCoupon, Error> {
        self.find_definition(id).await?;
        if self.winners.is_refused(id, user) {
            count_outcome("sold_out");
            return Err(Error::SoldOut);
        }
        let durability = self.writer.start_durability_wait();
        let outcome = self
            .with_settings(id, || {
                self.issues.submit(id.clone(), store::IssueRequest::new(id, user))
            })
            .await?;
        let (label, result) = match outcome {
            store::IssueOutcome::Issued { issue, is_new: true } => {
                self.writer.wake();
                ("issued", Ok((issue, true)))
            }
            store::IssueOutcome::Issued { issue, is_new: false } => {
                ("repeated", Ok((issue, false)))
            }
            store::IssueOutcome::SoldOut => {
                self.winners.start_loading(id);
                ("sold_out", Err(Error::SoldOut))
            }
            store::IssueOutcome::NotStarted => ("not_started", Err(Error::NotStarted)),
            store::IssueOutcome::Ended => ("ended", Err(Error::Ended)),
        };
        count_outcome(label);
        let (issue, is_new) = result?;
        let partition = self.redis.keys().partition(id.slot());
        let durable = durability.wait_until_written(&[partition]).await;
        Ok(IssuedCoupon { issue, is_new, durable })
    }

    /// A coupon with its current counts.
    pub async fn find(&self, id: &CouponId) -> Result<(Arc<Coupon>, CouponCounts), Error> {
        let coupon = self.find_definition(id).await?;
        let counts = self.with_settings(id, || self.counts.submit(id.clone(), ())).await?;
        Ok((coupon, counts))
    }

    /// A page of the user's issues, newest first. Of coupons that MySQL does not have completely
    /// yet, the issue is read from Redis.
    pub async fn issues_of_user(
        &self,
        user: UserId,
        before: PageCursor,
        limit: PageLimit,
    ) -> Result<(Vec<CouponIssue>, Option<PageCursor>), Error> {
        let keys = self.redis.keys();
        let partitions: HashSet<Partition> =
            self.coupons.load().keys().map(|coupon| keys.partition(coupon.slot())).collect();
        let mut lists = Vec::new();
        for partition in partitions {
            lists.push(self.unwritten.submit(partition, ()));
        }
        // Redis first: what is written in the meantime is in MySQL by the second read.
        let unwritten: Vec<Arc<Vec<CouponId>>> =
            futures::stream::iter(lists).buffer_unordered(MAX_PARALLEL_CALLS).try_collect().await?;
        let mut queries = Vec::new();
        for coupon in unwritten.iter().flat_map(|coupons| coupons.iter()) {
            queries.push(self.own_issue.submit(coupon.clone(), user));
        }
        let from_redis: Vec<Option<CouponIssue>> = futures::stream::iter(queries)
            .buffer_unordered(MAX_PARALLEL_CALLS)
            .try_collect()
            .await?;
        let mut all: HashMap<_, _> = sql::issues_of_user(&self.mysql, user, before, limit)
            .await?
            .into_iter()
            .map(|issue| (issue.id, issue))
            .collect();
        all.extend(
            from_redis
                .into_iter()
                .flatten()
                .filter(|issue| cursor_of(issue) < before)
                .map(|issue| (issue.id, issue)),
        );
        let mut all: Vec<_> = all.into_values().collect();
        all.sort_unstable_by_key(|issue| std::cmp::Reverse(cursor_of(issue)));
        Ok(page::cut(all, limit, cursor_of))
    }

    /// A page of a coupon's issues, newest first.
    pub async fn issues(
        &self,
        id: &CouponId,
        before: PageCursor,
        limit: PageLimit,
    ) -> Result<(Vec<CouponIssue>, Option<PageCursor>), Error> {
        self.find_definition(id).await?;
        let partition = self.redis.keys().partition(id.slot());
        outbox::wait_until_written(
            &self.redis,
            &self.mysql,
            &self.writer,
            &[partition],
            MAX_WRITE_WAIT,
        )
        .await?;
        Ok(page::cut(
            sql::issues_of_coupon(&self.mysql, id, before, limit).await?,
            limit,
            cursor_of,
        ))
    }

    /// Replaces the snapshot with what MySQL stores, and marks the changed coupons as unverified.
    pub async fn reload(&self) -> Result<(), Error> {
        let _one_at_a_time = self.reloading.lock().await;
        let mut connection = self.mysql.acquire().await.map_err(mysql::Error::from)?;
        let coupons = sql::load_all(&mut connection).await?;
        let before = self.coupons.load();
        for coupon in &coupons {
            if before.get(&coupon.id).is_none_or(|old| old.version != coupon.version) {
                self.mark_unverified(&coupon.id);
            }
        }
        let by_id =
            coupons.into_iter().map(|coupon| (coupon.id.clone(), Arc::new(coupon))).collect();
        self.coupons.store(Arc::new(by_id));
        Ok(())
    }

    /// Renews the copies in the winners cache, verifies published settings, updates the metrics and
    /// deletes old tombstones, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut renewals = tokio::time::interval(winners::RENEWAL_INTERVAL);
        renewals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut purges = tokio::time::interval(PURGE_INTERVAL);
        let mut metrics = tokio::time::interval(METRICS_INTERVAL);
        metrics.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = renewals.tick() => {
                    self.winners.renew().await;
                    self.verify_published().await;
                }
                _ = purges.tick() => self.purge().await,
                _ = metrics.tick() => self.update_metrics().await,
            }
        }
    }

    /// Updates the gauges of the coupons that are published. While Redis is unavailable they keep
    /// their values.
    #[expect(clippy::disallowed_methods, reason = "clocks differ by less than two days")]
    async fn update_metrics(&self) {
        let recent = chrono::Utc::now() - SURELY_ENDED_AFTER;
        let coupons = self.coupons.load_full();
        for coupon in coupons
            .values()
            .filter(|coupon| coupon.issue_ends_at > recent)
            .take(MAX_COUPONS_IN_METRICS)
        {
            let Ok(counts) = store::counts(&self.redis, &coupon.id).await else { continue };
            let labels = [("coupon", coupon.id.as_str())];
            Metric::CouponIssued.gauge(&labels).set(counts.issued as f64);
            if let Some(quota) = coupon.total_quantity {
                Metric::CouponQuota.gauge(&labels).set(quota as f64);
            }
        }
    }

    /// Deletes old tombstones. It also marks all recent coupons as unverified, because a process
    /// that died during a change may have left settings incomplete.
    #[expect(clippy::disallowed_methods, reason = "clocks differ by less than two days")]
    async fn purge(&self) {
        let recent = chrono::Utc::now() - SURELY_ENDED_AFTER;
        for coupon in self.coupons.load().values().filter(|coupon| coupon.issue_ends_at > recent) {
            self.mark_unverified(&coupon.id);
        }
        for partition in self.redis.keys().partitions().all() {
            match store::purge_expired(&self.redis, partition).await {
                Ok(_) | Err(redis::Error::Recovering(_)) => {}
                Err(error) => {
                    tracing::warn!(%partition, %error, "could not delete old coupon tombstones")
                }
            }
        }
    }
}

fn cursor_of(issue: &CouponIssue) -> PageCursor {
    PageCursor { at: issue.issued_at, id: issue.id.uuid() }
}

fn count_outcome(outcome: &'static str) {
    Metric::CouponIssuesTotal.counter(&[("outcome", outcome)]).increment(1);
}
