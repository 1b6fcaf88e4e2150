//! Payments that ended within a day, because a repeated request may ask for them that long.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::{FromRow, MySqlConnection};
use uuid::Uuid;

use super::writer::{FencedWriter, RowBuffer, optional_bytes};
use crate::ids::QueueId;
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
    Ok(())
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
                p.refunded, \
                CAST(p.status = 'confirmed' AND p.coupon_id IS NOT NULL AND p.coupon_issue_id IS \
                NOT NULL AND NOT EXISTS \
                  (SELECT 1 FROM coupon_issues i WHERE i.id = p.coupon_issue_id AND i.payment_id = \
                  p.id) AS SIGNED) AS unsettled \
                FROM payments p LEFT JOIN reservations r ON r.id = p.reservation_id LEFT JOIN \
                concerts c ON c.id = r.concert_id \
                WHERE p.slot = ? AND p.queue_id = ? AND p.settled_at > UTC_TIMESTAMP(3) - INTERVAL \
                25 HOUR AND c.archived_at IS NULL";
    let mut rows = sqlx::query_as(list).bind(queue.slot().get()).bind(queue.as_str()).fetch(mysql);
    let mut head = ScriptArgs::new();
    head.text(&writer.checkpoint.to_string());
    let due = writer.redis.key(KeyScope::queue(writer.redis.keys(), queue), "q:due");
    let mut buffer =
        RowBuffer::new(&scripts::RECOVERY_RESTORE_PAYMENTS, writer.scope(), head).with_key(due);
    while let Some(row) = rows.try_next().await? {
        let row: Row = row;
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
            args.int(row.refunded).int(row.unsettled);
        };
        buffer.add(writer, add).await?;
    }
    buffer.write(writer).await
}
