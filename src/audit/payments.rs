//! Payments: one final state each, the same in both stores; confirmed means debited and sold.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{AuditContext, CheckTally, push_values};
use crate::ids::{IssueId, PaymentId, ReservationId, UserId};
use crate::store_error::StoreError;

/// How long a payment may be without a final state, and an external one past its time. The sweep
/// continues it after ten seconds, repeatedly.
const MAX_UNFINISHED_MS: i64 = 60_000;

/// The record in Redis.
#[derive(Deserialize)]
struct AuditedPayment {
    reservation: ReservationId,
    user: UserId,
    state: String,
    attempt: u32,
    amount: i64,
    discount: i64,
    #[serde(default)]
    balance_after: Option<i64>,
    #[serde(default)]
    issue: Option<IssueId>,
    #[serde(default)]
    refunded: i64,
    #[serde(default)]
    external: Option<AuditedExternal>,
    at: i64,
}

#[derive(Deserialize)]
struct AuditedExternal {
    wallet_amount: i64,
    #[serde(default)]
    due_amount: Option<i64>,
    #[serde(default)]
    due_at: Option<i64>,
    #[serde(default)]
    provider: Option<String>,
    #[serde(default)]
    reference: Option<String>,
    #[serde(default)]
    refund_due_since: Option<i64>,
}

/// The row in MySQL, with its reservation and coupon issue.
#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    reservation_id: Uuid,
    user_id: Uuid,
    amount: i64,
    discount: i64,
    status: String,
    attempt: u32,
    balance_after: Option<i64>,
    coupon_issue_id: Option<Uuid>,
    refunded: i64,
    external_amount: Option<i64>,
    wallet_amount: i64,
    provider: Option<String>,
    reference: Option<String>,
    refund_due_since: Option<DateTime<Utc>>,
    provider_refunds: Option<String>,
    reservation: Option<String>,
    owner: Option<Uuid>,
    used_by: Option<Uuid>,
}

pub(super) async fn check(context: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new(
        "payments",
        "one final state, the same in both stores; confirmed exactly when the reservation is, \
         debited \
         and not refunded",
    );
    let inspect = |chunk: Vec<PaymentId>| async move { inspect(context, &chunk).await };
    for partition in context.partitions() {
        let id = |field: &Bytes| {
            PaymentId::from_slice(field).filter(|id| context.partition(id.slot()) == partition)
        };
        context.walk_hash(&mut tally, (partition, "payments"), id, &inspect).await?;
    }
    let select = "SELECT id FROM payments WHERE id > ? ORDER BY id LIMIT 500";
    context.walk_table(&mut tally, select, &inspect).await?;
    Ok(tally)
}

async fn inspect(
    context: &AuditContext<'_>,
    ids: &[PaymentId],
) -> Result<Vec<(PaymentId, String)>, StoreError> {
    let uuids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let keys = context.redis.keys();
    let ids_by_partition: Vec<_> =
        ids.iter().map(|id| (keys.partition(id.slot()), id.uuid())).collect();
    let records: Vec<Option<Result<AuditedPayment, String>>> =
        context.records("payments", &ids_by_partition).await?;
    let mut query = QueryBuilder::new(
        "SELECT p.id, p.reservation_id, p.user_id, p.amount, p.discount, p.status, p.attempt, \
         p.balance_after, p.coupon_issue_id, p.refunded, \
         p.external_amount, p.wallet_amount, p.provider, p.reference, p.refund_due_since, \
         CAST(p.provider_refunds AS CHAR) AS provider_refunds, \
         r.status AS reservation, r.user_id AS owner, i.payment_id AS used_by FROM payments p \
         LEFT JOIN reservations r ON r.id = p.reservation_id LEFT JOIN coupon_issues i ON i.id = \
         p.coupon_issue_id WHERE p.id IN (",
    );
    push_values(query.separated(", "), &uuids);
    let rows: Vec<Row> =
        query.push(")").build_query_as().persistent(false).fetch_all(context.mysql).await?;
    let rows: BTreeMap<Uuid, Row> = rows.into_iter().map(|row| (row.id, row)).collect();
    // The user's partition keeps the wallet operation of each attempt for a week.
    let mut ops = Vec::new();
    for (id, record) in ids.iter().zip(&records) {
        if let Some(Ok(record)) = record {
            let op = [id.as_bytes().as_slice(), record.attempt.to_string().as_bytes()].concat();
            ops.push((keys.partition(record.user.slot()), Bytes::from(op)));
        }
    }
    let mut ops = context.fields("wallet_ops", &ops).await?.into_iter();

    let now = context.clock(ids.first().map(|id| id.slot())).await?;
    let mut faults = Vec::new();
    for (id, record) in ids.iter().zip(records) {
        let row = rows.get(&id.uuid());
        let mut wrong = |text: String| faults.push((*id, format!("payment {id}: {text}")));
        match record.transpose() {
            Ok(Some(record)) => {
                let op = ops.next().flatten();
                if let Some(text) = store_difference(&record, row) {
                    wrong(text);
                }
                if let Some(text) = record.contradiction(op.as_deref(), now) {
                    wrong(text);
                }
            }
            Ok(None) => {}
            Err(error) => wrong(format!("can't be decoded: {error}")),
        }
        if let Some(text) = row.and_then(Row::contradiction) {
            wrong(text);
        }
    }
    Ok(faults)
}

/// How the record and the row differ.
fn store_difference(record: &AuditedPayment, row: Option<&Row>) -> Option<String> {
    let expected = match record.state.as_str() {
        // In progress. A row may exist from an earlier attempt.
        "pending" | "voiding" => return None,
        "refunding" => "confirmed",
        end => end,
    };
    let Some(row) = row else { return Some(format!("is {expected} in Redis and not in MySQL")) };
    let same = expected == row.status
        && record.reservation.uuid() == row.reservation_id
        && record.user.uuid() == row.user_id
        && (record.amount, record.discount, record.attempt)
            == (row.amount, row.discount, row.attempt)
        && record.balance_after == row.balance_after
        && record.refunded == row.refunded
        && record.is_external_like(row)
        && record.issue.map(IssueId::uuid) == row.coupon_issue_id;
    (!same).then(|| {
        format!(
            "differs: {expected}, {} in Redis; {}, {} in MySQL",
            record.amount, row.status, row.amount
        )
    })
}

impl AuditedPayment {
    fn is_external_like(&self, row: &Row) -> bool {
        let Some(external) = &self.external else { return row.external_amount.is_none() };
        row.external_amount == Some(external.due_amount.unwrap_or(0))
            && external.provider == row.provider
            && external.reference == row.reference
            && external.refund_due_since
                == row.refund_due_since.map(|since| since.timestamp_millis())
            && (external.due_amount.is_none() || external.wallet_amount == row.wallet_amount)
    }

    /// Since when it should have ended.
    fn late_since(&self) -> i64 {
        let due_at = self.external.as_ref().and_then(|external| external.due_at);
        due_at.filter(|_| self.state == "pending").unwrap_or(self.at)
    }

    /// How the wallet operation or the clock contradicts the state.
    fn contradiction(&self, op: Option<&[u8]>, now: i64) -> Option<String> {
        let debited = op.map(|op| op.starts_with(b"d"));
        match (self.state.as_str(), debited) {
            ("confirmed", Some(false)) => {
                Some("is confirmed, but its debit was refunded".to_owned())
            }
            ("declined" | "voided", Some(true)) => {
                Some(format!("is {}, but its debit was not refunded", self.state))
            }
            ("pending" | "voiding" | "refunding", _)
                if now - self.late_since() > MAX_UNFINISHED_MS =>
            {
                let seconds = (now - self.late_since()) / 1_000;
                Some(format!("has been {} for {seconds} s too long", self.state))
            }
            _ => None,
        }
    }
}

impl Row {
    /// How the parts of an external payment contradict each other.
    fn external_contradiction(&self) -> Option<String> {
        let due = self.external_amount?;
        let was_paid = ["confirmed", "refunded"].contains(&self.status.as_str());
        if was_paid && (due <= 0 || self.provider.is_none() || self.reference.is_none()) {
            return Some("is confirmed without a reference of its provider".to_owned());
        }
        #[derive(Deserialize)]
        struct AuditedRefund {
            amount: i64,
        }
        let refunds: Vec<AuditedRefund> =
            serde_json::from_str(self.provider_refunds.as_deref().unwrap_or("[]")).ok()?;
        let paid_back: i64 = refunds.iter().map(|refund| refund.amount).sum();
        let owed = (self.refunded - self.wallet_amount).max(0) - paid_back;
        if owed < 0 {
            return Some(format!("its provider paid back {} too much", -owed));
        }
        (was_paid && (owed > 0) != self.refund_due_since.is_some())
            .then(|| format!("its provider owes {owed}, which its row does not say"))
    }

    /// How other rows of MySQL contradict the status.
    fn contradiction(&self) -> Option<String> {
        let reservation = self.reservation.as_deref().unwrap_or("missing");
        let fits = match self.status.as_str() {
            "confirmed" => reservation == "confirmed",
            "refunded" => reservation == "cancelled",
            // Another payment may have paid the reservation, or the hold is still active and has no
            // row.
            "declined" | "voided" => true,
            other => return Some(format!("has the unknown status {other}")),
        };
        if !fits {
            return Some(format!("is {}, but its reservation is {reservation}", self.status));
        }
        if self.owner.is_some_and(|owner| owner != self.user_id) {
            return Some("belongs to another user than its reservation".to_owned());
        }
        if let Some(text) = self.external_contradiction() {
            return Some(text);
        }
        let used = self.coupon_issue_id.is_none() || self.used_by == Some(self.id);
        (self.status == "confirmed" && !used)
            .then(|| "its coupon issue is not redeemed by it".to_owned())
    }
}
