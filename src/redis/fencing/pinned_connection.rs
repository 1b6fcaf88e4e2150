//! A connection that is never made again. What goes through it reaches the Redis that was there when it was made, or nobody: one that was put in its place in the
//! middle, perhaps with less than it had, gets nothing of it.

use fred::interfaces::{KeysInterface, LuaInterface};
use fred::types::Value;
use futures::future::{join_all, try_join_all};

use crate::failpoint::failpoint;
use crate::partition::Partition;
use crate::redis::client::is_unknown_script;
use crate::redis::cluster::RedisNode;
use crate::redis::{Error, KeyScope, LuaScript, RedisClient, ScriptArgs, ScriptReply, scripts};

/// Keys that Redis looks at in one step of a walk, and how many are dropped by one script.
const LOOK: u32 = 1_000;
const DROP: usize = 500;

/// Such a connection.
#[derive(Debug)]
pub struct PinnedConnection {
    redis: RedisClient,
    node: RedisNode,
}

/// Partitions that one server held at one moment, and a connection to it.
#[derive(Debug)]
pub struct PartitionHolder {
    /// Which they are.
    pub partitions: Vec<Partition>,
    /// The connection, or why there is none.
    pub pinned: Result<PinnedConnection, Error>,
}

impl RedisClient {
    /// The name of one of a place's keys, as a script's header would call it.
    pub fn key(&self, place: KeyScope<'_>, word: &str) -> String {
        self.keys().build(place, word)
    }

    /// Pins the server that holds a partition now.
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
            node: self.servers().reach_once(node.server()).await?,
        })
    }

    /// All servers that hold something which is in doubt now.
    pub async fn holders_in_doubt(&self) -> Vec<PartitionHolder> {
        let map = self.servers().map();
        let held = map.nodes().iter().map(|node| (node, map.held_by(node, self.keys())));
        let in_doubt =
            held.filter(|(_, held)| held.iter().any(|partition| !self.is_trusted(*partition)));
        let pinned = in_doubt.map(async |(node, partitions)| PartitionHolder {
            partitions,
            pinned: self.pin_to(node).await,
        });
        join_all(pinned).await
    }
}

impl PinnedConnection {
    /// Calls a script of recovery under a fence that the caller names, whatever is verified; `more` keys follow those of its header. `None`: another fence stands
    /// there, nothing was changed. Hence it may be sent as text where it is not known.
    ///
    /// # Errors
    /// When the Redis that was pinned does not answer, or does not hold the partition any more.
    pub async fn call_fenced(
        &self,
        script: &'static LuaScript,
        place: KeyScope<'_>,
        fence: &str,
        args: ScriptArgs,
        more: Vec<String>,
    ) -> Result<Option<ScriptReply>, Error> {
        let mut keys = self.redis.keys().build_all(place, script);
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

    /// Drops everything of a partition but its fence, in bounded steps, as long as that fence stands. Gives how many keys, or `None` when it does not.
    ///
    /// # Errors
    /// As in [`PinnedConnection::call_fenced`].
    pub async fn clear(&self, partition: Partition, fence: &str) -> Result<Option<u64>, Error> {
        let own = self.redis.keys().of_partition(partition, "epoch");
        let pattern = self.redis.keys().of_partition(partition, "*");
        let (mut cursor, mut dropped) = ("0".to_owned(), 0);
        loop {
            let page: Value =
                self.node.client().scan_page(cursor, pattern.as_str(), Some(LOOK), None).await?;
            let mut words = ScriptReply::try_from(page)?.words()?;
            cursor = words.text()?;
            let mut keys = Vec::new();
            for key in words.word()?.words()?.rest() {
                let key = String::from_utf8(key.bytes()?.into())
                    .map_err(|_| Error::Protocol("a key that is not UTF-8".into()))?;
                if key != own {
                    keys.push(key);
                }
            }
            for some in keys.chunks(DROP) {
                let place = KeyScope::partition(partition);
                let gone = self
                    .call_fenced(
                        &scripts::RECOVERY_CLEAR,
                        place,
                        fence,
                        ScriptArgs::new(),
                        some.to_vec(),
                    )
                    .await?;
                let Some(gone) = gone else { return Ok(None) };
                dropped += u64::try_from(gone.int()?).unwrap_or(0);
            }
            if cursor == "0" {
                return Ok(Some(dropped));
            }
        }
    }

    /// Whether it has all our scripts; else it was started, flushed or put in place of another since they were loaded.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn knows_scripts(&self) -> Result<bool, Error> {
        let names: Vec<String> =
            scripts::ALL.iter().map(|script| script.sha1().to_owned()).collect();
        let known: Vec<i64> = self.node.client().script_exists(names).await?;
        Ok(known.iter().all(|known| *known == 1))
    }

    /// Makes every script known to it. Call it only once each partition that it holds an older state of was barred.
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
