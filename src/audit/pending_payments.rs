//! External payments that wait for a provider, references of providers, and refunds that are due.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{AuditContext, CheckTally, PAGE_SIZE, push_values};
use crate::ids::PaymentId;
use crate::partition::HashSlot;
use crate::store_error::StoreError;

/// How long a row may be in MySQL after its time.
const MAX_OVERDUE_MS: i64 = 60_000;

#[derive(Deserialize)]
struct WaitingPayment {
    state: String,
    attempt: u32,
    #[serde(default)]
    external: Option<WaitingTerms>,
}

#[derive(Deserialize)]
struct WaitingTerms {
    #[serde(default)]
    due_at: Option<i64>,
}

impl WaitingPayment {
    fn waits(&self) -> bool {
        let due_at = self.external.as_ref().and_then(|external| external.due_at);
        due_at.is_some() && ["pending", "voiding"].contains(&self.state.as_str())
    }
}

/// Each external payment that waits is in both stores, and none past its time.
pub(super) async fn check_waiting(context: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new(
        "pending payments",
        "each external payment that waits for its provider is in both stores, none past its time",
    );
    let inspect = |chunk: Vec<PaymentId>| async move { inspect_waiting(context, &chunk).await };
    for partition in context.partitions() {
        let id = |field: &Bytes| PaymentId::from_slice(field);
        context.walk_hash(&mut tally, (partition, "payments"), id, &inspect).await?;
    }
    let select = "SELECT id FROM pending_payments WHERE id > ? ORDER BY id LIMIT 500";
    context.walk_table(&mut tally, select, &inspect).await?;
    Ok(tally)
}

async fn inspect_waiting(
    context: &AuditContext<'_>,
    ids: &[PaymentId],
) -> Result<Vec<(PaymentId, String)>, StoreError> {
    let keys = context.redis.keys();
    let by_partition: Vec<_> =
        ids.iter().map(|id| (keys.partition(id.slot()), id.uuid())).collect();
    let records: Vec<Option<Result<WaitingPayment, String>>> =
        context.records("payments", &by_partition).await?;
    let mut query =
        QueryBuilder::new("SELECT id, attempt, due_at FROM pending_payments WHERE id IN (");
    push_values(query.separated(", "), &ids.iter().map(|id| id.uuid()).collect::<Vec<_>>());
    let rows: Vec<(Uuid, u32, DateTime<Utc>)> =
        query.push(")").build_query_as().persistent(false).fetch_all(context.mysql).await?;
    let rows: BTreeMap<Uuid, (u32, i64)> = rows
        .into_iter()
        .map(|(id, attempt, due_at)| (id, (attempt, due_at.timestamp_millis())))
        .collect();
    let now = context.clock(ids.first().map(|id| id.slot())).await?;
    let mut faults = Vec::new();
    for (id, record) in ids.iter().zip(records) {
        // The check of payments reports a record that can't be decoded.
        let record = record.and_then(Result::ok).filter(WaitingPayment::waits);
        let text = match (record, rows.get(&id.uuid())) {
            (Some(record), Some((attempt, _))) if record.attempt != *attempt => {
                format!("waits as attempt {}, but as {attempt} in MySQL", record.attempt)
            }
            (Some(_), Some((_, due_at))) if now - due_at > MAX_OVERDUE_MS => {
                format!("waits {} s past its time", (now - due_at) / 1_000)
            }
            (Some(_), Some(_)) | (None, None) => continue,
            (Some(_), None) => "waits in Redis and not in MySQL".to_owned(),
            (None, Some(_)) => "waits in MySQL and not in Redis".to_owned(),
        };
        faults.push((*id, format!("payment {id}: {text}")));
    }
    Ok(faults)
}

/// No reference has paid twice, and each that has paid is claimed. Counts the refunds that are due.
pub(super) async fn check_references(context: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new(
        "references",
        "each reference of a provider has paid one payment, and is claimed by it",
    );
    for partition in context.partitions() {
        tally.count_redis(context.redis.hash_len(partition, "references").await?);
    }
    let inspect = |chunk: Vec<PaymentId>| async move { inspect_references(context, &chunk).await };
    let mut after = Uuid::nil();
    loop {
        let page: Vec<Uuid> = sqlx::query_scalar(
            "SELECT id FROM payments WHERE id > ? AND reference_key IS NOT NULL ORDER BY id LIMIT ?",
        )
        .bind(after)
        .bind(PAGE_SIZE as u64)
        .fetch_all(context.mysql)
        .await?;
        let Some(last) = page.last() else { break };
        after = *last;
        tally.count_mysql(page.len());
        let ids = page.iter().copied().map(PaymentId::from).collect();
        context.inspect(&mut tally, ids, &inspect).await?;
    }
    let due: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM payments WHERE refund_due_since IS NOT NULL")
            .fetch_one(context.mysql)
            .await?;
    tally.note = format!("{}; refunds due: {due}", tally.note);
    Ok(tally)
}

async fn inspect_references(
    context: &AuditContext<'_>,
    ids: &[PaymentId],
) -> Result<Vec<(PaymentId, String)>, StoreError> {
    let mut query = QueryBuilder::new(
        "SELECT p.id, p.attempt, p.reference_key, p.reference_slot, (SELECT COUNT(*) FROM payments \
         o WHERE o.reference_key = p.reference_key AND o.status IN ('confirmed', 'refunded')) \
         FROM payments p WHERE p.id IN (",
    );
    push_values(query.separated(", "), &ids.iter().map(|id| id.uuid()).collect::<Vec<_>>());
    query.push(") AND p.status IN ('confirmed', 'refunded')");
    let rows: Vec<(Uuid, u32, Vec<u8>, u16, i64)> =
        query.build_query_as().persistent(false).fetch_all(context.mysql).await?;
    let fields: Vec<_> = rows
        .iter()
        .map(|(_, _, key, slot, _)| {
            (context.partition(HashSlot::from_low_bits(*slot)), Bytes::copy_from_slice(key))
        })
        .collect();
    let claims = context.fields("references", &fields).await?;
    let mut faults = Vec::new();
    for ((id, attempt, _, _, times), claim) in rows.into_iter().zip(claims) {
        let id = PaymentId::from(id);
        let own = [id.as_bytes().as_slice(), attempt.to_string().as_bytes()].concat();
        if times > 1 {
            faults.push((id, format!("payment {id}: its reference has paid {times} payments")));
        } else if claim.as_deref() != Some(own.as_slice()) {
            faults.push((id, format!("payment {id}: its reference is not claimed by it")));
        }
    }
    Ok(faults)
}
