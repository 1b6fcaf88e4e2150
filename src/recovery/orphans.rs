//! Settles what crossed partitions when one of them was laid back.
//!
//! A payment has its record in the queue's partition, its money in the user's and its coupon in the coupon's. MySQL has each of them up to that partition's own checkpoint,
//! and a partition that was not lost goes on from where it is. So after a loss the three may disagree. Each disagreement has one end, and one op by which
//! it is brought there, so any number of instances may bring it there, twice or late:
//!
//! | found | so | by |
//! |:--|:--|:--|
//! | a debit, and no payment of it in MySQL or Redis, or one that was turned back | it is given back. Nobody can confirm it any more: what is not there confirms nothing, and an attempt that begins later under the same name meets the tombstone that this leaves | `wallet/refund` |
//! | a payment that is confirmed, and no debit | it is debited again, with the lost charge where the balance does not suffice. It was debited once: nothing is confirmed before. The op tells whether it still is | `recovery/redebit` |
//! | a payment that was cancelled, and its money not given back | it is given back, once by the cancelling's op | `wallet/give_back` |
//! | a payment that is confirmed, and its money was given back | the cancelling goes on from there: money is given back only after its commit point | `recovery/recancel` |
//! | an issue that is used or taken by a payment that is not there, or was turned back | it is unused again, and the take that would come late meets a tombstone | `recovery/free_use` |
//! | a confirmed payment whose issue is not marked as used | the payment is laid as due, and the sweep marks it | `coupons/settle` |
//!
//! The same may happen where nothing is laid back: a Redis that came back with less than it had, but with all that MySQL has, serves on, and a flow that began on the one
//! before it goes on there without its earlier steps. So it is settled as well whenever a Redis is met that does not know our scripts.
//!
//! A payment that is under way (pending, voiding, refunding) in a partition that serves is left to its own flow and sweep; one in a partition that does not serve is looked at
//! again once it does. Flows that were in the middle when a partition was lost may still take a step afterwards, so rounds go on for [`GRACE`] after
//! the laying back, and until one finds nothing.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;
use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::rehydrate::debit;
use super::{Error, orphans_sql as sql, orphans_store as store};
use crate::ids::{CouponId, IssueId, PaymentId, UserId};
use crate::outbox::WriterHandle;
use crate::redis::{self, RedisClient};
use crate::telemetry::Metric;

/// How often it is looked for recoveries that are not settled.
const LOOK: Duration = Duration::from_secs(1);
/// Longer than a flow that was in the middle can still be at work: the time until a payment is due, and a sweep's lease.
const GRACE: TimeDelta = TimeDelta::seconds(16);
/// How far back the first round after a recovery looks; what is older than ops are kept was settled long ago.
const FAR_BACK: TimeDelta = TimeDelta::days(8);
/// How far back the later rounds look, from when the recovery began.
const BACK: TimeDelta = TimeDelta::minutes(10);

/// What a round did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ReconcileSummary {
    /// What was brought to its end.
    pub settled: u64,
    /// What has to wait for a partition that does not serve.
    pub waits: u64,
}

/// Settles orphans.
#[derive(Debug, Clone)]
pub struct StoreReconciler {
    redis: RedisClient,
    mysql: MySqlPool,
    nudge: WriterHandle,
    /// The recovery of which a first round was made.
    seen: Option<DateTime<Utc>>,
}

/// Runs until `stop`; does nothing while every recovery is settled.
pub async fn run(mut settling: StoreReconciler, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match stop.run_until_cancelled(Box::pin(settling.round())).await {
            None | Some(Ok(ReconcileSummary { settled: 0, .. })) => {}
            Some(Ok(ReconcileSummary { settled, waits })) => {
                tracing::warn!(
                    settled,
                    waits,
                    "what payments left behind in another partition was settled"
                );
            }
            Some(Err(error)) => tracing::warn!(%error, "settling what a recovery left behind"),
        }
    }
}

impl StoreReconciler {
    /// Over both stores; `nudge` wakes a writer.
    pub fn new(redis: RedisClient, mysql: MySqlPool, nudge: WriterHandle) -> Self {
        Self { redis, mysql, nudge, seen: None }
    }

    /// One round over everything, if a recovery is not settled yet.
    ///
    /// # Errors
    /// When a store does not answer; then the next round goes on.
    pub async fn round(&mut self) -> Result<ReconcileSummary, Error> {
        let Some(open) = sql::unsettled(&self.mysql).await? else {
            return Ok(ReconcileSummary::default());
        };
        let since = if self.seen == Some(open.newest) {
            open.oldest - BACK
        } else {
            open.oldest - FAR_BACK
        };
        let mut done = ReconcileSummary::default();
        self.debits_without_payment(since, &mut done).await?;
        self.payments_without_debit(since, &mut done).await?;
        self.cancelled_without_money(since, &mut done).await?;
        self.money_without_cancelling(since, &mut done).await?;
        self.uses_without_payment(since, &mut done).await?;
        self.takes_without_payment(&mut done).await?;
        self.nudge.poke();
        self.seen = Some(open.newest);
        if done == ReconcileSummary::default() && open.now - open.newest > GRACE {
            sql::settle(&self.mysql, open.newest).await?;
        }
        Ok(done)
    }

    async fn debits_without_payment(
        &self,
        since: DateTime<Utc>,
        done: &mut ReconcileSummary,
    ) -> Result<(), Error> {
        for debit in sql::debits_without_payment(&self.mysql, since).await? {
            let (payment, user) = (PaymentId::from(debit.payment_id), UserId::from(debit.user_id));
            let stands = async {
                let ended = debit.ended_otherwise;
                Ok(!ended && store::state(&self.redis, payment).await?.stands(debit.attempt))
            };
            let outcome = match stands.await {
                Ok(true) => continue,
                Ok(false) => store::refund(&self.redis, user, payment, debit.attempt).await,
                Err(error) => Err(error),
            };
            count("debit", outcome, done)?;
        }
        Ok(())
    }

    async fn payments_without_debit(
        &self,
        since: DateTime<Utc>,
        done: &mut ReconcileSummary,
    ) -> Result<(), Error> {
        for paid in sql::payments_without_debit(&self.mysql, since).await? {
            let user = UserId::from(paid.user_id);
            let mut args = redis::ScriptArgs::new();
            debit(&mut args, (paid.id, paid.attempt), user, paid.amount, None);
            count("payment", store::redebit(&self.redis, user, args).await, done)?;
        }
        Ok(())
    }

    async fn cancelled_without_money(
        &self,
        since: DateTime<Utc>,
        done: &mut ReconcileSummary,
    ) -> Result<(), Error> {
        for paid in sql::cancelled_without_money(&self.mysql, since).await? {
            count("cancelled", store::give_back(&self.redis, &paid).await, done)?;
        }
        Ok(())
    }

    async fn money_without_cancelling(
        &self,
        since: DateTime<Utc>,
        done: &mut ReconcileSummary,
    ) -> Result<(), Error> {
        for (payment, queue) in sql::money_without_cancelling(&self.mysql, since).await? {
            let queue = queue.parse().map_err(|_| Error::Row("payments", queue))?;
            count("cancelling", store::recancel(&self.redis, &queue, payment.into()).await, done)?;
        }
        Ok(())
    }

    async fn uses_without_payment(
        &self,
        since: DateTime<Utc>,
        done: &mut ReconcileSummary,
    ) -> Result<(), Error> {
        for used in sql::uses_without_payment(&self.mysql, since).await? {
            let coupon: CouponId = used
                .coupon_id
                .parse()
                .map_err(|_| Error::Row("coupon_issues", used.coupon_id.clone()))?;
            let owner = Some((UserId::from(used.user_id), used.issued_at.timestamp_millis()));
            self.free(&coupon, used.id.into(), used.payment_id.into(), owner, done).await?;
        }
        Ok(())
    }

    async fn takes_without_payment(&self, done: &mut ReconcileSummary) -> Result<(), Error> {
        let names: Vec<String> = sqlx::query_scalar("SELECT id FROM coupons ORDER BY id")
            .fetch(&self.mysql)
            .try_collect()
            .await?;
        for name in names {
            let coupon: CouponId = name.parse().map_err(|_| Error::Row("coupons", name.clone()))?;
            let mut cursor = Some("0".to_owned());
            while let Some(at) = cursor {
                let (next, taken) = match store::taken(&self.redis, &coupon, &at).await {
                    Err(redis::Error::Recovering(_)) => break,
                    part => part?,
                };
                for (issue, payment) in taken {
                    self.free(&coupon, issue, payment, None, done).await?;
                }
                cursor = next;
            }
        }
        Ok(())
    }

    /// Frees an issue, unless its payment is under way or stands.
    async fn free(
        &self,
        coupon: &CouponId,
        issue: IssueId,
        payment: PaymentId,
        owner: Option<(UserId, i64)>,
        done: &mut ReconcileSummary,
    ) -> Result<(), Error> {
        let outcome = match store::state(&self.redis, payment).await {
            Ok(state) if state.is_over() && sql::is_free(&self.mysql, payment).await? => {
                store::free_use(&self.redis, coupon, issue, payment, owner).await
            }
            Ok(_) => return Ok(()),
            Err(error) => Err(error),
        };
        count("coupon", outcome, done)
    }
}

/// Takes note of what one step did. A partition that does not serve is no failure: it is looked at again.
fn count(
    kind: &'static str,
    outcome: Result<bool, redis::Error>,
    done: &mut ReconcileSummary,
) -> Result<(), Error> {
    match outcome {
        Ok(true) => {
            done.settled += 1;
            Metric::OrphansSettledTotal.counter(&[("kind", kind)]).increment(1);
        }
        Ok(false) => {}
        Err(redis::Error::Recovering(_)) => done.waits += 1,
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// A moment as the beginning of the ids that were made since, an hour of leeway for the clocks of those who made them.
pub(super) fn first_id(since: DateTime<Utc>) -> Uuid {
    let millis = (since - TimeDelta::hours(1)).timestamp_millis().to_be_bytes();
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&millis[2..]);
    Uuid::from_bytes(bytes)
}
