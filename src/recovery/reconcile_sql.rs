//! Queries for payments whose parts in several partitions disagree, by MySQL's rows.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{FromRow, MySqlPool};
use uuid::Uuid;

use crate::ids::PaymentId;
use crate::mysql::Error;

/// The recoveries that are not reconciled.
pub(super) struct PendingReconciliations {
    /// When the first of them started.
    pub(super) oldest: DateTime<Utc>,
    /// When the last of them ended.
    pub(super) newest: DateTime<Utc>,
    /// MySQL's clock.
    pub(super) now: DateTime<Utc>,
}

pub(super) async fn pending(pool: &MySqlPool) -> Result<Option<PendingReconciliations>, Error> {
    type Times = (Option<DateTime<Utc>>, Option<DateTime<Utc>>, DateTime<Utc>);
    let (oldest, newest, now): Times = sqlx::query_as(
        "SELECT MIN(began_at), MAX(laid_at), CAST(UTC_TIMESTAMP(3) AS DATETIME(3)) FROM recoveries \
         WHERE settled_at IS NULL",
    )
    .fetch_one(pool)
    .await?;
    Ok(oldest.zip(newest).map(|(oldest, newest)| PendingReconciliations { oldest, newest, now }))
}

/// Marks the recoveries that ended by `restored_at` as reconciled.
pub(super) async fn mark_reconciled(
    pool: &MySqlPool,
    restored_at: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE recoveries SET settled_at = UTC_TIMESTAMP(3) WHERE settled_at IS NULL AND laid_at \
         <= ?",
    )
    .bind(restored_at.naive_utc())
    .execute(pool)
    .await?;
    Ok(())
}

/// A debit that no payment in MySQL justifies.
#[derive(FromRow)]
pub(super) struct UnmatchedDebit {
    pub(super) payment_id: Uuid,
    pub(super) attempt: u32,
    pub(super) user_id: Uuid,
    pub(super) reservation_id: Option<Uuid>,
    /// MySQL has another final state of that attempt. Otherwise Redis may know the payment.
    pub(super) ended_otherwise: bool,
}

pub(super) async fn debits_without_payment(
    pool: &MySqlPool,
    since: DateTime<Utc>,
) -> Result<Vec<UnmatchedDebit>, Error> {
    let list = "SELECT e.payment_id, e.attempt, e.user_id, e.reservation_id, p.id IS NOT NULL AND p.attempt >= \
                e.attempt AS ended_otherwise \
                FROM wallet_entries e LEFT JOIN payments p ON p.id = e.payment_id \
                WHERE e.id >= ? AND e.kind = 'payment' AND e.attempt IS NOT NULL \
                AND (p.id IS NULL OR p.attempt <> e.attempt OR p.status IN ('declined', 'voided')) \
                AND NOT EXISTS (SELECT 1 FROM wallet_entries b \
                  WHERE b.payment_id = e.payment_id AND b.kind = 'refund' AND b.attempt = \
                  e.attempt)";
    Ok(sqlx::query_as(list).bind(lower_id_bound(since)).fetch_all(pool).await?)
}

/// The amount that a payment took or should have taken.
#[derive(FromRow)]
pub(super) struct PaidAmounts {
    pub(super) id: Uuid,
    pub(super) attempt: u32,
    pub(super) user_id: Uuid,
    pub(super) reservation_id: Uuid,
    pub(super) amount: i64,
}

pub(super) async fn payments_without_debit(
    pool: &MySqlPool,
    since: DateTime<Utc>,
) -> Result<Vec<PaidAmounts>, Error> {
    let list = "SELECT p.id, p.attempt, p.user_id, p.reservation_id, CAST(p.wallet_amount AS SIGNED) AS \
                amount FROM payments p \
                WHERE p.settled_at > ? AND p.user_slot IS NOT NULL AND p.status IN ('confirmed', \
                'refunded') AND p.wallet_amount > 0 \
                AND NOT EXISTS (SELECT 1 FROM wallet_entries e WHERE e.payment_id = p.id AND \
                e.attempt = p.attempt)";
    Ok(sqlx::query_as(list).bind(since.naive_utc()).fetch_all(pool).await?)
}

/// What cancellations should have refunded.
#[derive(FromRow)]
pub(super) struct MissingRefund {
    pub(super) id: Uuid,
    pub(super) attempt: u32,
    pub(super) user_id: Uuid,
    pub(super) reservation_id: Uuid,
    /// In total.
    pub(super) refunded: i64,
    /// Whether all seats are cancelled.
    pub(super) ended: bool,
    pub(super) created_at: DateTime<Utc>,
}

pub(super) async fn cancellations_without_refund(
    pool: &MySqlPool,
    since: DateTime<Utc>,
) -> Result<Vec<MissingRefund>, Error> {
    let list = "SELECT p.id, p.attempt, p.user_id, p.reservation_id, \
                CAST(p.wallet_refunded AS SIGNED) AS refunded, \
                p.status = 'refunded' AS ended, p.created_at FROM payments p \
                WHERE p.settled_at > ? AND p.user_slot IS NOT NULL AND p.wallet_refunded > \
                (SELECT COALESCE(SUM(e.amount), 0) FROM wallet_entries e WHERE e.payment_id = p.id \
                AND e.kind = 'refund' AND e.attempt IS NULL)";
    Ok(sqlx::query_as(list).bind(since.naive_utc()).fetch_all(pool).await?)
}

/// A refund of cancelled seats that the payment does not know.
#[derive(FromRow)]
pub(super) struct UnmatchedRefund {
    pub(super) payment_id: Uuid,
    pub(super) queue_id: String,
    /// All refunds of the payment.
    pub(super) total: i64,
    /// The seats of the unknown ones, separated by commas.
    pub(super) seats: String,
}

pub(super) async fn refunds_without_cancellation(
    pool: &MySqlPool,
    since: DateTime<Utc>,
) -> Result<Vec<UnmatchedRefund>, Error> {
    let list = "SELECT r.payment_id, r.queue_id, CAST(MAX(r.total) AS SIGNED) AS total, \
                GROUP_CONCAT(r.cancelled_seats) AS seats FROM ( \
                  SELECT e.payment_id, p.queue_id, p.wallet_refunded, e.cancelled_seats, SUM(e.amount) \
                  OVER (PARTITION BY e.payment_id ORDER BY e.position) AS total \
                  FROM wallet_entries e JOIN payments p ON p.id = e.payment_id \
                  WHERE e.kind = 'refund' AND e.attempt IS NULL AND p.status = 'confirmed' AND \
                  EXISTS (SELECT 1 FROM wallet_entries n WHERE n.id >= ? AND n.payment_id = p.id \
                  AND n.kind = 'refund' AND n.attempt IS NULL) \
                ) r WHERE r.total > r.wallet_refunded GROUP BY r.payment_id, r.queue_id";
    Ok(sqlx::query_as(list).bind(lower_id_bound(since)).fetch_all(pool).await?)
}

/// A coupon issue that is redeemed by a payment that is not confirmed in MySQL.
#[derive(FromRow)]
pub(super) struct UnmatchedRedemption {
    pub(super) id: Uuid,
    pub(super) coupon_id: String,
    pub(super) user_id: Uuid,
    pub(super) issued_at: DateTime<Utc>,
    pub(super) payment_id: Uuid,
}

pub(super) async fn redemptions_without_payment(
    pool: &MySqlPool,
    since: DateTime<Utc>,
) -> Result<Vec<UnmatchedRedemption>, Error> {
    let list = "SELECT i.id, i.coupon_id, i.user_id, i.issued_at, i.payment_id FROM coupon_issues \
                i \
                LEFT JOIN payments p ON p.id = i.payment_id AND p.status = 'confirmed' \
                WHERE i.used_at > ? AND i.payment_id IS NOT NULL AND p.id IS NULL";
    Ok(sqlx::query_as(list).bind(since.naive_utc()).fetch_all(pool).await?)
}

/// A confirmed payment with the reference of its provider.
#[derive(FromRow)]
pub(super) struct PaidReference {
    pub(super) id: Uuid,
    pub(super) attempt: u32,
    pub(super) provider: String,
    pub(super) reference: String,
}

pub(super) async fn paid_references(
    pool: &MySqlPool,
    since: DateTime<Utc>,
) -> Result<Vec<PaidReference>, Error> {
    let list = "SELECT id, attempt, provider, reference FROM payments WHERE settled_at > ? AND \
                provider IS NOT NULL AND reference IS NOT NULL AND status IN ('confirmed', \
                'refunded')";
    Ok(sqlx::query_as(list).bind(since.naive_utc()).fetch_all(pool).await?)
}

/// Whether MySQL does not have the payment as confirmed.
pub(super) async fn is_not_confirmed(pool: &MySqlPool, payment: PaymentId) -> Result<bool, Error> {
    let status: Option<String> = sqlx::query_scalar("SELECT status FROM payments WHERE id = ?")
        .bind(payment.uuid())
        .fetch_optional(pool)
        .await?;
    Ok(status.is_none_or(|status| status != "confirmed"))
}

/// The lowest id that can have been created since a time, with a margin of one hour for clock
/// differences.
fn lower_id_bound(since: DateTime<Utc>) -> Uuid {
    let millis = (since - TimeDelta::hours(1)).timestamp_millis().to_be_bytes();
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&millis[2..]);
    Uuid::from_bytes(bytes)
}
