//! Payments that ended within a day, because a repeated request may ask for them that long, and
//! those whose provider has to pay money back. External payments that wait, with their seats. Which
//! references of providers have paid.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::{FromRow, MySqlConnection};
use uuid::Uuid;

use super::writer::{FencedWriter, RowBuffer, optional_bytes};
use crate::ids::{QueueId, ScheduleId};
use crate::money::Money;
use crate::outbox::event::ExternalPayment;
use crate::recovery::Error;
use crate::redis::{KeyScope, ScriptArgs, scripts};

#[derive(FromRow)]
struct Row {
    id: Uuid,
    reservation_id: Uuid,
    user_id: Uuid,
    amount: i64,
    discount: i64,
    status: String,
    reason: Option<String>,
    attempt: u32,
    balance_after: Option<i64>,
    coupon_id: Option<String>,
    coupon_issue_id: Option<Uuid>,
    created_at: DateTime<Utc>,
    settled_at: DateTime<Utc>,
    idempotency_key: Option<String>,
    fingerprint: Option<Vec<u8>>,
    refunded: i64,
    unsettled: i64,
    external_amount: Option<i64>,
    wallet_amount: i64,
    provider: Option<String>,
    reference: Option<String>,
    provider_refunds: Option<String>,
    refund_due_since: Option<DateTime<Utc>>,
}

pub(super) async fn partition_queues(
    writer: &FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<Vec<QueueId>, Error> {
    let names: Vec<String> =
        sqlx::query_scalar("SELECT id FROM queues WHERE deleted_at IS NULL ORDER BY id")
            .fetch_all(mysql)
            .await?;
    let parsed: Result<Vec<QueueId>, Error> = names
        .into_iter()
        .map(|name| name.parse().map_err(|_| Error::InvalidRow("queues", name)))
        .collect();
    let own = |queue: &QueueId| writer.redis.keys().partition(queue.slot()) == writer.partition;
    Ok(parsed?.into_iter().filter(own).collect())
}

pub(super) async fn restore(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    for queue in partition_queues(writer, mysql).await? {
        restore_queue(writer, mysql, &queue).await?;
    }
    restore_waiting(writer, mysql).await?;
    restore_pending_lists(writer, mysql).await?;
    restore_references(writer, mysql).await
}

/// External payments that wait for their provider.
async fn restore_waiting(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    let mut query = writer.slot_query(
        "SELECT queue_id, schedule_id, payment_record, reservation_record FROM pending_payments \
         WHERE slot IN (",
        ")",
    );
    let mut rows = query.build_query_as().fetch(mysql);
    while let Some((queue, schedule, payment, reservation)) = rows.try_next().await? {
        let (queue, schedule): (String, String) = (queue, schedule);
        let (payment, reservation): (Vec<u8>, Vec<u8>) = (payment, reservation);
        let invalid = |name: String| Error::InvalidRow("pending_payments", name);
        let queue: QueueId = queue.parse().map_err(|_| invalid(queue.clone()))?;
        let schedule: ScheduleId = schedule.parse().map_err(|_| invalid(schedule.clone()))?;
        let scope = KeyScope::schedule(writer.redis.keys(), &queue, &schedule);
        let mut args = ScriptArgs::new();
        args.bytes(&payment).bytes(&reservation);
        writer.call(&scripts::RECOVERY_RESTORE_PENDING_PAYMENT, scope, args, Vec::new()).await?;
    }
    Ok(())
}

/// Which payments of the partition's users wait, as in `lua/payment/count_pending.lua`.
async fn restore_pending_lists(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    let mut query = writer.slot_query(
        "SELECT user_id, id, attempt FROM pending_payments WHERE user_slot IN (",
        ") ORDER BY user_id, created_at, id",
    );
    let rows: Vec<(Uuid, Uuid, u32)> = query.build_query_as().fetch_all(mysql).await?;
    let mut lists = writer.hash_rows(writer.scope(), "pending");
    for of_user in rows.chunk_by(|one, next| one.0 == next.0) {
        let entries: Vec<u8> = of_user
            .iter()
            .flat_map(|(_, id, attempt)| {
                [id.as_bytes().as_slice(), format!("{attempt:010}").as_bytes()].concat()
            })
            .collect();
        let add = |args: &mut ScriptArgs| {
            args.bytes(of_user[0].0.as_bytes()).bytes(&entries);
        };
        lists.add(writer, add).await?;
    }
    lists.write(writer).await
}

/// The references in this partition, as in `lua/payment/claim_reference.lua`.
async fn restore_references(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    let mut query = writer.slot_query(
        "SELECT reference_key, id, attempt FROM payments WHERE reference_slot IN (",
        ") AND status IN ('confirmed', 'refunded')",
    );
    let mut rows = query.build_query_as().fetch(mysql);
    let mut references = writer.hash_rows(writer.scope(), "references");
    while let Some((key, id, attempt)) = rows.try_next().await? {
        let (key, id, attempt): (Vec<u8>, Uuid, u32) = (key, id, attempt);
        let claim = [id.as_bytes().as_slice(), attempt.to_string().as_bytes()].concat();
        let add = |args: &mut ScriptArgs| {
            args.bytes(&key).bytes(&claim);
        };
        references.add(writer, add).await?;
    }
    references.write(writer).await
}

impl Row {
    /// As JSON, empty for a payment by wallet.
    fn external(&self) -> Result<String, Error> {
        let Some(due) = self.external_amount else { return Ok(String::new()) };
        let invalid = || Error::InvalidRow("payments", self.id.to_string());
        let external = ExternalPayment {
            wallet_amount: Money::new(self.wallet_amount).ok_or_else(invalid)?,
            due_amount: Money::new(due),
            due_at: None,
            provider: self.provider.clone(),
            reference: self.reference.clone(),
            refunds: serde_json::from_str(self.provider_refunds.as_deref().unwrap_or("[]"))
                .map_err(|_| invalid())?,
            refund_due_since: self.refund_due_since.map(|since| since.timestamp_millis()),
        };
        serde_json::to_string(&external).map_err(|_| invalid())
    }
}

async fn restore_queue(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
    queue: &QueueId,
) -> Result<(), Error> {
    // A confirmed payment whose coupon issue is not marked as redeemed becomes due, so that the
    // sweep marks it.
    let list = "SELECT p.id, p.reservation_id, p.user_id, p.amount, p.discount, p.status, \
                p.reason, p.attempt, p.balance_after, p.coupon_id, \
                p.coupon_issue_id, p.created_at, p.settled_at, p.idempotency_key, p.fingerprint, \
                p.refunded, p.external_amount, p.wallet_amount, p.provider, p.reference, \
                CAST(p.provider_refunds AS CHAR) AS provider_refunds, p.refund_due_since, \
                CAST(p.status = 'confirmed' AND p.coupon_id IS NOT NULL AND p.coupon_issue_id IS \
                NOT NULL AND NOT EXISTS \
                  (SELECT 1 FROM coupon_issues i WHERE i.id = p.coupon_issue_id AND i.payment_id = \
                  p.id) AS SIGNED) AS unsettled \
                FROM payments p LEFT JOIN reservations r ON r.id = p.reservation_id LEFT JOIN \
                concerts c ON c.id = r.concert_id \
                WHERE p.slot = ? AND p.queue_id = ? AND (p.settled_at > UTC_TIMESTAMP(3) - \
                INTERVAL 25 HOUR AND c.archived_at IS NULL OR p.refund_due_since IS NOT NULL)";
    let mut rows = sqlx::query_as(list).bind(queue.slot().get()).bind(queue.as_str()).fetch(mysql);
    let mut head = ScriptArgs::new();
    head.text(&writer.checkpoint.to_string());
    let due = writer.redis.key(KeyScope::queue(writer.redis.keys(), queue), "q:due");
    let mut buffer =
        RowBuffer::new(&scripts::RECOVERY_RESTORE_PAYMENTS, writer.scope(), head).with_key(due);
    while let Some(row) = rows.try_next().await? {
        let row: Row = row;
        let external = row.external()?;
        let add = |args: &mut ScriptArgs| {
            args.bytes(row.id.as_bytes())
                .bytes(row.reservation_id.as_bytes())
                .bytes(row.user_id.as_bytes());
            args.text(queue.as_str()).text(&row.status).int(row.attempt.into());
            args.int(row.amount).int(row.discount).text(row.reason.as_deref().unwrap_or(""));
            args.optional_int(row.balance_after);
            args.int(row.created_at.timestamp_millis()).int(row.settled_at.timestamp_millis());
            args.text(row.coupon_id.as_deref().unwrap_or(""));
            args.bytes(row.coupon_issue_id.as_ref().map_or(&[], |id| id.as_bytes()));
            args.text(row.idempotency_key.as_deref().unwrap_or(""));
            args.bytes(optional_bytes(row.fingerprint.as_ref()));
            args.int(row.refunded).text(&external).int(row.unsettled);
        };
        buffer.add(writer, add).await?;
    }
    buffer.write(writer).await
}
