//! Idempotency keys of the partition's users, with their first answers.
//!
//! The answer of a charge or a use is its ledger entry. The key of a payment leads to the payment,
//! and that of a cancellation to the reservation.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::{FromRow, MySqlConnection};
use uuid::Uuid;

use super::writer::{FencedWriter, RowBuffer, optional_bytes};
use crate::recovery::Error;
use crate::redis::{ScriptArgs, scripts};

#[derive(FromRow)]
struct RestoredMovement {
    id: Uuid,
    user_id: Uuid,
    amount: i64,
    balance: i64,
    created_at: DateTime<Utc>,
    idempotency_key: String,
    fingerprint: Option<Vec<u8>>,
}

#[derive(FromRow)]
struct RestoredPayment {
    id: Uuid,
    reservation_id: Uuid,
    user_id: Uuid,
    created_at: DateTime<Utc>,
    settled_at: DateTime<Utc>,
    idempotency_key: Option<String>,
    fingerprint: Option<Vec<u8>>,
    cancel_key: Option<String>,
    cancel_fingerprint: Option<Vec<u8>>,
}

pub(super) async fn restore(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    // One hour longer than a key is kept; the script skips what is too old by Redis' clock.
    let mut query = writer.slot_query(
        "SELECT id, user_id, amount, balance, created_at, idempotency_key, fingerprint FROM \
         wallet_entries WHERE slot IN (",
        ") AND idempotency_key IS NOT NULL AND created_at > UTC_TIMESTAMP(3) - INTERVAL 25 HOUR",
    );
    let mut buffer = RowBuffer::new(
        &scripts::RECOVERY_RESTORE_IDEMPOTENCY_KEYS,
        writer.scope(),
        ScriptArgs::new(),
    );
    let mut rows = query.build_query_as().fetch(&mut *mysql);
    while let Some(moved) = rows.try_next().await? {
        let moved: RestoredMovement = moved;
        let add = |args: &mut ScriptArgs| {
            args.bytes(moved.user_id.as_bytes()).text(&moved.idempotency_key);
            args.bytes(optional_bytes(moved.fingerprint.as_ref())).bytes(moved.id.as_bytes());
            args.int(moved.amount).int(moved.balance).int(moved.created_at.timestamp_millis());
        };
        buffer.add(writer, add).await?;
    }
    drop(rows);

    let mut query = writer.slot_query(
        "SELECT id, reservation_id, user_id, created_at, settled_at, idempotency_key, fingerprint, \
         cancel_key, cancel_fingerprint FROM payments WHERE user_slot IN (",
        ") AND settled_at > UTC_TIMESTAMP(3) - INTERVAL 25 HOUR",
    );
    let mut rows = query.build_query_as().fetch(&mut *mysql);
    while let Some(paid) = rows.try_next().await? {
        let paid: RestoredPayment = paid;
        let keys = [
            (&paid.idempotency_key, &paid.fingerprint, paid.id, paid.created_at),
            (&paid.cancel_key, &paid.cancel_fingerprint, paid.reservation_id, paid.settled_at),
        ];
        for (key, fingerprint, thing, at) in keys {
            let Some(key) = key else { continue };
            let add = |args: &mut ScriptArgs| {
                args.bytes(paid.user_id.as_bytes())
                    .text(key)
                    .bytes(optional_bytes(fingerprint.as_ref()));
                args.bytes(thing.as_bytes()).text("").text("").int(at.timestamp_millis());
            };
            buffer.add(writer, add).await?;
        }
    }
    buffer.write(writer).await
}
