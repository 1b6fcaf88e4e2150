//! How a restore writes to Redis: under its fence, a few hundred rows per script call.

use sqlx::{MySql, QueryBuilder};

use crate::partition::{HASH_SLOTS, Partition};
use crate::recovery::Error;
use crate::redis::{
    KeyScope, LuaScript, PinnedConnection, RedisClient, ScriptArgs, ScriptReply, scripts,
};

/// Rows in one script call.
const ROWS_PER_CALL: usize = 250;

/// Writes to Redis under a recovery fence.
pub(in crate::recovery) struct FencedWriter<'a> {
    pub(super) redis: &'a RedisClient,
    pinned: &'a PinnedConnection,
    pub(super) partition: Partition,
    /// The outbox number up to which MySQL has everything.
    pub(super) checkpoint: u64,
    /// How often the partition was restored, including this time.
    pub(super) restore_count: u64,
    fence: String,
    rows: u64,
}

impl<'a> FencedWriter<'a> {
    /// All writes go through `pinned`, so that they are in one Redis.
    pub(in crate::recovery) fn new(
        (redis, pinned): (&'a RedisClient, &'a PinnedConnection),
        partition: Partition,
        checkpoint: u64,
        fence: String,
        restore_count: u64,
    ) -> Self {
        Self { redis, pinned, partition, checkpoint, restore_count, fence, rows: 0 }
    }

    /// Rows written so far.
    pub(in crate::recovery) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn scope(&self) -> KeyScope<'static> {
        KeyScope::partition(self.partition)
    }

    /// A query for rows of the partition: `head`, the list of its hash slots, `tail`. Partitions
    /// have one or two numbers of slots, so all of them share the prepared statements. (A statement
    /// that is closed after its use costs a pause: the driver sends the close without waiting, and
    /// then Nagle's algorithm holds the next statement back until the server confirms it, 40 ms
    /// later.)
    pub(super) fn slot_query(&self, head: &str, tail: &str) -> QueryBuilder<MySql> {
        let step = usize::from(self.redis.keys().partitions().count());
        let mut query = QueryBuilder::new(head);
        let mut slots = query.separated(", ");
        for slot in (self.partition.get()..HASH_SLOTS).step_by(step) {
            slots.push_bind(slot);
        }
        query.push(tail);
        query
    }

    /// Calls a script under the fence.
    pub(super) async fn call(
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
    pub(super) fn hash_rows<'p>(&self, scope: KeyScope<'p>, word: &str) -> RowBuffer<'p> {
        RowBuffer::new(&scripts::RECOVERY_RESTORE_HASH, scope, ScriptArgs::new())
            .with_key(self.redis.key(scope, word))
    }
}

/// Collects rows and writes them in calls of [`ROWS_PER_CALL`].
pub(super) struct RowBuffer<'p> {
    script: &'static LuaScript,
    scope: KeyScope<'p>,
    more: Vec<String>,
    head: ScriptArgs,
    args: ScriptArgs,
    rows: usize,
}

impl<'p> RowBuffer<'p> {
    pub(super) fn new(script: &'static LuaScript, scope: KeyScope<'p>, head: ScriptArgs) -> Self {
        Self { script, scope, more: Vec::new(), args: head.clone(), head, rows: 0 }
    }

    /// Adds a key after those of the script's header.
    pub(super) fn with_key(mut self, key: String) -> Self {
        self.more.push(key);
        self
    }

    /// Adds the arguments of a row; writes when the buffer is full.
    pub(super) async fn add(
        &mut self,
        writer: &mut FencedWriter<'_>,
        row: impl FnOnce(&mut ScriptArgs),
    ) -> Result<(), Error> {
        row(&mut self.args);
        self.rows += 1;
        if self.rows == ROWS_PER_CALL { self.write(writer).await } else { Ok(()) }
    }

    /// Writes the remaining rows.
    pub(super) async fn write(&mut self, writer: &mut FencedWriter<'_>) -> Result<(), Error> {
        if self.rows > 0 {
            let args = std::mem::replace(&mut self.args, self.head.clone());
            writer.call(self.script, self.scope, args, self.more.clone()).await?;
            writer.rows += std::mem::take(&mut self.rows) as u64;
        }
        Ok(())
    }
}

pub(super) fn optional_bytes(bytes: Option<&Vec<u8>>) -> &[u8] {
    bytes.map_or(&[], Vec::as_slice)
}
