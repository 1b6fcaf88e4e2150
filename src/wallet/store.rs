//! The scripts of the wallet, one batch or function each.

use crate::idempotency::KeyedRequest;
use crate::ids::{EntryId, PaymentId, UserId};
use crate::money::{self, Money};
use crate::partition::Partition;
use crate::redis::{
    BatchOperation, Error, KeyScope, LuaScript, RedisClient, ReplyReader, ScriptArgs, ScriptReply,
    scripts,
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
pub(super) struct ChargeBatch(pub(super) RedisClient);

impl BatchOperation for ChargeBatch {
    type Entity = Partition;
    type Request = WalletMovement;
    type Answer = MovementOutcome;

    fn script(&self) -> &'static LuaScript {
        &scripts::WALLET_CHARGE
    }

    async fn call(
        &self,
        partition: &Partition,
        movements: &[WalletMovement],
    ) -> Result<Vec<MovementOutcome>, Error> {
        let mut args = ScriptArgs::new();
        args.int(money::MAX);
        move_money(&self.0, self.script(), *partition, args, movements).await
    }
}

/// `wallet/use`.
pub(super) struct UseBatch(pub(super) RedisClient);

impl BatchOperation for UseBatch {
    type Entity = Partition;
    type Request = WalletMovement;
    type Answer = MovementOutcome;

    fn script(&self) -> &'static LuaScript {
        &scripts::WALLET_USE
    }

    async fn call(
        &self,
        partition: &Partition,
        movements: &[WalletMovement],
    ) -> Result<Vec<MovementOutcome>, Error> {
        move_money(&self.0, self.script(), *partition, ScriptArgs::new(), movements).await
    }
}

async fn move_money(
    redis: &RedisClient,
    script: &'static LuaScript,
    partition: Partition,
    mut args: ScriptArgs,
    movements: &[WalletMovement],
) -> Result<Vec<MovementOutcome>, Error> {
    for WalletMovement { keyed, entry, amount } in movements {
        args.bytes(keyed.user.as_bytes()).text(&keyed.key).bytes(&keyed.fingerprint);
        args.bytes(entry.as_bytes()).int(amount.get());
    }
    redis
        .call(script, KeyScope::partition(partition), args)
        .await?
        .words()?
        .rest()
        .map(moved)
        .collect()
}

fn moved(reply: ScriptReply) -> Result<MovementOutcome, Error> {
    let mut words = reply.words()?;
    Ok(match words.int()? {
        1 => MovementOutcome::Done(entry(&mut words)?),
        2 => MovementOutcome::Replayed(entry(&mut words)?),
        3 => MovementOutcome::KeyReused,
        _ => MovementOutcome::Refused,
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
pub(super) struct DebitBatch(pub(super) RedisClient);

impl BatchOperation for DebitBatch {
    type Entity = Partition;
    type Request = DebitRequest;
    type Answer = DebitOutcome;

    fn script(&self) -> &'static LuaScript {
        &scripts::WALLET_DEBIT
    }

    async fn call(
        &self,
        partition: &Partition,
        debits: &[DebitRequest],
    ) -> Result<Vec<DebitOutcome>, Error> {
        let mut args = ScriptArgs::new();
        for debit in debits {
            args.bytes(debit.user.as_bytes()).bytes(&op(debit.payment, debit.attempt));
            args.bytes(EntryId::new(debit.user.slot()).as_bytes()).int(debit.amount.get());
        }
        let words =
            self.0.call(self.script(), KeyScope::partition(*partition), args).await?.words()?;
        words.rest().map(debited).collect()
    }
}

fn debited(reply: ScriptReply) -> Result<DebitOutcome, Error> {
    let mut words = reply.words()?;
    Ok(match words.int()? {
        1 => DebitOutcome::Done(money(&mut words)?),
        2 => DebitOutcome::Insufficient,
        _ => DebitOutcome::Tombstone,
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
    args.int(money::MAX).bytes(user.as_bytes()).bytes(&op(payment, attempt));
    args.bytes(EntryId::new(user.slot()).as_bytes());
    let place = KeyScope::partition(redis.keys().partition(user.slot()));
    let mut refunds = redis.call(&scripts::WALLET_REFUND, place, args).await?.words()?;
    money(&mut refunds.word()?.words()?)
}

/// `wallet/give_back`. Whether it is given back, now or before; else the wallet has no room for it yet, or does not know the debit.
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
    args.bytes(&op(payment, attempt)).int(began);
    let place = KeyScope::partition(redis.keys().partition(user.slot()));
    Ok(redis.call(&scripts::WALLET_GIVE_BACK, place, args).await?.words()?.int()? == 1)
}

/// The op id of a payment's attempt: sixteen bytes and the attempt's number.
fn op(payment: PaymentId, attempt: u32) -> Vec<u8> {
    [payment.as_bytes().as_slice(), attempt.to_string().as_bytes()].concat()
}

/// `wallet/balance`.
pub(super) struct BalanceBatch(pub(super) RedisClient);

impl BatchOperation for BalanceBatch {
    type Entity = Partition;
    type Request = UserId;
    type Answer = Money;

    fn script(&self) -> &'static LuaScript {
        &scripts::WALLET_BALANCE
    }

    async fn call(&self, partition: &Partition, users: &[UserId]) -> Result<Vec<Money>, Error> {
        let mut args = ScriptArgs::new();
        args.each(users.iter().map(|user| user.as_bytes()));
        let mut words =
            self.0.call(self.script(), KeyScope::partition(*partition), args).await?.words()?;
        users.iter().map(|_| money(&mut words)).collect()
    }
}

/// `wallet/tidy`. Gives how many records were dropped.
pub(super) async fn tidy(redis: &RedisClient, partition: Partition) -> Result<u64, Error> {
    let mut args = ScriptArgs::new();
    args.int(500);
    let dropped =
        redis.call(&scripts::WALLET_TIDY, KeyScope::partition(partition), args).await?.int()?;
    Ok(u64::try_from(dropped).unwrap_or_default())
}
