//! Reconciliation: repairs payments that crossed partitions when one of them was restored.
//!
//! The record of a payment is in the queue's partition, its money in the user's, and its coupon in
//! the coupon's. MySQL has each of them up to the checkpoint of that partition, and a partition
//! that was not lost continues from its own state. So after a loss the three may disagree. Each
//! disagreement has one correct end and one idempotent script that brings it there, so any number
//! of instances may run it, repeatedly or late:
//!
//! | found | repair | script |
//! |:--|:--|:--|
//! | a debit, and no payment of it in MySQL or Redis, or a payment that was declined or voided | refund the debit. Nothing can confirm that payment any more: a missing payment confirms nothing, and a later attempt with the same id finds the tombstone that the refund leaves | `wallet/refund` |
//! | a confirmed payment, and no debit | debit again, with the lost charge where the balance is too low. It was debited once, because nothing is confirmed before. The script checks whether it still is | `recovery/repeat_debit` |
//! | a cancelled payment whose money was not refunded | refund it, once, under the operation of the cancellation | `wallet/refund_cancelled` |
//! | a confirmed payment whose money was refunded by a cancellation | continue the cancellation: it refunds only after its commit point | `recovery/resume_cancel` |
//! | a coupon issue that is redeemed or reserved by a payment that does not exist, or was declined or voided | free the issue; a late reservation finds a tombstone | `recovery/free_redemption` |
//! | a confirmed payment whose issue is not marked as redeemed | the restore makes the payment due, and the sweep marks the issue | `coupons/redeem` |
//! | a confirmed external payment whose reference is not claimed | claim the reference, so that it pays nothing else | `payment/claim_reference` |
//!
//! The same disagreements are possible without a restore. A Redis that restarted without some
//! entries, but with all that MySQL has, continues to serve, and a flow that began before the
//! restart continues without its earlier steps. So a reconciliation also starts whenever a server
//! does not know the scripts.
//!
//! A payment that is in progress (pending, voiding, refunding) in a serving partition is left to
//! its own flow and to the sweep. One in a partition that does not serve is inspected again later.
//! Flows that were in progress during the loss may still take a step afterwards, so rounds continue
//! for [`IN_FLIGHT_GRACE`] after the restore, and until a round finds nothing.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt};
use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;

use super::restore::redebit_args;
use super::{Error, reconcile_sql as sql, reconcile_store as store};
use crate::ids::{CouponId, IssueId, PaymentId, UserId};
use crate::outbox::WriterHandle;
use crate::redis::{self, RedisClient};
use crate::telemetry::Metric;

/// How often to look for recoveries that are not reconciled.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);
/// Longer than a flow that was in progress can still run: the time until a payment is due, plus the
/// lease of a sweep.
const IN_FLIGHT_GRACE: TimeDelta = TimeDelta::seconds(16);
/// How far back the first round after a recovery looks: longer than the records of wallet
/// operations are kept.
const FIRST_ROUND_LOOKBACK: TimeDelta = TimeDelta::days(8);
/// How far back the later rounds look, from the start of the recovery.
const LATER_ROUND_LOOKBACK: TimeDelta = TimeDelta::minutes(10);

const MAX_CONCURRENT_CLAIMS: usize = 32;

/// The outcome of a round.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ReconcileSummary {
    /// Disagreements that were repaired.
    pub repaired: u64,
    /// Disagreements that wait for a partition that does not serve.
    pub deferred: u64,
}

/// Repairs disagreements between partitions.
#[derive(Debug, Clone)]
pub struct StoreReconciler {
    redis: RedisClient,
    mysql: MySqlPool,
    writer: WriterHandle,
    /// The recovery for which a first round was made.
    last_reconciled: Option<DateTime<Utc>>,
}

/// Runs until `stop`. Does nothing while every recovery is reconciled.
pub async fn run_reconciler(mut reconciler: StoreReconciler, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(ROUND_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match stop.run_until_cancelled(Box::pin(reconciler.round())).await {
            None | Some(Ok(ReconcileSummary { repaired: 0, .. })) => {}
            Some(Ok(ReconcileSummary { repaired, deferred })) => {
                tracing::warn!(
                    repaired,
                    deferred,
                    "repaired payments that disagreed between partitions after a recovery"
                );
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "could not reconcile the partitions; trying again");
            }
        }
    }
}

impl StoreReconciler {
    pub fn new(redis: RedisClient, mysql: MySqlPool, writer: WriterHandle) -> Self {
        Self { redis, mysql, writer, last_reconciled: None }
    }

    /// Makes one round if a recovery is not reconciled yet.
    ///
    /// # Errors
    /// When a store does not answer; the next round starts again.
    pub async fn round(&mut self) -> Result<ReconcileSummary, Error> {
        let Some(pending) = sql::pending(&self.mysql).await? else {
            return Ok(ReconcileSummary::default());
        };
        let since = if self.last_reconciled == Some(pending.newest) {
            pending.oldest - LATER_ROUND_LOOKBACK
        } else {
            pending.oldest - FIRST_ROUND_LOOKBACK
        };
        let mut summary = ReconcileSummary::default();
        self.debits_without_payment(since, &mut summary).await?;
        self.payments_without_debit(since, &mut summary).await?;
        self.cancellations_without_refund(since, &mut summary).await?;
        self.refunds_without_cancellation(since, &mut summary).await?;
        self.redemptions_without_payment(since, &mut summary).await?;
        self.reservations_without_payment(&mut summary).await?;
        self.references_without_claim(since, &mut summary).await?;
        self.writer.wake();
        self.last_reconciled = Some(pending.newest);
        // A round that found nothing, late enough, ends it.
        if summary == ReconcileSummary::default() && pending.now - pending.newest > IN_FLIGHT_GRACE
        {
            sql::mark_reconciled(&self.mysql, pending.newest).await?;
        }
        Ok(summary)
    }

    async fn debits_without_payment(
        &self,
        since: DateTime<Utc>,
        summary: &mut ReconcileSummary,
    ) -> Result<(), Error> {
        for debit in sql::debits_without_payment(&self.mysql, since).await? {
            let (payment, user) = (PaymentId::from(debit.payment_id), UserId::from(debit.user_id));
            let is_justified = async {
                let ended = debit.ended_otherwise;
                Ok(!ended
                    && store::payment_state(&self.redis, payment)
                        .await?
                        .justifies_debit(debit.attempt))
            };
            let outcome = match is_justified.await {
                Ok(true) => continue,
                Ok(false) => store::refund(&self.redis, user, &debit).await,
                Err(error) => Err(error),
            };
            record_outcome("debit", outcome, summary)?;
        }
        Ok(())
    }

    async fn payments_without_debit(
        &self,
        since: DateTime<Utc>,
        summary: &mut ReconcileSummary,
    ) -> Result<(), Error> {
        for paid in sql::payments_without_debit(&self.mysql, since).await? {
            let user = UserId::from(paid.user_id);
            let mut args = redis::ScriptArgs::new();
            let operation = (paid.id, paid.attempt, paid.reservation_id);
            redebit_args(&mut args, operation, user, paid.amount, None);
            record_outcome("payment", store::repeat_debit(&self.redis, user, args).await, summary)?;
        }
        Ok(())
    }

    async fn cancellations_without_refund(
        &self,
        since: DateTime<Utc>,
        summary: &mut ReconcileSummary,
    ) -> Result<(), Error> {
        for paid in sql::cancellations_without_refund(&self.mysql, since).await? {
            record_outcome(
                "cancelled",
                store::refund_cancelled(&self.redis, &paid).await,
                summary,
            )?;
        }
        Ok(())
    }

    async fn refunds_without_cancellation(
        &self,
        since: DateTime<Utc>,
        summary: &mut ReconcileSummary,
    ) -> Result<(), Error> {
        for refund in sql::refunds_without_cancellation(&self.mysql, since).await? {
            let queue = refund
                .queue_id
                .parse()
                .map_err(|_| Error::InvalidRow("payments", refund.queue_id.clone()))?;
            record_outcome(
                "cancelling",
                store::resume_cancel(&self.redis, &queue, &refund).await,
                summary,
            )?;
        }
        Ok(())
    }

    async fn redemptions_without_payment(
        &self,
        since: DateTime<Utc>,
        summary: &mut ReconcileSummary,
    ) -> Result<(), Error> {
        for used in sql::redemptions_without_payment(&self.mysql, since).await? {
            let coupon: CouponId = used
                .coupon_id
                .parse()
                .map_err(|_| Error::InvalidRow("coupon_issues", used.coupon_id.clone()))?;
            let owner = Some((UserId::from(used.user_id), used.issued_at.timestamp_millis()));
            self.free_issue(&coupon, used.id.into(), used.payment_id.into(), owner, summary)
                .await?;
        }
        Ok(())
    }

    async fn reservations_without_payment(
        &self,
        summary: &mut ReconcileSummary,
    ) -> Result<(), Error> {
        let names: Vec<String> = sqlx::query_scalar("SELECT id FROM coupons ORDER BY id")
            .fetch(&self.mysql)
            .try_collect()
            .await?;
        for name in names {
            let coupon: CouponId =
                name.parse().map_err(|_| Error::InvalidRow("coupons", name.clone()))?;
            let mut cursor = Some("0".to_owned());
            while let Some(at) = cursor {
                let (next, reserved) =
                    match store::scan_reserved_issues(&self.redis, &coupon, &at).await {
                        Err(redis::Error::Recovering(_)) => break,
                        page => page?,
                    };
                for (issue, payment) in reserved {
                    self.free_issue(&coupon, issue, payment, None, summary).await?;
                }
                cursor = next;
            }
        }
        Ok(())
    }

    async fn references_without_claim(
        &self,
        since: DateTime<Utc>,
        summary: &mut ReconcileSummary,
    ) -> Result<(), Error> {
        let paid = sql::paid_references(&self.mysql, since).await?;
        let claims = futures::stream::iter(paid)
            .map(async |paid| store::claim_reference(&self.redis, &paid).await);
        let mut outcomes = std::pin::pin!(claims.buffer_unordered(MAX_CONCURRENT_CLAIMS));
        while let Some(outcome) = outcomes.next().await {
            record_outcome("reference", outcome, summary)?;
        }
        Ok(())
    }

    /// Frees a coupon issue, unless its payment is in progress or confirmed.
    async fn free_issue(
        &self,
        coupon: &CouponId,
        issue: IssueId,
        payment: PaymentId,
        owner: Option<(UserId, i64)>,
        summary: &mut ReconcileSummary,
    ) -> Result<(), Error> {
        let outcome = match store::payment_state(&self.redis, payment).await {
            Ok(state) if state.is_over() && sql::is_not_confirmed(&self.mysql, payment).await? => {
                store::free_redemption(&self.redis, coupon, issue, payment, owner).await
            }
            Ok(_) => return Ok(()),
            Err(error) => Err(error),
        };
        record_outcome("coupon", outcome, summary)
    }
}

/// Counts the outcome of one repair. A partition that does not serve is no error: a later round
/// inspects it again.
fn record_outcome(
    kind: &'static str,
    outcome: Result<bool, redis::Error>,
    summary: &mut ReconcileSummary,
) -> Result<(), Error> {
    match outcome {
        Ok(true) => {
            summary.repaired += 1;
            Metric::OrphansSettledTotal.counter(&[("kind", kind)]).increment(1);
        }
        Ok(false) => {}
        Err(redis::Error::Recovering(_)) => summary.deferred += 1,
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
