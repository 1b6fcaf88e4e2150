//! Wallets: balances, paid totals, and the operations of payments on them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::{FromRow, MySqlConnection};
use uuid::Uuid;

use super::writer::{FencedWriter, RowBuffer};
use crate::ids::{EntryId, UserId};
use crate::recovery::Error;
use crate::redis::codes::RecoveryRepeatDebitCode;
use crate::redis::{ScriptArgs, scripts};

#[derive(FromRow)]
struct RestoredOperation {
    payment_id: Uuid,
    attempt: u32,
    kind: String,
    amount: i64,
    balance: i64,
    created_at: DateTime<Utc>,
}

pub(super) async fn restore(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    let mut undebited = undebited_payments(writer, mysql).await?;
    let mut query = writer.slot_query(
        "SELECT user_id, balance, paid_total, paid_count FROM wallets WHERE slot IN (",
        ")",
    );
    let mut rows = query.build_query_as().fetch(&mut *mysql);
    let mut balances = writer.hash_rows(writer.scope(), "wallets");
    let mut totals = writer.hash_rows(writer.scope(), "tallies");
    while let Some((user, balance, total, count)) = rows.try_next().await? {
        let (user, balance, total, count): (Uuid, i64, i64, i64) = (user, balance, total, count);
        balances
            .add(writer, |args| {
                args.bytes(user.as_bytes()).int(balance);
            })
            .await?;
        let count = count + undebited.remove(&user).unwrap_or(0);
        if count > 0 {
            add_total(&mut totals, writer, user, total, count).await?;
        }
    }
    for (user, count) in undebited {
        add_total(&mut totals, writer, user, 0, count).await?;
    }
    balances.write(writer).await?;
    totals.write(writer).await?;
    drop(rows);

    // Redis keeps operations for seven days and purges what is older.
    let mut query = writer.slot_query(
        "SELECT payment_id, attempt, kind, amount, balance, created_at FROM wallet_entries WHERE \
         slot IN (",
        ") AND payment_id IS NOT NULL AND attempt IS NOT NULL AND created_at > UTC_TIMESTAMP(3) - \
         INTERVAL 8 DAY",
    );
    let mut rows = query.build_query_as().fetch(&mut *mysql);
    let mut buffer = RowBuffer::new(
        &scripts::RECOVERY_RESTORE_WALLET_OPERATIONS,
        writer.scope(),
        ScriptArgs::new(),
    );
    while let Some(operation) = rows.try_next().await? {
        let operation: RestoredOperation = operation;
        let (name, value) = operation.record();
        let at = operation.created_at.timestamp_millis();
        buffer
            .add(writer, |args| {
                args.bytes(&name).text(&value).int(at);
            })
            .await?;
    }
    drop(rows);

    // What cancellations refunded, in total: the last one ended the payment.
    let mut query = writer.slot_query(
        "SELECT e.payment_id, (SELECT CAST(SUM(a.amount) AS SIGNED) FROM wallet_entries a WHERE \
         a.payment_id = e.payment_id AND a.kind = 'refund' AND a.attempt IS NULL), \
         MAX(e.created_at), CAST(MAX(e.ends_payment) AS SIGNED) FROM wallet_entries e \
         WHERE e.slot IN (",
        ") AND e.kind = 'refund' AND e.payment_id IS NOT NULL AND e.attempt IS NULL AND \
         e.created_at > UTC_TIMESTAMP(3) - INTERVAL 8 DAY GROUP BY e.payment_id",
    );
    let mut rows = query.build_query_as().fetch(&mut *mysql);
    while let Some((payment, total, at, ended)) = rows.try_next().await? {
        let (payment, total, at, ended): (Uuid, i64, DateTime<Utc>, i64) =
            (payment, total, at, ended);
        let name = [payment.as_bytes().as_slice(), b"c"].concat();
        let value = format!("{}{total}", if ended == 1 { "l" } else { "g" });
        buffer
            .add(writer, |args| {
                args.bytes(&name).text(&value).int(at.timestamp_millis());
            })
            .await?;
    }
    buffer.write(writer).await
}

/// Confirmed payments of which the wallet pays nothing, by user. They have no ledger entry, so the
/// wallets do not count them.
async fn undebited_payments(
    writer: &FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<HashMap<Uuid, i64>, Error> {
    let mut query = writer.slot_query(
        "SELECT user_id, COUNT(*) FROM payments WHERE is_undebited = 1 AND user_slot IN (",
        ") GROUP BY user_id",
    );
    let rows: Vec<(Uuid, i64)> = query.build_query_as().fetch_all(mysql).await?;
    Ok(rows.into_iter().collect())
}

async fn add_total(
    totals: &mut RowBuffer<'_>,
    writer: &mut FencedWriter<'_>,
    user: Uuid,
    total: i64,
    count: i64,
) -> Result<(), Error> {
    let add = |args: &mut ScriptArgs| {
        args.bytes(user.as_bytes()).text(&format!("{total} {count}"));
    };
    totals.add(writer, add).await
}

impl RestoredOperation {
    /// Name and value as in `lua/lib/wallet_operations.lua`.
    fn record(&self) -> (Vec<u8>, String) {
        let value = if self.kind == "payment" {
            format!("d{}:{}", self.amount, self.balance)
        } else {
            "t".to_owned()
        };
        let attempt = self.attempt.to_string();
        ([self.payment_id.as_bytes().as_slice(), attempt.as_bytes()].concat(), value)
    }
}

/// Repeats the debits that MySQL lacks for payments that it has as confirmed: the queue's partition
/// was written further than this one. A payment records the balance right after its debit. Where
/// the restored balance is too low for that, the charge before it was lost as well, and is repeated
/// too. So no balance becomes negative, and the ledger adds up.
pub(super) async fn redebit_paid_payments(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    // A debit that MySQL lacks came after the last event that it has of this partition.
    let mut query = writer.slot_query(
        "SELECT p.id, p.attempt, p.user_id, p.reservation_id, CAST(p.wallet_amount AS SIGNED), \
         CAST(COALESCE(p.balance_after, 0) AS SIGNED) FROM payments p WHERE p.user_slot IN (",
        ") AND p.settled_at > (SELECT updated_at - INTERVAL 1 DAY FROM outbox_checkpoints WHERE \
         partition_id = ",
    );
    query.push_bind(writer.partition.get()).push(
        ") AND p.status IN ('confirmed', 'refunded') AND p.wallet_amount > 0 AND NOT EXISTS \
         (SELECT 1 FROM wallet_entries e WHERE e.payment_id = p.id AND e.attempt = p.attempt) \
         ORDER BY p.settled_at, p.id",
    );
    let mut rows = query.build_query_as().fetch(mysql);
    while let Some((payment, attempt, user, reservation, amount, after)) = rows.try_next().await? {
        let (payment, attempt, user): (Uuid, u32, Uuid) = (payment, attempt, user);
        let reservation: Uuid = reservation;
        let (amount, after): (i64, i64) = (amount, after);
        let mut args = ScriptArgs::new();
        let operation = (payment, attempt, reservation);
        redebit_args(&mut args, operation, user.into(), amount, Some(amount + after));
        let done =
            writer.call(&scripts::RECOVERY_REPEAT_DEBIT, writer.scope(), args, Vec::new()).await?;
        if done.code::<RecoveryRepeatDebitCode>()? == RecoveryRepeatDebitCode::Debited {
            tracing::warn!(%payment, %user, amount, "repeated the lost debit of a payment");
        }
    }
    Ok(())
}

/// Appends the arguments of `recovery/repeat_debit`. `before`: the balance before the debit, if it
/// is known.
pub(in super::super) fn redebit_args(
    args: &mut ScriptArgs,
    (payment, attempt, reservation): (Uuid, u32, Uuid),
    user: UserId,
    amount: i64,
    before: Option<i64>,
) {
    let operation = [payment.as_bytes().as_slice(), attempt.to_string().as_bytes()].concat();
    args.bytes(user.as_bytes()).bytes(&operation).int(amount).optional_int(before);
    args.bytes(EntryId::new(user.slot()).as_bytes()).bytes(EntryId::new(user.slot()).as_bytes());
    args.bytes(reservation.as_bytes());
}
