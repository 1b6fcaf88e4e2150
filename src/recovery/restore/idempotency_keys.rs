//! Idempotency keys of the partition's users, with their first answers.
//!
//! The answer of a charge or a use is its ledger entry. The key of a payment leads to the payment,
//! and those of its cancellations to the reservation.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::{FromRow, MySqlConnection};
use uuid::Uuid;

use super::writer::{FencedWriter, RowBuffer, optional_bytes};
use crate::outbox::event::SeatCancellation;
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
    idempotency_key: Option<String>,
    fingerprint: Option<Vec<u8>>,
    /// Those of its reservation, as JSON.
    cancellations: Option<String>,
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
        "SELECT p.id, p.reservation_id, p.user_id, p.created_at, p.idempotency_key, p.fingerprint, \
         CAST(r.cancellations AS CHAR) AS cancellations \
         FROM payments p LEFT JOIN reservations r ON r.payment_id = p.id AND r.id = \
         p.reservation_id WHERE p.user_slot IN (",
        ") AND p.settled_at > UTC_TIMESTAMP(3) - INTERVAL 25 HOUR",
    );
    let mut rows = query.build_query_as().fetch(&mut *mysql);
    while let Some(paid) = rows.try_next().await? {
        let paid: RestoredPayment = paid;
        let mut keys = Vec::new();
        if let Some(key) = &paid.idempotency_key {
            let fingerprint = optional_bytes(paid.fingerprint.as_ref()).to_vec();
            keys.push((key.clone(), fingerprint, paid.id, paid.created_at.timestamp_millis()));
        }
        let cancellations: Vec<SeatCancellation> =
            serde_json::from_str(paid.cancellations.as_deref().unwrap_or("[]"))
                .map_err(|error| Error::InvalidRow("reservations", error.to_string()))?;
        for cancellation in cancellations.into_iter().filter(|it| !it.key.is_empty()) {
            let fingerprint = from_hex(&cancellation.fingerprint)
                .ok_or_else(|| Error::InvalidRow("reservations", cancellation.key.clone()))?;
            keys.push((cancellation.key, fingerprint, paid.reservation_id, cancellation.at));
        }
        for (key, fingerprint, thing, at) in keys {
            let add = |args: &mut ScriptArgs| {
                args.bytes(paid.user_id.as_bytes()).text(&key).bytes(&fingerprint);
                args.bytes(thing.as_bytes()).text("").text("").int(at);
            };
            buffer.add(writer, add).await?;
        }
    }
    drop(rows);

    let mut query = writer.slot_query(
        "SELECT user_id, idempotency_key, fingerprint, id, created_at FROM pending_payments WHERE \
         user_slot IN (",
        ") AND idempotency_key IS NOT NULL",
    );
    let mut rows = query.build_query_as().fetch(&mut *mysql);
    while let Some((user, key, fingerprint, payment, at)) = rows.try_next().await? {
        let (user, key, payment): (Uuid, String, Uuid) = (user, key, payment);
        let (fingerprint, at): (Option<Vec<u8>>, DateTime<Utc>) = (fingerprint, at);
        let add = |args: &mut ScriptArgs| {
            args.bytes(user.as_bytes()).text(&key).bytes(optional_bytes(fingerprint.as_ref()));
            args.bytes(payment.as_bytes()).text("").text("").int(at.timestamp_millis());
        };
        buffer.add(writer, add).await?;
    }
    buffer.write(writer).await
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
