//! What Redis must be before anything is trusted to it, and what a write must have reached before it is believed.

use fred::clients::Client;
use fred::interfaces::{ClientLike, KeysInterface, ServerInterface};
use fred::types::{ClusterHash, CustomCommand, InfoKind, Value};

use super::{Error, Redis};
use crate::partition::Partition;

/// How long a write may take to reach what it must, in milliseconds; well below the time that a command may take.
const REACH_MS: i64 = 1_000;

/// What a write must have reached before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reach {
    /// So many replicas.
    pub replicas: u32,
    /// The append-only file of the primary, on its disk; and of so many replicas.
    pub aof: bool,
}

/// What a Redis says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes in use.
    pub used: u64,
    /// The most that it may use; 0 is no bound.
    pub max: u64,
}

impl Redis {
    /// Refuses a Redis that may forget: one that evicts (a lost seat is a seat sold twice) or keeps no append-only file. And one that lacks what
    /// writes are to reach.
    pub(super) async fn refuse_unsafe(&self, may_forget: bool, reach: Reach) -> Result<(), Error> {
        let memory: String = self.client().info(Some(InfoKind::Memory)).await?;
        let persistence: String = self.client().info(Some(InfoKind::Persistence)).await?;
        let mut flaws = Vec::new();
        if let Some(policy) = field(&memory, "maxmemory_policy").filter(|policy| *policy != "noeviction") {
            flaws.push(format!("maxmemory-policy is {policy}; Usher needs noeviction"));
        }
        if field(&persistence, "aof_enabled") == Some("0") {
            flaws.push("appendonly is off; Usher needs an append-only file".to_owned());
        }
        if may_forget {
            for flaw in &flaws {
                tracing::warn!("{flaw}; USHER_REDIS_MAY_FORGET allows it");
            }
        } else if !flaws.is_empty() {
            let flaws = flaws.join("; ");
            return Err(Error::Unavailable(format!("{flaws} (USHER_REDIS_MAY_FORGET=true allows it)")));
        }
        if reach.aof {
            let info: Vec<Value> =
                custom(self.client(), "COMMAND", vec!["INFO".into(), "WAITAOF".into()]).await?;
            if info.iter().all(Value::is_null) {
                let why =
                    "USHER_REDIS_WAIT_AOF needs WAITAOF, which Redis has from 7.2 on and this one lacks";
                return Err(Error::Unavailable(why.into()));
            }
        }
        Ok(())
    }

    /// How much memory Redis uses, and may use.
    pub async fn memory(&self) -> Result<Memory, Error> {
        let info: String = self.client().info(Some(InfoKind::Memory)).await?;
        let number = |name| field(&info, name).and_then(|number| number.parse().ok()).unwrap_or(0);
        Ok(Memory { used: number("used_memory"), max: number("maxmemory") })
    }

    /// Waits until what this connection wrote has reached what it must. A connection that was made anew has written nothing, so its word is not taken.
    pub(super) async fn reached(&self, client: &Client, before: Option<u64>) -> Result<(), Error> {
        let reach = self.reach();
        let (local, replicas) = if reach.aof {
            let args = vec![1.into(), i64::from(reach.replicas).into(), REACH_MS.into()];
            custom::<(i64, i64)>(client, "WAITAOF", args).await?
        } else {
            (1, client.wait(i64::from(reach.replicas), REACH_MS).await?)
        };
        if before.is_none() || self.session() != before {
            return Err(Error::Unavailable(
                "the connection was lost before the write was known to be safe".into(),
            ));
        }
        if local < i64::from(reach.aof) || replicas < i64::from(reach.replicas) {
            let lack = format!("a write reached {replicas} of {} replicas in time", reach.replicas);
            return Err(Error::Unavailable(lack));
        }
        Ok(())
    }

    /// Waits until what was read before this call has reached what writes must reach: everything that came before a write of our own has, once that has.
    pub async fn reads_are_safe(&self, partition: Partition) -> Result<(), Error> {
        if !self.waits() {
            return Ok(());
        }
        let (client, session) = (self.client(), self.session());
        let key = self.keys().of_partition(partition, "reached");
        client.set::<(), _, _>(key, rand::random::<u32>().to_string(), None, None, false).await?;
        self.reached(client, session).await
    }

    /// Whether writes must reach anything at all.
    pub(super) fn waits(&self) -> bool {
        self.reach() != Reach::default()
    }
}

async fn custom<T: fred::types::FromValue>(
    client: &Client,
    command: &'static str,
    args: Vec<Value>,
) -> Result<T, Error> {
    let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
    Ok(client.custom(command, args).await?)
}

/// One line of INFO.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
