//! A connection that never reconnects. What is sent over it reaches the Redis that was there when
//! it was opened, or fails. A Redis that replaces that one in the middle of a restore, perhaps with
//! less data, receives nothing.

use fred::interfaces::{KeysInterface, LuaInterface};
use fred::types::Value;
use futures::future::{join_all, try_join_all};

use crate::failpoint::failpoint;
use crate::partition::Partition;
use crate::redis::client::is_unknown_script;
use crate::redis::cluster::RedisNode;
use crate::redis::{Error, KeyScope, LuaScript, RedisClient, ScriptArgs, ScriptReply, scripts};

/// Keys that Redis examines in one step of SCAN.
const SCAN_PAGE_SIZE: u32 = 1_000;
/// Keys that one call of `recovery/clear` deletes.
const KEYS_PER_DELETE: usize = 500;

#[derive(Debug)]
pub struct PinnedConnection {
    redis: RedisClient,
    node: RedisNode,
}

/// A server, the partitions that it owned at one moment, and a connection to it.
#[derive(Debug)]
pub struct PartitionOwner {
    pub partitions: Vec<Partition>,
    pub pinned: Result<PinnedConnection, Error>,
}

impl RedisClient {
    /// The full name of a key that a script's header calls `word`.
    pub fn key(&self, scope: KeyScope<'_>, word: &str) -> String {
        self.keys().build(scope, word)
    }

    /// Connects to the current owner of a partition.
    ///
    /// # Errors
    /// When it can't be reached.
    pub async fn pin(&self, partition: Partition) -> Result<PinnedConnection, Error> {
        let owner = self.owner(partition).ok_or(Error::Recovering(partition))?;
        self.pin_to(&owner).await
    }

    async fn pin_to(&self, node: &RedisNode) -> Result<PinnedConnection, Error> {
        Ok(PinnedConnection {
            redis: self.clone(),
            node: self.topology().connect_pinned(node.server()).await?,
        })
    }

    /// Connects to each server that owns an unverified partition.
    pub async fn unverified_owners(&self) -> Vec<PartitionOwner> {
        let table = self.topology().table();
        let owners =
            table.nodes().iter().map(|node| (node, table.partitions_of(node, self.keys())));
        let unverified =
            owners.filter(|(_, owned)| owned.iter().any(|partition| !self.is_verified(*partition)));
        let pinned = unverified.map(async |(node, partitions)| PartitionOwner {
            partitions,
            pinned: self.pin_to(node).await,
        });
        join_all(pinned).await
    }
}

impl PinnedConnection {
    /// Calls a recovery script under the fence that the caller names, whether or not the
    /// partition is verified. `more` keys
    /// follow those of the header. Returns `None` when Redis holds another fence; then nothing was
    /// changed.
    ///
    /// # Errors
    /// When the pinned Redis does not answer, or does not own the partition any more.
    pub async fn call_fenced(
        &self,
        script: &'static LuaScript,
        scope: KeyScope<'_>,
        fence: &str,
        args: ScriptArgs,
        more: Vec<String>,
    ) -> Result<Option<ScriptReply>, Error> {
        let mut keys = self.redis.keys().build_all(scope, script);
        keys.extend(more);
        let args = args.seal(fence);
        failpoint!("{}.before", script.name());
        let client = self.node.client();
        let answer: Value = match client.evalsha(script.sha1(), keys.clone(), args.values()).await {
            Err(error) if is_unknown_script(&error) => {
                client.eval(script.body(), keys, args.values()).await
            }
            answer => answer,
        }?;
        failpoint!("{}.after", script.name());
        match ScriptReply::try_from(answer)? {
            ScriptReply::Int(crate::redis::constants::STALE_EPOCH) => Ok(None),
            reply => Ok(Some(reply)),
        }
    }

    /// Deletes all keys of a partition except its fence, in bounded steps. Returns the number
    /// of keys, or `None` when Redis
    /// holds another fence than `fence`.
    ///
    /// # Errors
    /// As in [`PinnedConnection::call_fenced`].
    pub async fn clear(&self, partition: Partition, fence: &str) -> Result<Option<u64>, Error> {
        let fence_key = self.redis.keys().of_partition(partition, "epoch");
        let pattern = self.redis.keys().of_partition(partition, "*");
        let (mut cursor, mut deleted) = ("0".to_owned(), 0);
        loop {
            let page: Value = self
                .node
                .client()
                .scan_page(cursor, pattern.as_str(), Some(SCAN_PAGE_SIZE), None)
                .await?;
            let mut words = ScriptReply::try_from(page)?.words()?;
            cursor = words.text()?;
            let mut keys = Vec::new();
            for key in words.word()?.words()?.rest() {
                let key = String::from_utf8(key.bytes()?.into())
                    .map_err(|_| Error::Protocol("a key is not UTF-8".into()))?;
                if key != fence_key {
                    keys.push(key);
                }
            }
            for chunk in keys.chunks(KEYS_PER_DELETE) {
                let scope = KeyScope::partition(partition);
                let count = self
                    .call_fenced(
                        &scripts::RECOVERY_CLEAR,
                        scope,
                        fence,
                        ScriptArgs::new(),
                        chunk.to_vec(),
                    )
                    .await?;
                let Some(count) = count else { return Ok(None) };
                deleted += u64::try_from(count.int()?).unwrap_or(0);
            }
            if cursor == "0" {
                return Ok(Some(deleted));
            }
        }
    }

    /// Whether Redis knows all scripts. If not, it was started, flushed or replaced since they
    /// were loaded.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn knows_scripts(&self) -> Result<bool, Error> {
        let names: Vec<String> =
            scripts::ALL.iter().map(|script| script.sha1().to_owned()).collect();
        let known: Vec<i64> = self.node.client().script_exists(names).await?;
        Ok(known.iter().all(|known| *known == 1))
    }

    /// Loads all scripts. Call it only after every stale partition of this server was fenced.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn load_scripts(&self) -> Result<(), Error> {
        failpoint!("redis.load_scripts");
        let client = self.node.client();
        let loads = scripts::ALL
            .iter()
            .map(async |script| client.script_load::<Value, _>(script.body()).await);
        try_join_all(loads).await?;
        Ok(())
    }
}
