//! Wallets: balances, and what payments did to them.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::{AssertSqlSafe, FromRow, MySqlConnection};
use uuid::Uuid;

use super::super::Error;
use super::{FencedWriter, RowBuffer};
use crate::ids::{EntryId, UserId};
use crate::redis::codes::RecoveryRepeatDebitCode;
use crate::redis::{ScriptArgs, scripts};

#[derive(FromRow)]
struct RestoredOperation {
    payment_id: Uuid,
    attempt: Option<u32>,
    kind: String,
    amount: i64,
    balance: i64,
    created_at: DateTime<Utc>,
}

pub(super) async fn restore(
    hand: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    let slots = hand.slots();
    let sql = format!("SELECT user_id, balance FROM wallets WHERE slot IN ({slots})");
    let mut rows = sqlx::query_as(AssertSqlSafe(sql)).persistent(false).fetch(&mut *mysql);
    let mut pile = hand.hash_rows(hand.scope(), "wallets");
    while let Some((user, balance)) = rows.try_next().await? {
        let (user, balance): (Uuid, i64) = (user, balance);
        pile.add(hand, |args| {
            args.bytes(user.as_bytes()).int(balance);
        })
        .await?;
    }
    pile.write(hand).await?;
    drop(rows);

    // Kept for seven days in Redis; what has come too late by either clock is tidied away there.
    let sql = format!(
        "SELECT STRAIGHT_JOIN e.payment_id, e.attempt, e.kind, e.amount, e.balance, e.created_at \
         FROM wallets w JOIN wallet_entries e ON e.user_id = w.user_id \
         WHERE w.slot IN ({slots}) AND e.payment_id IS NOT NULL AND e.created_at > UTC_TIMESTAMP(3) - INTERVAL 8 DAY"
    );
    let mut rows = sqlx::query_as(AssertSqlSafe(sql)).persistent(false).fetch(&mut *mysql);
    let mut pile = RowBuffer::new(
        &scripts::RECOVERY_RESTORE_WALLET_OPERATIONS,
        hand.scope(),
        ScriptArgs::new(),
    );
    while let Some(op) = rows.try_next().await? {
        let op: RestoredOperation = op;
        let (name, value) = op.record();
        let at = op.created_at.timestamp_millis();
        pile.add(hand, |args| {
            args.bytes(&name).text(&value).int(at);
        })
        .await?;
    }
    pile.write(hand).await
}

impl RestoredOperation {
    /// Name and value, as `lua/lib/wallet_ops.lua` has them.
    fn record(&self) -> (Vec<u8>, String) {
        let word = self.attempt.map_or("c".to_owned(), |attempt| attempt.to_string());
        let value = match (self.kind.as_str(), self.attempt) {
            ("payment", _) => format!("d{}:{}", self.amount, self.balance),
            (_, Some(_)) => "t".to_owned(),
            (_, None) => "g".to_owned(),
        };
        ([self.payment_id.as_bytes().as_slice(), word.as_bytes()].concat(), value)
    }
}

/// Debits what was paid by MySQL's account of the queue's partition, while its account of this one does not have the debit: the payment stands, so the money is
/// gone. The payment knows the balance right after its debit; where less is there than that needs, what filled the wallet was lost with the debit, and is
/// laid as a charge. So a balance never falls below nothing, and the ledger adds up.
pub(super) async fn redebit_paid_payments(
    hand: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    let sql = format!(
        "SELECT p.id, p.attempt, p.user_id, CAST(p.amount - p.discount AS SIGNED), CAST(COALESCE(p.balance_after, 0) AS SIGNED) FROM payments p \
         WHERE p.user_slot IN ({}) AND p.status IN ('confirmed', 'refunded') AND p.amount > p.discount \
         AND NOT EXISTS (SELECT 1 FROM wallet_entries e WHERE e.payment_id = p.id AND e.attempt = p.attempt) ORDER BY p.settled_at, p.id",
        hand.slots()
    );
    let mut rows = sqlx::query_as(AssertSqlSafe(sql)).persistent(false).fetch(mysql);
    while let Some((payment, attempt, user, amount, after)) = rows.try_next().await? {
        let (payment, attempt, user): (Uuid, u32, Uuid) = (payment, attempt, user);
        let (amount, after): (i64, i64) = (amount, after);
        let mut args = ScriptArgs::new();
        redebit_args(&mut args, (payment, attempt), user.into(), amount, Some(amount + after));
        let done =
            hand.call(&scripts::RECOVERY_REPEAT_DEBIT, hand.scope(), args, Vec::new()).await?;
        if done.code::<RecoveryRepeatDebitCode>()? == RecoveryRepeatDebitCode::Debited {
            tracing::warn!(%payment, %user, amount, "a payment's debit was lost and is laid again");
        }
    }
    Ok(())
}

/// The arguments of `recovery/repeat_debit`. `before`: the balance that there was before it, where it is known.
pub(in super::super) fn redebit_args(
    args: &mut ScriptArgs,
    (payment, attempt): (Uuid, u32),
    user: UserId,
    amount: i64,
    before: Option<i64>,
) {
    let op = [payment.as_bytes().as_slice(), attempt.to_string().as_bytes()].concat();
    args.bytes(user.as_bytes()).bytes(&op).int(amount).maybe_int(before);
    args.bytes(EntryId::new(user.slot()).as_bytes()).bytes(EntryId::new(user.slot()).as_bytes());
}
