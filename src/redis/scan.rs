//! Plain reading, a bounded part at a time, for whoever has to see everything: the audit.
//!
//! Nothing here is fenced by a generation: an audit looks at what is there, whoever may use it.

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Value};

use super::cluster::LOOK;
use super::{Error, RedisClient, ScriptReply};
use crate::partition::Partition;

/// Elements that Redis is asked to look at in one part of a walk.
const COUNT: i64 = 500;

/// One part of a walk through a hash or a sorted set. An element may come twice, and what changes meanwhile may be missed.
#[derive(Debug)]
pub struct ScanPage {
    /// Where the walk goes on; `None` when all was seen.
    pub next: Option<String>,
    /// Fields with their values, or members with their scores.
    pub pairs: Vec<(Bytes, Bytes)>,
}

/// The ends of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamEnds {
    /// The number of its first entry.
    pub first: u64,
    /// The number of its last entry.
    pub last: u64,
    /// How many entries there are.
    pub count: u64,
}

impl RedisClient {
    /// A part of a partition's hash, from the cursor of the part before, or from `None` to begin with.
    pub async fn hash_part(
        &self,
        partition: Partition,
        name: &str,
        from: Option<String>,
    ) -> Result<ScanPage, Error> {
        self.part("HSCAN", partition, name, from).await
    }

    /// The same of a sorted set.
    pub async fn zset_part(
        &self,
        partition: Partition,
        name: &str,
        from: Option<String>,
    ) -> Result<ScanPage, Error> {
        self.part("ZSCAN", partition, name, from).await
    }

    /// What stands in some fields of a hash.
    pub async fn hash_fields(
        &self,
        partition: Partition,
        name: &str,
        fields: &[Bytes],
    ) -> Result<Vec<Option<Bytes>>, Error> {
        self.several("HMGET", partition, name, fields).await
    }

    /// The scores of some members of a sorted set.
    pub async fn zset_scores(
        &self,
        partition: Partition,
        name: &str,
        members: &[Bytes],
    ) -> Result<Vec<Option<Bytes>>, Error> {
        self.several("ZMSCORE", partition, name, members).await
    }

    /// How many fields a hash has.
    pub async fn hash_len(&self, partition: Partition, name: &str) -> Result<u64, Error> {
        self.count("HLEN", partition, name, &[]).await
    }

    /// How many members of a sorted set have a score above one.
    pub async fn zset_above(
        &self,
        partition: Partition,
        name: &str,
        score: i64,
    ) -> Result<u64, Error> {
        self.count("ZCOUNT", partition, name, &[format!("({score}"), "+inf".to_owned()]).await
    }

    /// The ends of a partition's outbox; `None` when it is empty.
    pub async fn outbox_ends(&self, partition: Partition) -> Result<Option<StreamEnds>, Error> {
        let end = async |command, [from, to]: [&str; 2]| -> Result<Option<u64>, Error> {
            let args = [from, to, "COUNT", "1"].map(Value::from).to_vec();
            let mut entries = self.ask(command, partition, "outbox", args).await?.words()?;
            if entries.is_empty() {
                return Ok(None);
            }
            let id = entries.word()?.words()?.text()?;
            Ok(id.strip_suffix("-0").and_then(|n| n.parse().ok()))
        };
        let first = end("XRANGE", ["-", "+"]).await?;
        let count = self.count("XLEN", partition, "outbox", &[]).await?;
        let last = end("XREVRANGE", ["+", "-"]).await?;
        Ok(first.zip(last).map(|(first, last)| StreamEnds { first, last, count }))
    }

    /// The clock of the Redis that holds a partition, milliseconds since 1970.
    pub async fn clock(&self, partition: Partition) -> Result<i64, Error> {
        let read = |client: Client| async move {
            let time = CustomCommand::new_static("TIME", ClusterHash::FirstKey, false);
            client.custom::<Value, _>(time, Vec::<Value>::new()).await
        };
        let reply = self.on(partition, LOOK, read).await?;
        let mut words = ScriptReply::try_from(reply)?.words()?;
        Ok(words.int()? * 1_000 + words.int()? / 1_000)
    }

    async fn part(
        &self,
        command: &'static str,
        partition: Partition,
        name: &str,
        from: Option<String>,
    ) -> Result<ScanPage, Error> {
        let from = from.unwrap_or_else(|| "0".to_owned());
        let args = vec![from.into(), "COUNT".into(), COUNT.into()];
        let mut words = self.ask(command, partition, name, args).await?.words()?;
        let next = Some(words.text()?).filter(|cursor| cursor != "0");
        let mut flat = words.word()?.words()?;
        let mut pairs = Vec::new();
        while !flat.is_empty() {
            pairs.push((flat.word()?.bytes()?, flat.word()?.bytes()?));
        }
        Ok(ScanPage { next, pairs })
    }

    async fn several(
        &self,
        command: &'static str,
        partition: Partition,
        name: &str,
        names: &[Bytes],
    ) -> Result<Vec<Option<Bytes>>, Error> {
        let mut values = Vec::with_capacity(names.len());
        for some in names.chunks(500) {
            let args = some.iter().cloned().map(Value::Bytes).collect();
            for word in self.ask(command, partition, name, args).await?.words()?.rest() {
                values.push(match word {
                    ScriptReply::Nil => None,
                    word => Some(word.bytes()?),
                });
            }
        }
        Ok(values)
    }

    async fn count(
        &self,
        command: &'static str,
        partition: Partition,
        name: &str,
        args: &[String],
    ) -> Result<u64, Error> {
        let args = args.iter().cloned().map(Value::from).collect();
        let count = self.ask(command, partition, name, args).await?.int()?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    async fn ask(
        &self,
        command: &'static str,
        partition: Partition,
        name: &str,
        args: Vec<Value>,
    ) -> Result<ScriptReply, Error> {
        let mut all = vec![Value::from(self.keys().of_partition(partition, name))];
        all.extend(args);
        let read = |client: Client| {
            let (command, all) =
                (CustomCommand::new_static(command, ClusterHash::FirstKey, false), all.clone());
            async move { client.custom::<Value, _>(command, all).await }
        };
        ScriptReply::try_from(self.on(partition, LOOK, read).await?)
    }
}
