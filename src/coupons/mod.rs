//! Coupons: for the first who ask, one each, never more than there are.
//!
//! A coupon lives in the partition of its name. Redis holds the settings as laid (`c:settings`), who has one (`c:issues`, user → issue: the set, the
//! records and the count in one key, so that they can't disagree and an issue costs one write) and what payments do with them
//! (`c:uses`, `coupon_ops`). MySQL holds the settings (`coupons`), which are the truth, and every issue (`coupon_issues`), through the outbox.
//!
//! One script checks the window, the quota and the user, and issues, for up to 256 users a call; so any number of instances issue exactly the
//! quota. A winner who asks again gets the same issue for ever. Once sold out, losers are answered from memory ([`winners`]).
//!
//! No call takes an issue away from its user. What operators can do is raise the quota, lower it to what is issued, and end early; when such a change is
//! answered, it holds on every instance, also on those that answered "sold out" from memory.
//!
//! Settings change under the row lock of the definitions. What takes away (a smaller quota, an earlier end) is laid before the commit; a
//! larger quota only after it, since what was issued on a change that MySQL then refused could not be taken back. Whatever a crash
//! leaves half-laid is laid again by whoever finds it missing, or by the next instance that starts or sees the definitions move.

mod admin;
mod coupon;
mod error;
mod routes;
mod rules;
mod sql;
mod store;
mod uses;
mod winners;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::{StreamExt, TryStreamExt};
use sqlx::MySqlPool;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::http::page::{self, PageCursor, PageLimit};
use crate::ids::{CouponId, UserId};
use crate::mysql::{self, definitions};
use crate::outbox::{self, WriterHandle};
use crate::redis::{self, Coalescer, RedisClient, ScriptCoalescer, ScriptOperation};
use crate::telemetry::Metric;

#[cfg(test)]
pub(crate) use admin::read_bodies;
pub use admin::router as admin_router;
pub use coupon::{Coupon, CouponCounts, CouponIssue};
pub use error::Error;
pub use routes::router;
pub use rules::{CouponStatus, Flaw};
pub use uses::{CouponRedemption, RedemptionOutcome};

/// Requests that may wait for one coupon in one instance.
const MAX_WAITING: usize = 16_384;
/// How often tombstones that were kept long enough are dropped.
const TIDY: Duration = Duration::from_secs(30);
/// How often the metrics are told how coupons stand.
const TELL: Duration = Duration::from_secs(5);
/// Coupons told in one turn; more would be as many calls of Redis.
const TOLD: usize = 256;
/// For how long an operator's list waits until MySQL has what was just issued.
const PATIENCE: Duration = Duration::from_secs(1);
/// An issue is in MySQL for sure once its coupon ended so long ago, however wrong this machine's clock.
const WRITTEN: chrono::TimeDelta = chrono::TimeDelta::days(2);
/// Coupons asked side by side for one user's issues.
const PARALLEL: usize = 32;

type KnownCoupons = HashMap<CouponId, Arc<Coupon>>;

/// A coupon in the hands of the one who asked for it.
#[derive(Debug, Clone)]
pub struct IssuedCoupon {
    /// The issue.
    pub issue: CouponIssue,
    /// Whether it is new.
    pub fresh: bool,
    /// Whether it is as durable as answers are set to be.
    pub written: bool,
}

/// The façade of the room.
pub struct CouponService {
    redis: RedisClient,
    mysql: MySqlPool,
    nudge: WriterHandle,
    known: ArcSwap<KnownCoupons>,
    /// One reading at a time: what was read first must not be kept last.
    reloading: Mutex<()>,
    winners: Arc<winners::WinnersCache>,
    /// One laying at a time: a crowd that meets a coupon which is not laid asks MySQL once.
    laying: Mutex<()>,
    /// Coupons that changed and are not yet seen to be laid as they are in MySQL.
    unsure: Lock<HashSet<CouponId>>,
    issues: ScriptCoalescer<store::IssueBatch>,
    mine: ScriptCoalescer<store::OwnIssueBatch>,
    counts: ScriptCoalescer<store::CouponCountsBatch>,
}

impl CouponService {
    /// Coupons over Redis and MySQL; `nudge` wakes the writer. Call [`CouponService::reload`] before serving.
    pub fn new(redis: RedisClient, mysql: MySqlPool, nudge: WriterHandle) -> Self {
        Self {
            known: ArcSwap::default(),
            reloading: Mutex::default(),
            winners: Arc::new(winners::WinnersCache::new(redis.clone())),
            laying: Mutex::default(),
            unsure: Lock::default(),
            issues: Coalescer::new(ScriptOperation::new(&redis, store::IssueBatch), MAX_WAITING),
            mine: Coalescer::new(ScriptOperation::new(&redis, store::OwnIssueBatch), MAX_WAITING),
            counts: Coalescer::new(
                ScriptOperation::new(&redis, store::CouponCountsBatch),
                MAX_WAITING,
            ),
            redis,
            mysql,
            nudge,
        }
    }

    /// A coupon as this instance knows it.
    pub fn coupon(&self, id: &CouponId) -> Option<Arc<Coupon>> {
        self.known.load().get(id).cloned()
    }

    /// Gives the user a coupon, or the one that they have.
    pub async fn issue(&self, id: &CouponId, user: UserId) -> Result<IssuedCoupon, Error> {
        if !self.known.load().contains_key(id) {
            return Err(Error::NotFound);
        }
        if self.winners.refuse(id, user) {
            count("sold_out");
            return Err(Error::SoldOut);
        }
        let follow = self.nudge.follow();
        let issued = self
            .with_settings(id, || {
                self.issues.submit(id.clone(), store::IssueRequest::new(id, user))
            })
            .await?;
        let (word, outcome) = match issued {
            store::IssueOutcome::Given { issue, fresh: true } => {
                self.nudge.poke();
                ("issued", Ok((issue, true)))
            }
            store::IssueOutcome::Given { issue, fresh: false } => ("repeated", Ok((issue, false))),
            store::IssueOutcome::SoldOut => {
                self.winners.learn(id);
                ("sold_out", Err(Error::SoldOut))
            }
            store::IssueOutcome::NotStarted => ("not_started", Err(Error::NotStarted)),
            store::IssueOutcome::Ended => ("ended", Err(Error::Ended)),
        };
        count(word);
        let (issue, fresh) = outcome?;
        let written = follow.written(&[self.redis.keys().partition(id.slot())]).await;
        Ok(IssuedCoupon { issue, fresh, written })
    }

    /// A coupon and how it stands.
    pub async fn find(&self, id: &CouponId) -> Result<(Arc<Coupon>, CouponCounts), Error> {
        let coupon = self.coupon(id).ok_or(Error::NotFound)?;
        let counts = self.with_settings(id, || self.counts.submit(id.clone(), ())).await?;
        Ok((coupon, counts))
    }

    /// A page of the user's issues, newest first: what MySQL has, and what is on its way there.
    #[expect(clippy::disallowed_methods, reason = "two days are more than clocks differ by")]
    pub async fn issues_of(
        &self,
        user: UserId,
        before: PageCursor,
        limit: PageLimit,
    ) -> Result<(Vec<CouponIssue>, Option<PageCursor>), Error> {
        let recent = chrono::Utc::now() - WRITTEN;
        let coupons = self.known.load_full();
        let fresh: Vec<_> = coupons
            .values()
            .filter(|coupon| coupon.issue_ends_at > recent)
            .map(|coupon| self.mine.submit(coupon.id.clone(), user))
            .collect();
        let asked = futures::stream::iter(fresh);
        // Redis first: what it gives up while it is asked, MySQL has at the later moment.
        let fresh: Vec<Option<CouponIssue>> =
            asked.buffer_unordered(PARALLEL).try_collect().await?;
        let mut all: HashMap<_, _> = sql::of_user(&self.mysql, user, before, limit)
            .await?
            .into_iter()
            .map(|issue| (issue.id, issue))
            .collect();
        all.extend(
            fresh
                .into_iter()
                .flatten()
                .filter(|issue| place(issue) < before)
                .map(|issue| (issue.id, issue)),
        );
        let mut all: Vec<_> = all.into_values().collect();
        all.sort_unstable_by_key(|issue| std::cmp::Reverse(place(issue)));
        Ok(page::cut(all, limit, place))
    }

    /// A page of a coupon's issues, newest first.
    pub async fn issues(
        &self,
        id: &CouponId,
        before: PageCursor,
        limit: PageLimit,
    ) -> Result<(Vec<CouponIssue>, Option<PageCursor>), Error> {
        if self.coupon(id).is_none() {
            return Err(Error::NotFound);
        }
        let partition = self.redis.keys().partition(id.slot());
        outbox::written(&self.redis, &self.mysql, &self.nudge, &[partition], PATIENCE).await?;
        Ok(page::cut(sql::of_coupon(&self.mysql, id, before, limit).await?, limit, place))
    }

    /// Changes a coupon, or makes it. When this returns, the change holds on every instance.
    ///
    /// # Errors
    /// [`Error::Unsound`] with every field that is not; [`Error::InUse`] when more are issued than the quota. Then nothing has changed.
    pub async fn put(&self, mut coupon: Coupon) -> Result<(), Error> {
        let flaws = rules::flaws(&coupon);
        if !flaws.is_empty() {
            return Err(Error::Unsound(flaws));
        }
        let (mut tx, version) = definitions::begin_change(&self.mysql).await?;
        coupon.version = version;
        let before = sql::one(&mut tx, &coupon.id).await?;
        sql::put(&mut tx, &coupon).await?;
        if let Err(error) = self.lay_in_change(before.as_ref(), &coupon).await {
            self.forget(&coupon.id);
            return Err(error);
        }
        if let Err(error) = tx.commit().await {
            // What became of the commit is not known. What is laid takes away at most, until MySQL is asked again.
            self.forget(&coupon.id);
            return Err(mysql::Error::from(error).into());
        }
        self.reload().await?;
        let known_in_ms = self.lay(&coupon.id).await?;
        tokio::time::sleep(Duration::from_millis(known_in_ms)).await;
        Ok(())
    }

    /// Lays what a change takes away, before it is committed. The version 0 says that this is not the whole of it.
    async fn lay_in_change(&self, before: Option<&Coupon>, after: &Coupon) -> Result<(), Error> {
        let Some(before) = before else { return Ok(()) };
        let mut first = Coupon { version: 0, ..after.clone() };
        if rules::raises(before, after) {
            first.total_quantity = before.total_quantity;
        }
        match store::lay(&self.redis, &first, winners::HOLD_MS).await? {
            store::CouponPublishOutcome::Done { .. } => Ok(()),
            store::CouponPublishOutcome::InUse { issued } => Err(Error::InUse(issued)),
        }
    }

    /// Reads all coupons from MySQL, and marks those that changed to be looked at in Redis.
    pub async fn reload(&self) -> Result<(), Error> {
        let _one_at_a_time = self.reloading.lock().await;
        let mut connection = self.mysql.acquire().await.map_err(mysql::Error::from)?;
        let coupons = sql::all(&mut connection).await?;
        let before = self.known.load();
        for coupon in &coupons {
            if before.get(&coupon.id).is_none_or(|known| known.version != coupon.version) {
                self.forget(&coupon.id);
            }
        }
        let known =
            coupons.into_iter().map(|coupon| (coupon.id.clone(), Arc::new(coupon))).collect();
        self.known.store(Arc::new(known));
        Ok(())
    }

    /// Marks a coupon whose settings may not be laid as they are in MySQL.
    fn forget(&self, id: &CouponId) {
        self.unsure.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
    }

    /// Lays the settings as MySQL has them, unless they are. Answers in how many milliseconds every instance knows.
    async fn lay(&self, id: &CouponId) -> Result<u64, Error> {
        let _one_at_a_time = self.laying.lock().await;
        let (mut tx, _) = definitions::lock(&self.mysql).await?;
        let coupon = sql::one(&mut tx, id).await?.ok_or(Error::NotFound)?;
        let laid = match store::counts(&self.redis, id).await {
            Ok(counts) => counts.version == coupon.version,
            Err(redis::Error::NotLaid) => false,
            Err(error) => return Err(error.into()),
        };
        let known_in_ms = if laid { 0 } else { self.lay_committed(coupon).await? };
        tx.commit().await.map_err(mysql::Error::from)?;
        Ok(known_in_ms)
    }

    async fn lay_committed(&self, coupon: Coupon) -> Result<u64, Error> {
        match store::lay(&self.redis, &coupon, winners::HOLD_MS).await? {
            store::CouponPublishOutcome::Done { known_in_ms } => Ok(known_in_ms),
            store::CouponPublishOutcome::InUse { issued } => {
                tracing::error!(coupon = %coupon.id, issued, quota = coupon.total_quantity, "more are issued than the quota");
                let full = Coupon { total_quantity: Some(issued), ..coupon };
                store::lay(&self.redis, &full, winners::HOLD_MS).await?;
                Ok(0)
            }
        }
    }

    /// Runs a call, and once more after laying the settings when Redis misses them.
    async fn with_settings<T, F>(&self, id: &CouponId, call: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, redis::Error>>,
    {
        match call().await {
            Err(redis::Error::NotLaid) => {
                Box::pin(self.lay_missing(id)).await?;
                Ok(call().await?)
            }
            other => Ok(other?),
        }
    }

    /// As [`CouponService::lay`], but does not trouble MySQL when somebody else has laid them meanwhile.
    async fn lay_missing(&self, id: &CouponId) -> Result<(), Error> {
        {
            let _after_those_before = self.laying.lock().await;
            match store::counts(&self.redis, id).await {
                Err(redis::Error::NotLaid) => {}
                other => return Ok(other.map(drop)?),
            }
        }
        self.lay(id).await.map(drop)
    }

    /// Keeps the copies of winners fresh, lays what changed where nobody else did, and drops old tombstones, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut renewals = tokio::time::interval(winners::RENEW);
        renewals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut tidy = tokio::time::interval(TIDY);
        let mut tell = tokio::time::interval(TELL);
        tell.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = renewals.tick() => {
                    self.winners.renew().await;
                    self.make_sure().await;
                }
                _ = tidy.tick() => self.tidy().await,
                _ = tell.tick() => self.tell().await,
            }
        }
    }

    /// Tells the metrics how the coupons stand that somebody has asked for. Where Redis is away the figures stay as they are.
    #[expect(clippy::disallowed_methods, reason = "two days are more than clocks differ by")]
    async fn tell(&self) {
        let recent = chrono::Utc::now() - WRITTEN;
        let coupons = self.known.load_full();
        for coupon in coupons.values().filter(|coupon| coupon.issue_ends_at > recent).take(TOLD) {
            let Ok(counts) = store::counts(&self.redis, &coupon.id).await else { continue };
            let labels = [("coupon", coupon.id.as_str())];
            Metric::CouponIssued.gauge(&labels).set(counts.issued as f64);
            if let Some(quota) = coupon.total_quantity {
                Metric::CouponQuota.gauge(&labels).set(quota as f64);
            }
        }
    }

    async fn make_sure(&self) {
        let unsure =
            std::mem::take(&mut *self.unsure.lock().unwrap_or_else(PoisonError::into_inner));
        for id in unsure {
            let committed = self.coupon(&id).map(|coupon| coupon.version);
            let outcome = match store::counts(&self.redis, &id).await {
                Ok(counts) if committed.is_none_or(|version| version <= counts.version) => Ok(()),
                // A coupon that nobody asked for yet is laid by the first who does.
                Err(redis::Error::NotLaid) => Ok(()),
                Ok(_) => self.lay(&id).await.map(drop),
                Err(error) => Err(error.into()),
            };
            match outcome {
                Ok(()) | Err(Error::NotFound) => {}
                Err(error) => {
                    tracing::debug!(coupon = %id, %error, "a coupon's settings could not be compared yet");
                    self.forget(&id);
                }
            }
        }
    }

    /// Drops old tombstones. Looks at every coupon anew besides: a process that died within a change may have left one half-laid.
    #[expect(clippy::disallowed_methods, reason = "two days are more than clocks differ by")]
    async fn tidy(&self) {
        let recent = chrono::Utc::now() - WRITTEN;
        for coupon in self.known.load().values().filter(|coupon| coupon.issue_ends_at > recent) {
            self.forget(&coupon.id);
        }
        for partition in self.redis.keys().partitions().all() {
            match store::tidy(&self.redis, partition).await {
                Ok(_) | Err(redis::Error::Recovering(_)) => {}
                Err(error) => tracing::warn!(%partition, %error, "tidying coupons"),
            }
        }
    }
}

/// Where an issue stands in lists.
fn place(issue: &CouponIssue) -> PageCursor {
    PageCursor { at: issue.issued_at, id: issue.id.uuid() }
}

fn count(outcome: &'static str) {
    Metric::CouponIssuesTotal.counter(&[("outcome", outcome)]).increment(1);
}
