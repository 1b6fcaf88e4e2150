//! The wallet: a balance for each user, charged, used, and debited by payments.
//!
//! A wallet is stored in the partition of its user: `wallets` has the balance, `wallet_ops` the
//! operations of payments. Every change appends a ledger entry to the outbox in the same call, so
//! the sum of the entries in MySQL (`wallet_entries`) equals the balance.
//!
//! `USHER_WALLET_LIMIT` bounds what charges and rewards may bring a balance to. They also leave
//! room for the refund of all that the user has paid, so a refund never needs to wait.
//!
//! A debit is identified by payment and attempt. A refund returns what was debited under that
//! identity and leaves a tombstone, so that a debit that arrives late is refused.
//!
//! The ledger is read from MySQL; entries that MySQL does not have yet are read from the outbox
//! ([`history`]). Both sources give the position of an entry in the history of its partition
//! (sequence `n` × 256 + index in the outbox entry). The list is ordered and paged by position, so
//! no entry is missing or appears twice.
//!
//! Start reading with [`WalletService::charge`] and [`WalletService::debit`]; `lua/wallet/` has the
//! scripts.

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
use crate::ids::{EntryId, UserId};
use crate::money::{CurrencyCode, Money};
use crate::outbox::{DurabilityWait, WriterHandle};
use crate::partition::Partition;
use crate::redis::{self, Coalescer, RedisClient, ScriptCoalescer, ScriptOperation};

pub use error::Error;
pub use history::{EntrySubject, PositionedLedgerEntry};
#[cfg(test)]
pub(crate) use routes::read_bodies;
pub use routes::{AdminLedgerEntryDto, router};
pub use store::{CancellationRefund, DebitOutcome, LedgerEntry, WalletOperation};

/// The most requests of one kind that wait for one partition in one instance.
const MAX_WAITING_REQUESTS: usize = 16_384;
/// How often records whose retention is over are deleted.
const PURGE_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy)]
pub struct MovementAnswer {
    pub entry: LedgerEntry,
    /// Whether this repeats the answer to an earlier request with the same idempotency key.
    pub replayed: bool,
    /// Whether the entry has reached the durability that the configuration asks for.
    pub durable: bool,
}

/// All operations on wallets. One value per process, shared by all requests.
pub struct WalletService {
    redis: RedisClient,
    mysql: MySqlPool,
    writer: WriterHandle,
    currency: CurrencyCode,
    charge: ScriptCoalescer<store::ChargeBatch>,
    uses: ScriptCoalescer<store::UseBatch>,
    debits: ScriptCoalescer<store::DebitBatch>,
    balance: ScriptCoalescer<store::BalanceBatch>,
}

impl WalletService {
    /// `limit`: the largest balance that a charge may lead to. A refund may exceed it.
    pub fn new(
        redis: RedisClient,
        mysql: MySqlPool,
        writer: WriterHandle,
        currency: CurrencyCode,
        limit: Money,
    ) -> Self {
        Self {
            charge: Coalescer::new(
                ScriptOperation::new(&redis, store::ChargeBatch { limit }),
                MAX_WAITING_REQUESTS,
            ),
            uses: Coalescer::new(
                ScriptOperation::new(&redis, store::UseBatch),
                MAX_WAITING_REQUESTS,
            ),
            debits: Coalescer::new(
                ScriptOperation::new(&redis, store::DebitBatch),
                MAX_WAITING_REQUESTS,
            ),
            balance: Coalescer::new(
                ScriptOperation::new(&redis, store::BalanceBatch),
                MAX_WAITING_REQUESTS,
            ),
            redis,
            mysql,
            writer,
            currency,
        }
    }

    /// The balance. 0 for a user without a wallet.
    pub async fn balance(&self, user: UserId) -> Result<Money, redis::Error> {
        self.balance.submit(self.redis.keys().partition(user.slot()), user).await
    }

    /// Adds money, once for each idempotency key.
    pub async fn charge(
        &self,
        keyed: KeyedRequest,
        amount: Money,
        reference: Option<String>,
    ) -> Result<MovementAnswer, Error> {
        let partition = self.redis.keys().partition(keyed.user.slot());
        let durability = self.writer.start_durability_wait();
        let outcome = self.charge.submit(partition, movement(keyed, amount, reference)).await?;
        self.finish_movement(outcome, Error::BalanceLimitExceeded, &durability, partition).await
    }

    /// Takes money out, once for each idempotency key.
    pub async fn spend(
        &self,
        keyed: KeyedRequest,
        amount: Money,
        reference: Option<String>,
    ) -> Result<MovementAnswer, Error> {
        let partition = self.redis.keys().partition(keyed.user.slot());
        let durability = self.writer.start_durability_wait();
        let outcome = self.uses.submit(partition, movement(keyed, amount, reference)).await?;
        self.finish_movement(outcome, Error::InsufficientBalance, &durability, partition).await
    }

    async fn finish_movement(
        &self,
        outcome: store::MovementOutcome,
        refusal: Error,
        durability: &DurabilityWait,
        partition: Partition,
    ) -> Result<MovementAnswer, Error> {
        let (entry, replayed) = match outcome {
            store::MovementOutcome::Moved(entry) => {
                self.writer.wake();
                (entry, false)
            }
            store::MovementOutcome::Replayed(entry) => (entry, true),
            store::MovementOutcome::KeyReused => return Err(Error::KeyReused),
            store::MovementOutcome::Refused => return Err(refusal),
        };
        Ok(MovementAnswer {
            entry,
            replayed,
            durable: durability.wait_until_written(&[partition]).await,
        })
    }

    /// Debits the amount of a payment, once for each attempt.
    pub async fn debit(
        &self,
        operation: WalletOperation,
        amount: Money,
    ) -> Result<DebitOutcome, redis::Error> {
        let partition = self.redis.keys().partition(operation.user.slot());
        self.debits.submit(partition, store::DebitRequest { operation, amount }).await
    }

    /// Refunds what an attempt has debited, if anything, and prevents the attempt from debiting
    /// later. Returns the amount that this call refunded.
    pub async fn refund(&self, operation: WalletOperation) -> Result<Money, redis::Error> {
        store::refund(&self.redis, operation).await
    }

    /// Refunds the cancelled seats of a confirmed payment, once. `began` is the time of the attempt
    /// in milliseconds since 1970.
    ///
    /// Returns true when the amount is refunded, by this call or an earlier one. Otherwise the
    /// wallet was restored without the debit. The debit must be restored first, so the caller
    /// repeats the refund later.
    pub async fn refund_cancelled(
        &self,
        operation: WalletOperation,
        began: i64,
        refund: &CancellationRefund<'_>,
    ) -> Result<bool, redis::Error> {
        store::refund_cancelled(&self.redis, operation, began, refund).await
    }

    /// Deletes idempotency keys and operation records whose retention is over, until `stop`.
    pub async fn run_purge(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(PURGE_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            for partition in self.redis.keys().partitions().all() {
                match store::purge_expired(&self.redis, partition).await {
                    Ok(_) | Err(redis::Error::Recovering(_)) => {}
                    Err(error) => {
                        tracing::warn!(%partition, %error, "could not purge expired wallet records")
                    }
                }
            }
        }
    }
}

fn movement(
    keyed: KeyedRequest,
    amount: Money,
    reference: Option<String>,
) -> store::WalletMovement {
    let entry = EntryId::new(keyed.user.slot());
    store::WalletMovement { keyed, entry, amount, reference }
}
