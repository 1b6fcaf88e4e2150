//! Settles what crossed partitions when one of them was laid back.
//!
//! A payment has its record in the queue's partition, its money in the user's and its coupon in the coupon's. MySQL has each of them up to that partition's own checkpoint,
//! and a partition that was not lost goes on from where it is. So after a loss the three may disagree. Each disagreement has one end, and one op by which
//! it is brought there, so any number of instances may bring it there, twice or late:
//!
//! | found | so | by |
//! |:--|:--|:--|
//! | a debit, and no payment of it in MySQL or Redis, or one that was turned back | it is given back. Nobody can confirm it any more: what is not there confirms nothing, and an attempt that begins later under the same name meets the tombstone that this leaves | `wallet/refund` |
//! | a payment that is confirmed, and no debit | it is debited again, with the lost charge where the balance does not suffice. It was debited once: nothing is confirmed before. The op tells whether it still is | `recovery/repeat_debit` |
//! | a payment that was cancelled, and its money not given back | it is given back, once by the cancelling's op | `wallet/refund_cancelled` |
//! | a payment that is confirmed, and its money was given back | the cancelling goes on from there: money is given back only after its commit point | `recovery/resume_cancel` |
//! | an issue that is used or taken by a payment that is not there, or was turned back | it is unused again, and the take that would come late meets a tombstone | `recovery/free_redemption` |
//! | a confirmed payment whose issue is not marked as used | the payment is laid as due, and the sweep marks it | `coupons/redeem` |
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

use super::restore::redebit_args;
use super::{Error, reconcile_sql as sql, reconcile_store as store};
use crate::ids::{CouponId, IssueId, PaymentId, UserId};
use crate::outbox::WriterHandle;
use crate::redis::{self, RedisClient};
use crate::telemetry::Metric;

/// How often it is looked for recoveries that are not settled.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);
/// Longer than a flow that was in the middle can still be at work: the time until a payment is due, and a sweep's lease.
const IN_FLIGHT_GRACE: TimeDelta = TimeDelta::seconds(16);
/// How far back the first round after a recovery looks; what is older than ops are kept was settled long ago.
const FIRST_ROUND_LOOKBACK: TimeDelta = TimeDelta::days(8);
/// How far back the later rounds look, from when the recovery began.
const LATER_ROUND_LOOKBACK: TimeDelta = TimeDelta::minutes(10);

/// What a round did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ReconcileSummary {
    /// What was brought to its end.
    pub repaired: u64,
    /// What has to wait for a partition that does not serve.
    pub deferred: u64,
}

/// Settles orphans.
#[derive(Debug, Clone)]
pub struct StoreReconciler {
    redis: RedisClient,
    mysql: MySqlPool,
    writer: WriterHandle,
    /// The recovery of which a first round was made.
    last_reconciled: Option<DateTime<Utc>>,
}

/// Runs until `stop`; does nothing while every recovery is settled.
pub async fn run_reconciler(mut settling: StoreReconciler, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(ROUND_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match stop.run_until_cancelled(Box::pin(settling.round())).await {
            None | Some(Ok(ReconcileSummary { repaired: 0, .. })) => {}
            Some(Ok(ReconcileSummary { repaired: settled, deferred: waits })) => {
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
        Self { redis, mysql, writer: nudge, last_reconciled: None }
    }

    /// One round over everything, if a recovery is not settled yet.
    ///
    /// # Errors
    /// When a store does not answer; then the next round goes on.
    pub async fn round(&mut self) -> Result<ReconcileSummary, Error> {
        let Some(open) = sql::pending(&self.mysql).await? else {
            return Ok(ReconcileSummary::default());
        };
        let since = if self.last_reconciled == Some(open.newest) {
            open.oldest - LATER_ROUND_LOOKBACK
        } else {
            open.oldest - FIRST_ROUND_LOOKBACK
        };
        let mut done = ReconcileSummary::default();
        self.debits_without_payment(since, &mut done).await?;
        self.payments_without_debit(since, &mut done).await?;
        self.cancellations_without_refund(since, &mut done).await?;
        self.refunds_without_cancellation(since, &mut done).await?;
        self.redemptions_without_payment(since, &mut done).await?;
        self.reservations_without_payment(&mut done).await?;
        self.writer.wake();
        self.last_reconciled = Some(open.newest);
        if done == ReconcileSummary::default() && open.now - open.newest > IN_FLIGHT_GRACE {
            sql::mark_reconciled(&self.mysql, open.newest).await?;
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
            record_outcome("debit", outcome, done)?;
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
            redebit_args(&mut args, (paid.id, paid.attempt), user, paid.amount, None);
            record_outcome("payment", store::redebit(&self.redis, user, args).await, done)?;
        }
        Ok(())
    }

    async fn cancellations_without_refund(
        &self,
        since: DateTime<Utc>,
        done: &mut ReconcileSummary,
    ) -> Result<(), Error> {
        for paid in sql::cancellations_without_refund(&self.mysql, since).await? {
            record_outcome("cancelled", store::give_back(&self.redis, &paid).await, done)?;
        }
        Ok(())
    }

    async fn refunds_without_cancellation(
        &self,
        since: DateTime<Utc>,
        done: &mut ReconcileSummary,
    ) -> Result<(), Error> {
        for (payment, queue) in sql::refunds_without_cancellation(&self.mysql, since).await? {
            let queue = queue.parse().map_err(|_| Error::InvalidRow("payments", queue))?;
            record_outcome("cancelling", store::recancel(&self.redis, &queue, payment.into()).await, done)?;
        }
        Ok(())
    }

    async fn redemptions_without_payment(
        &self,
        since: DateTime<Utc>,
        done: &mut ReconcileSummary,
    ) -> Result<(), Error> {
        for used in sql::redemptions_without_payment(&self.mysql, since).await? {
            let coupon: CouponId = used
                .coupon_id
                .parse()
                .map_err(|_| Error::InvalidRow("coupon_issues", used.coupon_id.clone()))?;
            let owner = Some((UserId::from(used.user_id), used.issued_at.timestamp_millis()));
            self.free_issue(&coupon, used.id.into(), used.payment_id.into(), owner, done).await?;
        }
        Ok(())
    }

    async fn reservations_without_payment(&self, done: &mut ReconcileSummary) -> Result<(), Error> {
        let names: Vec<String> = sqlx::query_scalar("SELECT id FROM coupons ORDER BY id")
            .fetch(&self.mysql)
            .try_collect()
            .await?;
        for name in names {
            let coupon: CouponId = name.parse().map_err(|_| Error::InvalidRow("coupons", name.clone()))?;
            let mut cursor = Some("0".to_owned());
            while let Some(at) = cursor {
                let (next, taken) = match store::taken(&self.redis, &coupon, &at).await {
                    Err(redis::Error::Recovering(_)) => break,
                    part => part?,
                };
                for (issue, payment) in taken {
                    self.free_issue(&coupon, issue, payment, None, done).await?;
                }
                cursor = next;
            }
        }
        Ok(())
    }

    /// Frees an issue, unless its payment is under way or stands.
    async fn free_issue(
        &self,
        coupon: &CouponId,
        issue: IssueId,
        payment: PaymentId,
        owner: Option<(UserId, i64)>,
        done: &mut ReconcileSummary,
    ) -> Result<(), Error> {
        let outcome = match store::state(&self.redis, payment).await {
            Ok(state) if state.is_over() && sql::is_not_confirmed(&self.mysql, payment).await? => {
                store::free_use(&self.redis, coupon, issue, payment, owner).await
            }
            Ok(_) => return Ok(()),
            Err(error) => Err(error),
        };
        record_outcome("coupon", outcome, done)
    }
}

/// Takes note of what one step did. A partition that does not serve is no failure: it is looked at again.
fn record_outcome(
    kind: &'static str,
    outcome: Result<bool, redis::Error>,
    done: &mut ReconcileSummary,
) -> Result<(), Error> {
    match outcome {
        Ok(true) => {
            done.repaired += 1;
            Metric::OrphansSettledTotal.counter(&[("kind", kind)]).increment(1);
        }
        Ok(false) => {}
        Err(redis::Error::Recovering(_)) => done.deferred += 1,
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// A moment as the beginning of the ids that were made since, an hour of leeway for the clocks of those who made them.
pub(super) fn lower_id_bound(since: DateTime<Utc>) -> Uuid {
    let millis = (since - TimeDelta::hours(1)).timestamp_millis().to_be_bytes();
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&millis[2..]);
    Uuid::from_bytes(bytes)
}
