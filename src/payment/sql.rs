//! SQL of payments. These functions only read: the writer of the outbox writes the rows.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, MySqlPool};
use uuid::Uuid;

use super::record::{Payment, PaymentState};
use crate::http::page::PageCursor;
use crate::ids::{PaymentId, ReservationId, UserId};
use crate::money::Money;
use crate::mysql;
use crate::outbox::event::ExternalPayment;

/// Selects the columns of [`Row`].
macro_rules! payment_columns {
    () => {
        "SELECT id, reservation_id, user_id, queue_id, amount, discount, status, coupon_id, \
         coupon_issue_id, reason, attempt, balance_after, created_at, settled_at, refunded, \
         external_amount, wallet_amount, provider, reference, \
         CAST(provider_refunds AS CHAR) AS provider_refunds, refund_due_since FROM payments "
    };
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    reservation_id: Uuid,
    user_id: Uuid,
    queue_id: String,
    amount: i64,
    discount: i64,
    status: String,
    coupon_id: Option<String>,
    coupon_issue_id: Option<Uuid>,
    reason: Option<String>,
    attempt: u32,
    balance_after: Option<i64>,
    created_at: DateTime<Utc>,
    settled_at: DateTime<Utc>,
    refunded: i64,
    external_amount: Option<i64>,
    wallet_amount: i64,
    provider: Option<String>,
    reference: Option<String>,
    provider_refunds: Option<String>,
    refund_due_since: Option<DateTime<Utc>>,
}

pub(super) async fn one(pool: &MySqlPool, id: PaymentId) -> Result<Option<Payment>, mysql::Error> {
    let row: Option<Row> = sqlx::query_as(concat!(payment_columns!(), "WHERE id = ?"))
        .bind(id.uuid())
        .fetch_optional(pool)
        .await?;
    Ok(row.and_then(read))
}

/// At most `limit` payments of a user before a cursor, newest first.
pub(super) async fn of_user(
    pool: &MySqlPool,
    user: UserId,
    before: PageCursor,
    limit: usize,
) -> Result<Vec<Payment>, mysql::Error> {
    // A bound value with a time zone has the type TIMESTAMP, which ends in 2038.
    let at = DateTime::from_timestamp_millis(before.at).unwrap_or_default().naive_utc();
    let rows: Vec<Row> = sqlx::query_as(concat!(
        payment_columns!(),
        "WHERE user_id = ? AND created_at <= ? AND (created_at < ? OR id < ?) \
             ORDER BY created_at DESC, id DESC LIMIT ?"
    ))
    .bind(user.uuid())
    .bind(at)
    .bind(at)
    .bind(before.id)
    .bind(u64::try_from(limit).unwrap_or(u64::MAX))
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().filter_map(read).collect())
}

/// The payment of a confirmed reservation.
pub(super) async fn confirmed_of(
    pool: &MySqlPool,
    reservation: ReservationId,
) -> Result<Option<Payment>, mysql::Error> {
    let row: Option<Row> = sqlx::query_as(concat!(
        payment_columns!(),
        "WHERE reservation_id = ? AND status = 'confirmed'"
    ))
    .bind(reservation.uuid())
    .fetch_optional(pool)
    .await?;
    Ok(row.and_then(read))
}

/// At most `limit` payments whose provider has to pay money back, before a cursor, newest first.
pub(super) async fn with_refund_due(
    pool: &MySqlPool,
    before: PageCursor,
    limit: usize,
) -> Result<Vec<Payment>, mysql::Error> {
    let at = DateTime::from_timestamp_millis(before.at).unwrap_or_default().naive_utc();
    let rows: Vec<Row> = sqlx::query_as(concat!(
        payment_columns!(),
        "WHERE refund_due_since <= ? AND (refund_due_since < ? OR id < ?) \
         ORDER BY refund_due_since DESC, id DESC LIMIT ?"
    ))
    .bind(at)
    .bind(at)
    .bind(before.id)
    .bind(u64::try_from(limit).unwrap_or(u64::MAX))
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().filter_map(read).collect())
}

/// How many payments have a refund due, and for how many seconds the oldest.
pub(super) async fn refunds_due(pool: &MySqlPool) -> Result<(i64, i64), mysql::Error> {
    Ok(sqlx::query_as(
        "SELECT COUNT(*), CAST(COALESCE(TIMESTAMPDIFF(SECOND, MIN(refund_due_since), \
         UTC_TIMESTAMP(3)), 0) AS SIGNED) FROM payments WHERE refund_due_since IS NOT NULL",
    )
    .fetch_one(pool)
    .await?)
}

impl Row {
    fn external(&self) -> Option<Box<ExternalPayment>> {
        let refunds = self.provider_refunds.as_deref().unwrap_or("[]");
        Some(Box::new(ExternalPayment {
            due_amount: Some(Money::new(self.external_amount?)?),
            wallet_amount: Money::new(self.wallet_amount).unwrap_or(Money::ZERO),
            due_at: None,
            provider: self.provider.clone(),
            reference: self.reference.clone(),
            refunds: serde_json::from_str(refunds).ok()?,
            refund_due_since: self.refund_due_since.map(|since| since.timestamp_millis()),
        }))
    }
}

fn read(row: Row) -> Option<Payment> {
    Some(Payment {
        external: row.external(),
        id: row.id.into(),
        reservation: row.reservation_id.into(),
        user: row.user_id.into(),
        queue: row.queue_id.parse().ok()?,
        state: state(&row.status)?,
        attempt: row.attempt,
        amount: Money::new(row.amount)?,
        discount: Money::new(row.discount)?,
        coupon: row.coupon_id.and_then(|id| id.parse().ok()),
        issue: row.coupon_issue_id.map(Into::into),
        reason: row.reason,
        balance_after: row.balance_after.and_then(Money::new),
        refunded: Money::new(row.refunded)?,
        cancelling: None,
        n: 0,
        created_at: row.created_at.timestamp_millis(),
        at: row.settled_at.timestamp_millis(),
    })
}

fn state(word: &str) -> Option<PaymentState> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
}
