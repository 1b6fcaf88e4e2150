//! The scripts of the wallet, one batch or function each.

use crate::idempotency::KeyedRequest;
use crate::ids::{EntryId, PaymentId, UserId};
use crate::money::{self, Money};
use crate::partition::Partition;
use crate::redis::codes::{MovementCode, WalletDebitCode, WalletRefundCancelledCode};
use crate::redis::{
    BatchScript, Error, KeyBuilder, KeyScope, LuaScript, RedisClient, ReplyReader, ScriptArgs,
    ScriptReply, scripts,
};

/// A charge or a use under its idempotency key.
pub(super) struct WalletMovement {
    pub(super) keyed: KeyedRequest,
    pub(super) entry: EntryId,
    pub(super) amount: Money,
}

/// A line of the ledger, as the script wrote it or remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Its id.
    pub id: EntryId,
    /// How much was moved, positive.
    pub amount: Money,
    /// The balance right after it.
    pub balance: Money,
    /// When, milliseconds since 1970.
    pub at: i64,
}

/// What came of a charge or a use.
pub(super) enum MovementOutcome {
    Done(LedgerEntry),
    Replayed(LedgerEntry),
    KeyReused,
    /// Above the largest balance, or below nothing.
    Refused,
}

/// `wallet/charge`.
pub(super) struct ChargeBatch;

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
        args.int(money::MAX);
        write_movements(requests, args);
        Ok(())
    }

    fn read_answers(
        &self,
        _: &Partition,
        _: &[WalletMovement],
        mut reply: ReplyReader,
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
        mut reply: ReplyReader,
    ) -> Result<Vec<MovementOutcome>, Error> {
        reply.rest().map(movement_outcome).collect()
    }
}

fn write_movements(movements: &[WalletMovement], args: &mut ScriptArgs) {
    for WalletMovement { keyed, entry, amount } in movements {
        args.bytes(keyed.user.as_bytes()).text(&keyed.key).bytes(&keyed.fingerprint);
        args.bytes(entry.as_bytes()).int(amount.get());
    }
}

fn movement_outcome(reply: ScriptReply) -> Result<MovementOutcome, Error> {
    let mut words = reply.words()?;
    Ok(match words.code()? {
        MovementCode::Moved => MovementOutcome::Done(entry(&mut words)?),
        MovementCode::Replayed => MovementOutcome::Replayed(entry(&mut words)?),
        MovementCode::Reused => MovementOutcome::KeyReused,
        MovementCode::Refused => MovementOutcome::Refused,
    })
}

fn entry(words: &mut ReplyReader) -> Result<LedgerEntry, Error> {
    let id = EntryId::from_slice(&words.word()?.bytes()?)
        .ok_or_else(|| Error::Protocol("wanted an entry's id".into()))?;
    Ok(LedgerEntry { id, amount: money(words)?, balance: money(words)?, at: words.int()? })
}

fn money(words: &mut ReplyReader) -> Result<Money, Error> {
    let minor = words.int()?;
    Money::new(minor).ok_or_else(|| Error::Protocol(format!("{minor} is not an amount")))
}

/// A payment's attempt, to be debited.
pub(super) struct DebitRequest {
    pub(super) user: UserId,
    pub(super) payment: PaymentId,
    pub(super) attempt: u32,
    pub(super) amount: Money,
}

/// What came of a debit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DebitOutcome {
    /// Debited, now or before; the balance right after it.
    Done(Money),
    /// The balance does not suffice.
    Insufficient,
    /// The attempt was refunded before: it can't be debited any more.
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
        for debit in requests {
            args.bytes(debit.user.as_bytes()).bytes(&operation_id(debit.payment, debit.attempt));
            args.bytes(EntryId::new(debit.user.slot()).as_bytes()).int(debit.amount.get());
        }
        Ok(())
    }

    fn read_answers(
        &self,
        _: &Partition,
        _: &[DebitRequest],
        mut reply: ReplyReader,
    ) -> Result<Vec<DebitOutcome>, Error> {
        reply.rest().map(debit_outcome).collect()
    }
}

fn debit_outcome(reply: ScriptReply) -> Result<DebitOutcome, Error> {
    let mut words = reply.words()?;
    Ok(match words.code()? {
        WalletDebitCode::Debited => DebitOutcome::Done(money(&mut words)?),
        WalletDebitCode::Insufficient => DebitOutcome::Insufficient,
        WalletDebitCode::Tombstone => DebitOutcome::Tombstone,
    })
}

/// `wallet/refund`. Gives what this call gave back.
pub(super) async fn refund(
    redis: &RedisClient,
    user: UserId,
    payment: PaymentId,
    attempt: u32,
) -> Result<Money, Error> {
    let mut args = ScriptArgs::new();
    args.int(money::MAX).bytes(user.as_bytes()).bytes(&operation_id(payment, attempt));
    args.bytes(EntryId::new(user.slot()).as_bytes());
    let place = KeyScope::partition(redis.keys().partition(user.slot()));
    let mut refunds = redis.call(&scripts::WALLET_REFUND, place, args).await?.words()?;
    money(&mut refunds.word()?.words()?)
}

/// `wallet/refund_cancelled`. Whether it is given back, now or before; else the wallet has no room for it yet, or does not know the debit.
pub(super) async fn give_back(
    redis: &RedisClient,
    user: UserId,
    (payment, attempt): (PaymentId, u32),
    began: i64,
    amount: Money,
) -> Result<bool, Error> {
    let mut args = ScriptArgs::new();
    args.int(money::MAX)
        .bytes(user.as_bytes())
        .bytes(&[payment.as_bytes().as_slice(), b"c"].concat());
    args.bytes(EntryId::new(user.slot()).as_bytes()).int(amount.get());
    args.bytes(&operation_id(payment, attempt)).int(began);
    let place = KeyScope::partition(redis.keys().partition(user.slot()));
    Ok(redis
        .call(&scripts::WALLET_REFUND_CANCELLED, place, args)
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

/// `wallet/purge_expired`. Gives how many records were dropped.
pub(super) async fn tidy(redis: &RedisClient, partition: Partition) -> Result<u64, Error> {
    let mut args = ScriptArgs::new();
    args.int(500);
    let dropped = redis
        .call(&scripts::WALLET_PURGE_EXPIRED, KeyScope::partition(partition), args)
        .await?
        .int()?;
    Ok(u64::try_from(dropped).unwrap_or_default())
}
