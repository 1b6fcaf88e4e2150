//! Reads whole hashes, sorted sets and streams in bounded pages, for the audit.
//!
//! These reads ignore the epoch: an audit inspects what is stored, also in a partition that does
//! not serve.

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Value};

use super::cluster::READ_PATIENCE;
use super::{Error, RedisClient, ScriptReply};
use crate::partition::Partition;

/// Elements that Redis examines in one step of HSCAN or ZSCAN.
const SCAN_PAGE_SIZE: i64 = 500;

/// One page of a hash or a sorted set. An element may be returned twice, and an element that
/// changes during the scan may be missing.
#[derive(Debug)]
pub struct ScanPage {
    /// The cursor of the next page; `None` after the last.
    pub next: Option<String>,
    /// Fields with values, or members with scores.
    pub pairs: Vec<(Bytes, Bytes)>,
}

/// The first and last entry of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamEnds {
    pub first: u64,
    pub last: u64,
    pub count: u64,
}

impl RedisClient {
    /// A page of a hash; `from` is the cursor of the page before, `None` at the start.
    pub async fn scan_hash(
        &self,
        partition: Partition,
        name: &str,
        from: Option<String>,
    ) -> Result<ScanPage, Error> {
        self.scan_page("HSCAN", partition, name, from).await
    }

    /// A page of a sorted set; see [`RedisClient::scan_hash`].
    pub async fn scan_zset(
        &self,
        partition: Partition,
        name: &str,
        from: Option<String>,
    ) -> Result<ScanPage, Error> {
        self.scan_page("ZSCAN", partition, name, from).await
    }

    pub async fn hash_fields(
        &self,
        partition: Partition,
        name: &str,
        fields: &[Bytes],
    ) -> Result<Vec<Option<Bytes>>, Error> {
        self.read_many("HMGET", partition, name, fields).await
    }

    pub async fn zset_scores(
        &self,
        partition: Partition,
        name: &str,
        members: &[Bytes],
    ) -> Result<Vec<Option<Bytes>>, Error> {
        self.read_many("ZMSCORE", partition, name, members).await
    }

    pub async fn hash_len(&self, partition: Partition, name: &str) -> Result<u64, Error> {
        self.count("HLEN", partition, name, &[]).await
    }

    /// The number of members with a score above `score`.
    pub async fn count_above(
        &self,
        partition: Partition,
        name: &str,
        score: i64,
    ) -> Result<u64, Error> {
        self.count("ZCOUNT", partition, name, &[format!("({score}"), "+inf".to_owned()]).await
    }

    /// The first and last entry of a partition's outbox; `None` when it is empty.
    pub async fn outbox_ends(&self, partition: Partition) -> Result<Option<StreamEnds>, Error> {
        let end = async |command, [from, to]: [&str; 2]| -> Result<Option<u64>, Error> {
            let args = [from, to, "COUNT", "1"].map(Value::from).to_vec();
            let mut entries = self.command(command, partition, "outbox", args).await?.words()?;
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

    /// The clock of the server that owns a partition, in milliseconds since 1970.
    pub async fn clock(&self, partition: Partition) -> Result<i64, Error> {
        let read = |client: Client| async move {
            let time = CustomCommand::new_static("TIME", ClusterHash::FirstKey, false);
            client.custom::<Value, _>(time, Vec::<Value>::new()).await
        };
        let reply = self.with_owner(partition, READ_PATIENCE, read).await?;
        let mut words = ScriptReply::try_from(reply)?.words()?;
        Ok(words.int()? * 1_000 + words.int()? / 1_000)
    }

    async fn scan_page(
        &self,
        command: &'static str,
        partition: Partition,
        name: &str,
        from: Option<String>,
    ) -> Result<ScanPage, Error> {
        let from = from.unwrap_or_else(|| "0".to_owned());
        let args = vec![from.into(), "COUNT".into(), SCAN_PAGE_SIZE.into()];
        let mut words = self.command(command, partition, name, args).await?.words()?;
        let next = Some(words.text()?).filter(|cursor| cursor != "0");
        let mut elements = words.word()?.words()?;
        let mut pairs = Vec::new();
        while !elements.is_empty() {
            pairs.push((elements.word()?.bytes()?, elements.word()?.bytes()?));
        }
        Ok(ScanPage { next, pairs })
    }

    async fn read_many(
        &self,
        command: &'static str,
        partition: Partition,
        name: &str,
        names: &[Bytes],
    ) -> Result<Vec<Option<Bytes>>, Error> {
        let mut values = Vec::with_capacity(names.len());
        for chunk in names.chunks(500) {
            let args = chunk.iter().cloned().map(Value::Bytes).collect();
            for word in self.command(command, partition, name, args).await?.words()?.rest() {
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
        let count = self.command(command, partition, name, args).await?.int()?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    pub(super) async fn command(
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
        ScriptReply::try_from(self.with_owner(partition, READ_PATIENCE, read).await?)
    }
}
