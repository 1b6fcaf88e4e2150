//! Calls of the scripts in `lua/wallet/`, one function or batch for each.

use crate::idempotency::KeyedRequest;
use crate::ids::{EntryId, PaymentId, ReservationId, UserId};
use crate::money::{self, Money};
use crate::partition::Partition;
use crate::redis::codes::{MovementCode, WalletDebitCode, WalletRefundCancelledCode};
use crate::redis::constants;
use crate::redis::{
    BatchScript, Error, KeyBuilder, KeyScope, LuaScript, RedisClient, ReplyReader, ScriptArgs,
    ScriptReply, scripts,
};

const _: () = assert!(constants::MAX_BALANCE == money::MAX);

/// A charge or a use, with its idempotency key.
pub(super) struct WalletMovement {
    pub(super) keyed: KeyedRequest,
    pub(super) entry: EntryId,
    pub(super) amount: Money,
    pub(super) reference: Option<String>,
}

/// A ledger entry. A repeated request gets the entry of the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerEntry {
    pub id: EntryId,
    /// The amount moved. Positive, whatever the direction.
    pub amount: Money,
    /// The balance after this entry.
    pub balance: Money,
    /// Milliseconds since 1970.
    pub at: i64,
}

pub(super) enum MovementOutcome {
    Moved(LedgerEntry),
    Replayed(LedgerEntry),
    KeyReused,
    /// The balance would exceed its maximum, or fall below 0.
    Refused,
}

/// `wallet/charge`.
pub(super) struct ChargeBatch {
    /// The largest balance that a charge may lead to.
    pub(super) limit: Money,
}

impl BatchScript for ChargeBatch {
    type Entity = Partition;
    type Request = WalletMovement;
    type Answer = MovementOutcome;

    fn script(&self) -> &'static LuaScript {
        &scripts::WALLET_CHARGE
    }

    fn scope<'a>(&self, _: &KeyBuilder, entity: &'a Partition) -> KeyScope<'a> {
        KeyScope::partition(*entity)
    }

    fn write_args(
        &self,
        _: &Partition,
        requests: &[WalletMovement],
        args: &mut ScriptArgs,
    ) -> Result<(), Error> {
        args.int(self.limit.get());
        write_movements(requests, args);
        Ok(())
    }

    fn read_answers(
        &self,
        _: &Partition,
        _: &[WalletMovement],
        reply: ReplyReader,
    ) -> Result<Vec<MovementOutcome>, Error> {
        reply.rest().map(movement_outcome).collect()
    }
}

/// `wallet/use`.
pub(super) struct UseBatch;

impl BatchScript for UseBatch {
    type Entity = Partition;
    type Request = WalletMovement;
    type Answer = MovementOutcome;

    fn script(&self) -> &'static LuaScript {
        &scripts::WALLET_USE
    }

    fn scope<'a>(&self, _: &KeyBuilder, entity: &'a Partition) -> KeyScope<'a> {
        KeyScope::partition(*entity)
    }

    fn write_args(
        &self,
        _: &Partition,
        requests: &[WalletMovement],
        args: &mut ScriptArgs,
    ) -> Result<(), Error> {
        write_movements(requests, args);
        Ok(())
    }

    fn read_answers(
        &self,
        _: &Partition,
        _: &[WalletMovement],
        reply: ReplyReader,
    ) -> Result<Vec<MovementOutcome>, Error> {
        reply.rest().map(movement_outcome).collect()
    }
}

fn write_movements(movements: &[WalletMovement], args: &mut ScriptArgs) {
    for WalletMovement { keyed, entry, amount, reference } in movements {
        args.bytes(keyed.user.as_bytes()).text(&keyed.key).bytes(&keyed.fingerprint);
        args.bytes(entry.as_bytes()).int(amount.get());
        args.text(reference.as_deref().unwrap_or_default());
    }
}

fn movement_outcome(reply: ScriptReply) -> Result<MovementOutcome, Error> {
    let mut words = reply.words()?;
    Ok(match words.code()? {
        MovementCode::Moved => MovementOutcome::Moved(entry(&mut words)?),
        MovementCode::Replayed => MovementOutcome::Replayed(entry(&mut words)?),
        MovementCode::Reused => MovementOutcome::KeyReused,
        MovementCode::Refused => MovementOutcome::Refused,
    })
}

fn entry(words: &mut ReplyReader) -> Result<LedgerEntry, Error> {
    let id = EntryId::from_slice(&words.word()?.bytes()?)
        .ok_or_else(|| Error::Protocol("expected the id of a ledger entry".into()))?;
    Ok(LedgerEntry { id, amount: money(words)?, balance: money(words)?, at: words.int()? })
}

fn money(words: &mut ReplyReader) -> Result<Money, Error> {
    let minor = words.int()?;
    Money::new(minor).ok_or_else(|| Error::Protocol(format!("{minor} is not an amount")))
}

/// What a payment does to a wallet: the debit of an attempt, and its refund.
#[derive(Debug, Clone, Copy)]
pub struct WalletOperation {
    pub user: UserId,
    pub payment: PaymentId,
    /// From 1.
    pub attempt: u32,
    /// For the ledger; `None` if it is not known.
    pub reservation: Option<ReservationId>,
}

impl WalletOperation {
    fn write_reservation(&self, args: &mut ScriptArgs) {
        args.bytes(self.reservation.as_ref().map_or(&[], |id| id.as_bytes()));
    }
}

/// The debit of an attempt of a payment.
pub(super) struct DebitRequest {
    pub(super) operation: WalletOperation,
    pub(super) amount: Money,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DebitOutcome {
    /// Debited, by this call or an earlier one. With the balance after the debit.
    Debited(Money),
    /// The balance is insufficient.
    Insufficient,
    /// The attempt was refunded and can no longer be debited.
    Tombstone,
}

/// `wallet/debit`.
pub(super) struct DebitBatch;

impl BatchScript for DebitBatch {
    type Entity = Partition;
    type Request = DebitRequest;
    type Answer = DebitOutcome;

    fn script(&self) -> &'static LuaScript {
        &scripts::WALLET_DEBIT
    }

    fn scope<'a>(&self, _: &KeyBuilder, entity: &'a Partition) -> KeyScope<'a> {
        KeyScope::partition(*entity)
    }

    fn write_args(
        &self,
        _: &Partition,
        requests: &[DebitRequest],
        args: &mut ScriptArgs,
    ) -> Result<(), Error> {
        for DebitRequest { operation, amount } in requests {
            let WalletOperation { user, payment, attempt, .. } = *operation;
            args.bytes(user.as_bytes()).bytes(&operation_id(payment, attempt));
            args.bytes(EntryId::new(user.slot()).as_bytes()).int(amount.get());
            operation.write_reservation(args);
        }
        Ok(())
    }

    fn read_answers(
        &self,
        _: &Partition,
        _: &[DebitRequest],
        reply: ReplyReader,
    ) -> Result<Vec<DebitOutcome>, Error> {
        reply.rest().map(debit_outcome).collect()
    }
}

fn debit_outcome(reply: ScriptReply) -> Result<DebitOutcome, Error> {
    let mut words = reply.words()?;
    Ok(match words.code()? {
        WalletDebitCode::Debited => DebitOutcome::Debited(money(&mut words)?),
        WalletDebitCode::Insufficient => DebitOutcome::Insufficient,
        WalletDebitCode::Tombstone => DebitOutcome::Tombstone,
    })
}

/// `wallet/refund`. Returns the amount that this call refunded.
pub(super) async fn refund(
    redis: &RedisClient,
    operation: WalletOperation,
) -> Result<Money, Error> {
    let WalletOperation { user, payment, attempt, .. } = operation;
    let mut args = ScriptArgs::new();
    args.bytes(user.as_bytes()).bytes(&operation_id(payment, attempt));
    args.bytes(EntryId::new(user.slot()).as_bytes());
    operation.write_reservation(&mut args);
    let scope = KeyScope::partition(redis.keys().partition(user.slot()));
    let minor = redis.call(&scripts::WALLET_REFUND, scope, args).await?.int()?;
    Money::new(minor).ok_or_else(|| Error::Protocol(format!("{minor} is not an amount")))
}

/// What a cancellation gives back.
#[derive(Debug, Clone, Copy)]
pub struct CancellationRefund<'a> {
    /// The sum of all refunds of the payment after it.
    pub total: Money,
    /// Whether no seats are left after it.
    pub last: bool,
    pub seats: &'a [u32],
}

impl CancellationRefund<'_> {
    /// The seats as the ledger keeps them.
    pub fn seat_list(&self) -> String {
        let numbers: Vec<String> = self.seats.iter().map(u32::to_string).collect();
        numbers.join(",")
    }
}

/// `wallet/refund_cancelled`. Returns true when the amount is refunded, by this call or an earlier
/// one; false when the debit is unknown.
pub(super) async fn refund_cancelled(
    redis: &RedisClient,
    operation: WalletOperation,
    began: i64,
    refund: &CancellationRefund<'_>,
) -> Result<bool, Error> {
    let WalletOperation { user, payment, attempt, .. } = operation;
    let mut args = ScriptArgs::new();
    args.bytes(user.as_bytes()).bytes(&[payment.as_bytes().as_slice(), b"c"].concat());
    args.bytes(EntryId::new(user.slot()).as_bytes()).int(refund.total.get());
    args.bytes(&operation_id(payment, attempt)).int(began);
    operation.write_reservation(&mut args);
    args.int(refund.last.into()).text(&refund.seat_list());
    let scope = KeyScope::partition(redis.keys().partition(user.slot()));
    Ok(redis
        .call(&scripts::WALLET_REFUND_CANCELLED, scope, args)
        .await?
        .words()?
        .code::<WalletRefundCancelledCode>()?
        == WalletRefundCancelledCode::Refunded)
}

/// The id of the operation of a payment's attempt: the payment's sixteen bytes and the attempt's
/// number in decimal.
fn operation_id(payment: PaymentId, attempt: u32) -> Vec<u8> {
    [payment.as_bytes().as_slice(), attempt.to_string().as_bytes()].concat()
}

/// `wallet/balance`.
pub(super) struct BalanceBatch;

impl BatchScript for BalanceBatch {
    type Entity = Partition;
    type Request = UserId;
    type Answer = Money;

    fn script(&self) -> &'static LuaScript {
        &scripts::WALLET_BALANCE
    }

    fn scope<'a>(&self, _: &KeyBuilder, entity: &'a Partition) -> KeyScope<'a> {
        KeyScope::partition(*entity)
    }

    fn write_args(
        &self,
        _: &Partition,
        requests: &[UserId],
        args: &mut ScriptArgs,
    ) -> Result<(), Error> {
        args.each(requests.iter().map(|user| user.as_bytes()));
        Ok(())
    }

    fn read_answers(
        &self,
        _: &Partition,
        requests: &[UserId],
        mut reply: ReplyReader,
    ) -> Result<Vec<Money>, Error> {
        requests.iter().map(|_| money(&mut reply)).collect()
    }
}

/// How many records of each kind one call deletes at most. The script accepts no more.
const MAX_PURGED_PER_CALL: i64 = 500;

/// `wallet/purge_expired`. Returns the number of deleted records.
pub(super) async fn purge_expired(redis: &RedisClient, partition: Partition) -> Result<u64, Error> {
    let mut args = ScriptArgs::new();
    args.int(MAX_PURGED_PER_CALL);
    let dropped = redis
        .call(&scripts::WALLET_PURGE_EXPIRED, KeyScope::partition(partition), args)
        .await?
        .int()?;
    Ok(u64::try_from(dropped).unwrap_or_default())
}
