//! A lock in Redis: `SET key token NX PX`, given back by whoever holds it still. The lease ends by itself, long after any of these transactions.

use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, KeysInterface};
use fred::types::config::{Config, ConnectionConfig, TcpConfig};
use fred::types::scripts::Script;
use fred::types::{Builder, Expiration, SetOptions};
use uuid::Uuid;

use crate::Failure;
use crate::work::Failed;

/// How long a lock lasts when nobody gives it back.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// Deletes the key if it holds the token, and tells those who listen on the channel, if one is named.
const GIVE_BACK: &str = "
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
if ARGV[2] ~= '' then redis.call('PUBLISH', ARGV[2], KEYS[1]) end
return 1";

/// One Redis that locks are kept in.
pub(crate) struct Locks {
    client: Client,
    give_back: Script,
}

/// A lock that is held.
pub(crate) struct Held {
    key: String,
    token: String,
}

impl Held {
    /// What to hold, under a token that nobody else has.
    pub(crate) fn new(key: &str) -> Self {
        Self { key: key.to_owned(), token: Uuid::new_v4().simple().to_string() }
    }
}

impl Locks {
    /// Connects.
    pub(crate) async fn connect(url: &str) -> Result<Self, Failure> {
        let client = client(url).await?;
        Ok(Self { client, give_back: Script::from_lua(GIVE_BACK) })
    }

    /// Takes the lock if it is free.
    pub(crate) async fn take(&self, held: &Held) -> Result<bool, Failed> {
        let lease = Expiration::PX(i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX));
        let (key, token) = (held.key.as_str(), held.token.as_str());
        let said: Option<String> =
            self.client.set(key, token, Some(lease), Some(SetOptions::NX), false).await?;
        Ok(said.is_some())
    }

    /// Gives it back, and tells so on a channel unless its name is empty.
    pub(crate) async fn give_back(&self, held: &Held, channel: &str) -> Result<(), Failed> {
        let arguments = vec![held.token.as_str(), channel];
        let _: i64 = self.give_back.evalsha_with_reload(&self.client, held.key.as_str(), arguments).await?;
        Ok(())
    }
}

/// A pipelined connection.
pub(crate) async fn client(url: &str) -> Result<Client, Failure> {
    let mut builder = Builder::from_config(Config::from_url(url)?);
    builder.set_connection_config(ConnectionConfig {
        tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
        ..ConnectionConfig::default()
    });
    let client = builder.build()?;
    client.init().await?;
    Ok(client)
}

/// Back-off: from one millisecond to 32, doubled each time, half of it at random.
pub(crate) struct Pause(u64);

impl Pause {
    /// From the beginning.
    pub(crate) fn new() -> Self {
        Self(1_000)
    }

    /// Waits, and waits longer the next time.
    pub(crate) async fn take(&mut self) {
        let micros = self.0 / 2 + rand::random_range(0..=self.0 / 2);
        tokio::time::sleep(Duration::from_micros(micros)).await;
        self.0 = (self.0 * 2).min(32_000);
    }
}
