//! What is laid back into a partition, one small file for each room's state.
//!
//! Rows are streamed from MySQL, in the transaction that locks the partition, and written to Redis by scripts under the recovery's bar, some
//! hundred at a time; so ten million rows take no more memory than a hundred.
//!
//! | laid | from | not laid |
//! |:--|:--|:--|
//! | balances, what payments did to them, keys and first answers ([`wallets`], [`keys`]) | `wallets`, `wallet_entries`, `payments` | keys older than a day |
//! | facts, tallies, claims ([`users`]) | `user_facts`, `payments`, `reward_claims` | versions of rewards: whoever claims lays them |
//! | sold seats, what users own, sales, reservations and payments of the last day ([`sales`], [`payments`]) | `reservation_seats`, `reservations`, `payments` | holds; archived concerts; definitions: whoever misses them lays them |
//! | who has which coupon, and what is used ([`coupons`]) | `coupon_issues` | issues that payments under way had taken |
//! | how many were let in, the window in which a line stands up again ([`lines`]) | `promotions`, `queues` | the line: its tokens carry it |

mod coupons;
mod keys;
mod lines;
mod payments;
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

/// Rows in a script call.
const ROWS_PER_CALL: usize = 250;

/// What writes under a recovery's bar.
pub(super) struct FencedWriter<'a> {
    pub(super) redis: &'a RedisClient,
    pinned: &'a PinnedConnection,
    pub(super) partition: Partition,
    /// The checkpoint up to which MySQL has everything.
    pub(super) n: u64,
    /// How often the partition was laid back, this time included.
    restore_count: u64,
    fence: String,
    rows: u64,
}

impl<'a> FencedWriter<'a> {
    /// Writes by `pinned` alone, so that all it lays is in one Redis.
    pub(super) fn new(
        (redis, pinned): (&'a RedisClient, &'a PinnedConnection),
        partition: Partition,
        n: u64,
        bar: String,
        times: u64,
    ) -> Self {
        Self { redis, pinned, partition, n, restore_count: times, fence: bar, rows: 0 }
    }

    /// Rows laid so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// The partition itself.
    fn scope(&self) -> KeyScope<'static> {
        KeyScope::partition(self.partition)
    }

    /// The partition's slots, as a list for SQL. Numbers of our own, so they need no binding.
    fn slots(&self) -> String {
        let step = usize::from(self.redis.keys().partitions().count());
        let own: Vec<String> =
            (self.partition.get()..SLOTS).step_by(step).map(|slot| slot.to_string()).collect();
        own.join(",")
    }

    /// One script call under the bar.
    async fn call(
        &self,
        script: &'static LuaScript,
        place: KeyScope<'_>,
        args: ScriptArgs,
        more: Vec<String>,
    ) -> Result<ScriptReply, Error> {
        let reply = self.pinned.call_fenced(script, place, &self.fence, args, more).await?;
        reply.ok_or(Error::FencedByOther(self.partition))
    }

    /// A pile of fields for one hash.
    fn hash_rows<'p>(&self, place: KeyScope<'p>, word: &str) -> RowBuffer<'p> {
        RowBuffer::new(&scripts::RECOVERY_RESTORE_HASH, place, ScriptArgs::new())
            .with_key(self.redis.key(place, word))
    }
}

/// Rows on their way into one script, some hundred at a time.
struct RowBuffer<'p> {
    script: &'static LuaScript,
    scope: KeyScope<'p>,
    more: Vec<String>,
    head: ScriptArgs,
    args: ScriptArgs,
    rows: usize,
}

impl<'p> RowBuffer<'p> {
    fn new(script: &'static LuaScript, place: KeyScope<'p>, head: ScriptArgs) -> Self {
        Self { script, scope: place, more: Vec::new(), args: head.clone(), head, rows: 0 }
    }

    /// One more key behind those of the script's header.
    fn with_key(mut self, key: String) -> Self {
        self.more.push(key);
        self
    }

    /// Takes a row's arguments, and writes the pile once it is high enough.
    async fn add(
        &mut self,
        hand: &mut FencedWriter<'_>,
        row: impl FnOnce(&mut ScriptArgs),
    ) -> Result<(), Error> {
        row(&mut self.args);
        self.rows += 1;
        if self.rows == ROWS_PER_CALL { self.write(hand).await } else { Ok(()) }
    }

    /// Writes what is left.
    async fn write(&mut self, hand: &mut FencedWriter<'_>) -> Result<(), Error> {
        if self.rows > 0 {
            let args = std::mem::replace(&mut self.args, self.head.clone());
            hand.call(self.script, self.scope, args, self.more.clone()).await?;
            hand.rows += std::mem::take(&mut self.rows) as u64;
        }
        Ok(())
    }
}

/// Lays everything back, then sets the sequence to the checkpoint.
pub(super) async fn restore_partition(
    hand: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    wallets::restore(hand, mysql).await?;
    keys::restore(hand, mysql).await?;
    users::restore(hand, mysql).await?;
    coupons::restore(hand, mysql).await?;
    sales::restore(hand, mysql).await?;
    payments::restore(hand, mysql).await?;
    let mut args = ScriptArgs::new();
    args.text(&hand.n.to_string());
    hand.call(&scripts::RECOVERY_RESTORE_SEQUENCE, hand.scope(), args, Vec::new()).await?;
    // These write events of their own, which follow the checkpoint.
    wallets::redebit_paid_payments(hand, mysql).await?;
    // Last, since the window begins now.
    lines::restore(hand, mysql).await
}

/// Bytes of a digest or a key that may be missing.
fn optional_bytes(bytes: Option<&Vec<u8>>) -> &[u8] {
    bytes.map_or(&[], Vec::as_slice)
}
