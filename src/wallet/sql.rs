//! Queries of `wallet_entries`, which the outbox writer fills.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, MySqlPool};
use uuid::Uuid;

use super::{EntrySubject, LedgerEntry, PositionedLedgerEntry};
use crate::ids::UserId;
use crate::money::Money;
use crate::mysql;
use crate::outbox::event::EntryKind;

#[derive(FromRow)]
struct Row {
    id: Uuid,
    position: i64,
    kind: String,
    amount: i64,
    balance: i64,
    created_at: DateTime<Utc>,
    payment_id: Option<Uuid>,
    reservation_id: Option<Uuid>,
    claim_id: Option<Uuid>,
    reference: Option<String>,
}

/// The newest entries of a user before a position, at most `limit`.
pub(super) async fn entries_before(
    pool: &MySqlPool,
    user: UserId,
    position: i64,
    limit: usize,
) -> Result<Vec<PositionedLedgerEntry>, mysql::Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, position, kind, amount, balance, created_at, payment_id, reservation_id, \
         claim_id, reference FROM wallet_entries \
         WHERE user_id = ? AND position < ? ORDER BY position DESC LIMIT ?",
    )
    .bind(user.uuid())
    .bind(position)
    .bind(u64::try_from(limit).unwrap_or(u64::MAX))
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().filter_map(read).collect())
}

fn read(row: Row) -> Option<PositionedLedgerEntry> {
    let entry = LedgerEntry {
        id: row.id.into(),
        amount: Money::new(row.amount)?,
        balance: Money::new(row.balance)?,
        at: row.created_at.timestamp_millis(),
    };
    let subject = EntrySubject {
        payment: row.payment_id.map(Into::into),
        reservation: row.reservation_id.map(Into::into),
        claim: row.claim_id.map(Into::into),
        reference: row.reference,
    };
    Some(PositionedLedgerEntry { position: row.position, kind: kind(&row.kind)?, entry, subject })
}

fn kind(word: &str) -> Option<EntryKind> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
}
