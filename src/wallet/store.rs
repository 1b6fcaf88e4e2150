//! The scripts of the wallet, one batch or function each.

use crate::idempotency::Keyed;
use crate::ids::{EntryId, PaymentId, UserId};
use crate::money::{self, Money};
use crate::partition::Partition;
use crate::redis::{Args, Batch, Error, Place, Redis, Reply, Script, Words, scripts};

/// A charge or a use under its idempotency key.
pub(super) struct Movement {
    pub(super) keyed: Keyed,
    pub(super) entry: EntryId,
    pub(super) amount: Money,
}

/// A line of the ledger, as the script wrote it or remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
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
pub(super) enum Moved {
    Done(Entry),
    Replayed(Entry),
    KeyReused,
    /// Above the largest balance, or below nothing.
    Refused,
}

/// `wallet/charge`.
pub(super) struct Charge(pub(super) Redis);

impl Batch for Charge {
    type Entity = Partition;
    type Request = Movement;
    type Answer = Moved;

    fn script(&self) -> &'static Script {
        &scripts::WALLET_CHARGE
    }

    async fn call(&self, partition: &Partition, movements: &[Movement]) -> Result<Vec<Moved>, Error> {
        let mut args = Args::new();
        args.int(money::MAX);
        move_money(&self.0, self.script(), *partition, args, movements).await
    }
}

/// `wallet/use`.
pub(super) struct Use(pub(super) Redis);

impl Batch for Use {
    type Entity = Partition;
    type Request = Movement;
    type Answer = Moved;

    fn script(&self) -> &'static Script {
        &scripts::WALLET_USE
    }

    async fn call(&self, partition: &Partition, movements: &[Movement]) -> Result<Vec<Moved>, Error> {
        move_money(&self.0, self.script(), *partition, Args::new(), movements).await
    }
}

async fn move_money(
    redis: &Redis,
    script: &'static Script,
    partition: Partition,
    mut args: Args,
    movements: &[Movement],
) -> Result<Vec<Moved>, Error> {
    for Movement { keyed, entry, amount } in movements {
        args.bytes(keyed.user.as_bytes()).text(&keyed.key).bytes(&keyed.fingerprint);
        args.bytes(entry.as_bytes()).int(amount.get());
    }
    redis.call(script, Place::partition(partition), args).await?.words()?.rest().map(moved).collect()
}

fn moved(reply: Reply) -> Result<Moved, Error> {
    let mut words = reply.words()?;
    Ok(match words.int()? {
        1 => Moved::Done(entry(&mut words)?),
        2 => Moved::Replayed(entry(&mut words)?),
        3 => Moved::KeyReused,
        _ => Moved::Refused,
    })
}

fn entry(words: &mut Words) -> Result<Entry, Error> {
    let id = EntryId::from_slice(&words.word()?.bytes()?)
        .ok_or_else(|| Error::Protocol("wanted an entry's id".into()))?;
    Ok(Entry { id, amount: money(words)?, balance: money(words)?, at: words.int()? })
}

fn money(words: &mut Words) -> Result<Money, Error> {
    let minor = words.int()?;
    Money::new(minor).ok_or_else(|| Error::Protocol(format!("{minor} is not an amount")))
}

/// A payment's attempt, to be debited.
pub(super) struct Debit {
    pub(super) user: UserId,
    pub(super) payment: PaymentId,
    pub(super) attempt: u32,
    pub(super) amount: Money,
}

/// What came of a debit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Debited {
    /// Debited, now or before; the balance right after it.
    Done(Money),
    /// The balance does not suffice.
    Insufficient,
    /// The attempt was refunded before: it can't be debited any more.
    Tombstone,
}

/// `wallet/debit`.
pub(super) struct Debits(pub(super) Redis);

impl Batch for Debits {
    type Entity = Partition;
    type Request = Debit;
    type Answer = Debited;

    fn script(&self) -> &'static Script {
        &scripts::WALLET_DEBIT
    }

    async fn call(&self, partition: &Partition, debits: &[Debit]) -> Result<Vec<Debited>, Error> {
        let mut args = Args::new();
        for debit in debits {
            args.bytes(debit.user.as_bytes()).bytes(&op(debit.payment, debit.attempt));
            args.bytes(EntryId::new(debit.user.slot()).as_bytes()).int(debit.amount.get());
        }
        let words = self.0.call(self.script(), Place::partition(*partition), args).await?.words()?;
        words.rest().map(debited).collect()
    }
}

fn debited(reply: Reply) -> Result<Debited, Error> {
    let mut words = reply.words()?;
    Ok(match words.int()? {
        1 => Debited::Done(money(&mut words)?),
        2 => Debited::Insufficient,
        _ => Debited::Tombstone,
    })
}

/// `wallet/refund`. Gives what this call gave back.
pub(super) async fn refund(
    redis: &Redis,
    user: UserId,
    payment: PaymentId,
    attempt: u32,
) -> Result<Money, Error> {
    let mut args = Args::new();
    args.int(money::MAX).bytes(user.as_bytes()).bytes(&op(payment, attempt));
    args.bytes(EntryId::new(user.slot()).as_bytes());
    let place = Place::partition(redis.keys().partition(user.slot()));
    let mut refunds = redis.call(&scripts::WALLET_REFUND, place, args).await?.words()?;
    money(&mut refunds.word()?.words()?)
}

/// `wallet/give_back`. Whether it is given back, now or before; else the wallet has no room for it yet, or does not know the debit.
pub(super) async fn give_back(
    redis: &Redis,
    user: UserId,
    (payment, attempt): (PaymentId, u32),
    began: i64,
    amount: Money,
) -> Result<bool, Error> {
    let mut args = Args::new();
    args.int(money::MAX).bytes(user.as_bytes()).bytes(&[payment.as_bytes().as_slice(), b"c"].concat());
    args.bytes(EntryId::new(user.slot()).as_bytes()).int(amount.get());
    args.bytes(&op(payment, attempt)).int(began);
    let place = Place::partition(redis.keys().partition(user.slot()));
    Ok(redis.call(&scripts::WALLET_GIVE_BACK, place, args).await?.words()?.int()? == 1)
}

/// The op id of a payment's attempt: sixteen bytes and the attempt's number.
fn op(payment: PaymentId, attempt: u32) -> Vec<u8> {
    [payment.as_bytes().as_slice(), attempt.to_string().as_bytes()].concat()
}

/// `wallet/balance`.
pub(super) struct Balance(pub(super) Redis);

impl Batch for Balance {
    type Entity = Partition;
    type Request = UserId;
    type Answer = Money;

    fn script(&self) -> &'static Script {
        &scripts::WALLET_BALANCE
    }

    async fn call(&self, partition: &Partition, users: &[UserId]) -> Result<Vec<Money>, Error> {
        let mut args = Args::new();
        args.each(users.iter().map(|user| user.as_bytes()));
        let mut words = self.0.call(self.script(), Place::partition(*partition), args).await?.words()?;
        users.iter().map(|_| money(&mut words)).collect()
    }
}

/// `wallet/tidy`. Gives how many records were dropped.
pub(super) async fn tidy(redis: &Redis, partition: Partition) -> Result<u64, Error> {
    let mut args = Args::new();
    args.int(500);
    let dropped = redis.call(&scripts::WALLET_TIDY, Place::partition(partition), args).await?.int()?;
    Ok(u64::try_from(dropped).unwrap_or_default())
}
