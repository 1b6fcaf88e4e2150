//! SQL of payments. These functions only read: the writer of the outbox writes the rows.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, MySqlPool};
use uuid::Uuid;

use super::record::{Payment, PaymentState};
use crate::ids::{PaymentId, ReservationId};
use crate::money::Money;
use crate::mysql;

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
}

pub(super) async fn one(pool: &MySqlPool, id: PaymentId) -> Result<Option<Payment>, mysql::Error> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT id, reservation_id, user_id, queue_id, amount, discount, status, coupon_id, \
         coupon_issue_id, reason, attempt, balance_after, created_at, settled_at \
         FROM payments WHERE id = ?",
    )
    .bind(id.uuid())
    .fetch_optional(pool)
    .await?;
    Ok(row.and_then(read))
}

/// The payment of a confirmed reservation.
pub(super) async fn confirmed_of(
    pool: &MySqlPool,
    reservation: ReservationId,
) -> Result<Option<Payment>, mysql::Error> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT id, reservation_id, user_id, queue_id, amount, discount, status, coupon_id, \
         coupon_issue_id, reason, attempt, balance_after, created_at, settled_at \
         FROM payments WHERE reservation_id = ? AND status = 'confirmed'",
    )
    .bind(reservation.uuid())
    .fetch_optional(pool)
    .await?;
    Ok(row.and_then(read))
}

fn read(row: Row) -> Option<Payment> {
    Some(Payment {
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
        n: 0,
        created_at: row.created_at.timestamp_millis(),
        at: row.settled_at.timestamp_millis(),
    })
}

fn state(word: &str) -> Option<PaymentState> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
}
