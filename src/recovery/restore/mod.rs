//! The restore: writes the state of one partition from MySQL to Redis, one file for each domain.
//!
//! Rows are streamed from MySQL, in the transaction that locks the partition, and written by
//! scripts under the recovery fence, a few hundred per call. So ten million rows need no more
//! memory than a hundred.
//!
//! | restored | from | not restored |
//! |:--|:--|:--|
//! | balances, what payments did to them, idempotency keys with their answers ([`wallets`], [`idempotency_keys`]) | `wallets`, `wallet_entries`, `payments` | keys older than a day |
//! | facts, paid totals, reward claims ([`users`]) | `user_facts`, `payments`, `reward_claims` | definitions of rewards: the next claim publishes them |
//! | sold seats, seats per user, sales, reservations and payments of the last day ([`sales`], [`payments`]) | `reservation_seats`, `reservations`, `payments` | holds; archived concerts; definitions: the next call publishes them |
//! | coupon issues and redemptions ([`coupons`]) | `coupon_issues` | issues that payments in progress had reserved |
//! | the number of admitted users, the window for regaining positions ([`queues`]) | `promotions`, `queues` | positions: the queue tokens contain them |

mod coupons;
mod idempotency_keys;
mod payments;
mod queues;
mod sales;
mod users;
mod wallets;

pub(super) use wallets::redebit_args;

use sqlx::MySqlConnection;

use super::Error;
use crate::partition::{Partition, SLOTS};
use crate::redis::{
    KeyScope, LuaScript, PinnedConnection, RedisClient, ScriptArgs, ScriptReply, scripts,
};

/// Rows in one script call.
const ROWS_PER_CALL: usize = 250;

/// Writes to Redis under a recovery fence.
pub(super) struct FencedWriter<'a> {
    pub(super) redis: &'a RedisClient,
    pinned: &'a PinnedConnection,
    pub(super) partition: Partition,
    /// The outbox number up to which MySQL has everything.
    pub(super) checkpoint: u64,
    /// How often the partition was restored, including this time.
    restore_count: u64,
    fence: String,
    rows: u64,
}

impl<'a> FencedWriter<'a> {
    /// All writes go through `pinned`, so that they are in one Redis.
    pub(super) fn new(
        (redis, pinned): (&'a RedisClient, &'a PinnedConnection),
        partition: Partition,
        checkpoint: u64,
        fence: String,
        restore_count: u64,
    ) -> Self {
        Self { redis, pinned, partition, checkpoint, restore_count, fence, rows: 0 }
    }

    /// Rows written so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    fn scope(&self) -> KeyScope<'static> {
        KeyScope::partition(self.partition)
    }

    /// The hash slots of the partition as a list for SQL. They are our own numbers, so they need no
    /// binding.
    fn slots(&self) -> String {
        let step = usize::from(self.redis.keys().partitions().count());
        let slots: Vec<String> =
            (self.partition.get()..SLOTS).step_by(step).map(|slot| slot.to_string()).collect();
        slots.join(",")
    }

    /// Calls a script under the fence.
    async fn call(
        &self,
        script: &'static LuaScript,
        scope: KeyScope<'_>,
        args: ScriptArgs,
        more: Vec<String>,
    ) -> Result<ScriptReply, Error> {
        let reply = self.pinned.call_fenced(script, scope, &self.fence, args, more).await?;
        reply.ok_or(Error::FencedByOther(self.partition))
    }

    /// A buffer for the fields of one hash.
    fn hash_rows<'p>(&self, scope: KeyScope<'p>, word: &str) -> RowBuffer<'p> {
        RowBuffer::new(&scripts::RECOVERY_RESTORE_HASH, scope, ScriptArgs::new())
            .with_key(self.redis.key(scope, word))
    }
}

/// Collects rows and writes them in calls of [`ROWS_PER_CALL`].
struct RowBuffer<'p> {
    script: &'static LuaScript,
    scope: KeyScope<'p>,
    more: Vec<String>,
    head: ScriptArgs,
    args: ScriptArgs,
    rows: usize,
}

impl<'p> RowBuffer<'p> {
    fn new(script: &'static LuaScript, scope: KeyScope<'p>, head: ScriptArgs) -> Self {
        Self { script, scope, more: Vec::new(), args: head.clone(), head, rows: 0 }
    }

    /// Adds a key after those of the script's header.
    fn with_key(mut self, key: String) -> Self {
        self.more.push(key);
        self
    }

    /// Adds the arguments of a row; writes when the buffer is full.
    async fn add(
        &mut self,
        writer: &mut FencedWriter<'_>,
        row: impl FnOnce(&mut ScriptArgs),
    ) -> Result<(), Error> {
        row(&mut self.args);
        self.rows += 1;
        if self.rows == ROWS_PER_CALL { self.write(writer).await } else { Ok(()) }
    }

    /// Writes the remaining rows.
    async fn write(&mut self, writer: &mut FencedWriter<'_>) -> Result<(), Error> {
        if self.rows > 0 {
            let args = std::mem::replace(&mut self.args, self.head.clone());
            writer.call(self.script, self.scope, args, self.more.clone()).await?;
            writer.rows += std::mem::take(&mut self.rows) as u64;
        }
        Ok(())
    }
}

/// Restores everything and sets the sequence to the checkpoint.
pub(super) async fn restore_all(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    wallets::restore(writer, mysql).await?;
    idempotency_keys::restore(writer, mysql).await?;
    users::restore(writer, mysql).await?;
    coupons::restore(writer, mysql).await?;
    sales::restore(writer, mysql).await?;
    payments::restore(writer, mysql).await?;
    let mut args = ScriptArgs::new();
    args.text(&writer.checkpoint.to_string());
    writer.call(&scripts::RECOVERY_RESTORE_SEQUENCE, writer.scope(), args, Vec::new()).await?;
    // This emits events, so the sequence must be set before it.
    wallets::redebit_paid_payments(writer, mysql).await?;
    // Last, because the window for regaining positions starts now.
    queues::restore(writer, mysql).await
}

fn optional_bytes(bytes: Option<&Vec<u8>>) -> &[u8] {
    bytes.map_or(&[], Vec::as_slice)
}
