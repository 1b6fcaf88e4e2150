//! The wallet: a balance for each user, charged, used, and debited by payments.
//!
//! A wallet lives in the partition of its user: `wallets` holds the balance, `wallet_ops` what payments did to it. Every change leaves an entry
//! in the outbox in the same call, so MySQL's ledger adds up to the balance. A debit names its payment and attempt; a refund gives back what was
//! debited under that name and leaves a tombstone, so that a debit which comes late is refused.
//!
//! The ledger is MySQL's; what it does not have yet is read from the outbox ([`history`]). Both tell a line's position in its partition's history (`n` × 256 +
//! its place in the outbox entry), which is the order of the list and the place where the next page begins, so no line is missing or there twice.

mod error;
mod history;
mod routes;
mod sql;
mod store;

use std::sync::Arc;
use std::time::Duration;

use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;

use crate::idempotency::KeyedRequest;
use crate::ids::{EntryId, PaymentId, UserId};
use crate::money::Money;
use crate::outbox::{DurabilityWait, WriterHandle};
use crate::partition::Partition;
use crate::redis::{self, Coalescer, RedisClient, ScriptCoalescer, ScriptOperation};

pub use error::Error;
pub use history::PositionedLedgerEntry;
#[cfg(test)]
pub(crate) use routes::read_bodies;
pub use routes::router;
pub use store::{DebitOutcome, LedgerEntry};

/// Requests that may wait for one partition in one instance.
const MAX_WAITING: usize = 16_384;
/// How often records that were kept long enough are dropped.
const TIDY: Duration = Duration::from_secs(30);

/// What came of a charge or a use.
#[derive(Debug, Clone, Copy)]
pub struct MovementAnswer {
    /// The line of the ledger.
    pub entry: LedgerEntry,
    /// Whether it is the first answer given again.
    pub replayed: bool,
    /// Whether it is as durable as answers are set to be.
    pub written: bool,
}

/// The façade of the room.
pub struct WalletService {
    redis: RedisClient,
    mysql: MySqlPool,
    nudge: WriterHandle,
    charge: ScriptCoalescer<store::ChargeBatch>,
    uses: ScriptCoalescer<store::UseBatch>,
    debits: ScriptCoalescer<store::DebitBatch>,
    balance: ScriptCoalescer<store::BalanceBatch>,
}

impl WalletService {
    /// Wallets in Redis, their ledger in MySQL; `nudge` wakes the writer.
    pub fn new(redis: RedisClient, mysql: MySqlPool, nudge: WriterHandle) -> Self {
        Self {
            charge: Coalescer::new(ScriptOperation::new(&redis, store::ChargeBatch), MAX_WAITING),
            uses: Coalescer::new(ScriptOperation::new(&redis, store::UseBatch), MAX_WAITING),
            debits: Coalescer::new(ScriptOperation::new(&redis, store::DebitBatch), MAX_WAITING),
            balance: Coalescer::new(ScriptOperation::new(&redis, store::BalanceBatch), MAX_WAITING),
            redis,
            mysql,
            nudge,
        }
    }

    /// The balance; nothing for a user never seen.
    pub async fn balance(&self, user: UserId) -> Result<Money, redis::Error> {
        self.balance.submit(self.redis.keys().partition(user.slot()), user).await
    }

    /// Puts money in, once per key.
    pub async fn charge(
        &self,
        keyed: KeyedRequest,
        amount: Money,
    ) -> Result<MovementAnswer, Error> {
        let partition = self.redis.keys().partition(keyed.user.slot());
        let follow = self.nudge.follow();
        let moved = self.charge.submit(partition, movement(keyed, amount)).await?;
        self.settle(moved, Error::BalanceLimitExceeded, &follow, partition).await
    }

    /// Takes money out, once per key.
    pub async fn use_up(
        &self,
        keyed: KeyedRequest,
        amount: Money,
    ) -> Result<MovementAnswer, Error> {
        let partition = self.redis.keys().partition(keyed.user.slot());
        let follow = self.nudge.follow();
        let moved = self.uses.submit(partition, movement(keyed, amount)).await?;
        self.settle(moved, Error::InsufficientBalance, &follow, partition).await
    }

    async fn settle(
        &self,
        moved: store::MovementOutcome,
        refusal: Error,
        follow: &DurabilityWait,
        partition: Partition,
    ) -> Result<MovementAnswer, Error> {
        let (entry, replayed) = match moved {
            store::MovementOutcome::Done(entry) => {
                self.nudge.poke();
                (entry, false)
            }
            store::MovementOutcome::Replayed(entry) => (entry, true),
            store::MovementOutcome::KeyReused => return Err(Error::KeyReused),
            store::MovementOutcome::Refused => return Err(refusal),
        };
        Ok(MovementAnswer { entry, replayed, written: follow.written(&[partition]).await })
    }

    /// Takes a payment's amount, once per attempt.
    pub async fn debit(
        &self,
        user: UserId,
        payment: PaymentId,
        attempt: u32,
        amount: Money,
    ) -> Result<DebitOutcome, redis::Error> {
        let partition = self.redis.keys().partition(user.slot());
        self.debits.submit(partition, store::DebitRequest { user, payment, attempt, amount }).await
    }

    /// Gives back what an attempt debited, if it did, and makes sure that it never will again.
    pub async fn refund(
        &self,
        user: UserId,
        payment: PaymentId,
        attempt: u32,
    ) -> Result<Money, redis::Error> {
        store::refund(&self.redis, user, payment, attempt).await
    }

    /// Gives back what an attempt of a confirmed payment, begun at a moment in milliseconds, took, once. Whether it is given back, now or before; else the wallet has no
    /// room for it yet, or was brought back without the debit, which is laid again first.
    pub async fn give_back(
        &self,
        user: UserId,
        payment: (PaymentId, u32),
        began: i64,
        amount: Money,
    ) -> Result<bool, redis::Error> {
        store::give_back(&self.redis, user, payment, began, amount).await
    }

    /// Drops idempotency keys and op records that were kept long enough, until `stop`.
    pub async fn run_tidy(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(TIDY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            for partition in self.redis.keys().partitions().all() {
                match store::tidy(&self.redis, partition).await {
                    Ok(_) | Err(redis::Error::Recovering(_)) => {}
                    Err(error) => tracing::warn!(%partition, %error, "tidying wallets"),
                }
            }
        }
    }
}

fn movement(keyed: KeyedRequest, amount: Money) -> store::WalletMovement {
    let entry = EntryId::new(keyed.user.slot());
    store::WalletMovement { keyed, entry, amount }
}
