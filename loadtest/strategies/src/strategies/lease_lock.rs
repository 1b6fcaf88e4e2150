//! A lock in Redis: `SET key token NX PX`, deleted only by its holder. The lease outlasts every
//! transaction here.

use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, KeysInterface};
use fred::types::config::{Config, ConnectionConfig, TcpConfig};
use fred::types::scripts::Script;
use fred::types::{Builder, Expiration, SetOptions};
use uuid::Uuid;

use crate::BoxError;
use crate::work_item::WorkFailure;

/// How long a lock lasts if its holder does not release it.
pub(crate) const LEASE_TIME: Duration = Duration::from_secs(10);

/// Deletes the key if it holds the token, and publishes the key if a channel is given.
const RELEASE_SCRIPT: &str = "
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
if ARGV[2] ~= '' then redis.call('PUBLISH', ARGV[2], KEYS[1]) end
return 1";

/// Locks on one Redis server.
pub(crate) struct LeaseLocks {
    client: Client,
    release: Script,
}

pub(crate) struct HeldLease {
    key: String,
    token: String,
}

impl HeldLease {
    /// A lease with a unique token.
    pub(crate) fn new(key: &str) -> Self {
        Self { key: key.to_owned(), token: Uuid::new_v4().simple().to_string() }
    }
}

impl LeaseLocks {
    pub(crate) async fn connect(url: &str) -> Result<Self, BoxError> {
        Ok(Self { client: connect(url).await?, release: Script::from_lua(RELEASE_SCRIPT) })
    }

    /// Takes the lock if it is free.
    pub(crate) async fn take(&self, lease: &HeldLease) -> Result<bool, WorkFailure> {
        let expiry = Expiration::PX(i64::try_from(LEASE_TIME.as_millis()).unwrap_or(i64::MAX));
        let (key, token) = (lease.key.as_str(), lease.token.as_str());
        let set: Option<String> =
            self.client.set(key, token, Some(expiry), Some(SetOptions::NX), false).await?;
        Ok(set.is_some())
    }

    /// Releases the lock, and publishes that on the channel unless its name is empty.
    pub(crate) async fn release(
        &self,
        lease: &HeldLease,
        channel: &str,
    ) -> Result<(), WorkFailure> {
        let arguments = vec![lease.token.as_str(), channel];
        let key = lease.key.as_str();
        let _: i64 = self.release.evalsha_with_reload(&self.client, key, arguments).await?;
        Ok(())
    }
}

/// Opens one pipelined connection.
pub(crate) async fn connect(url: &str) -> Result<Client, BoxError> {
    let mut builder = Builder::from_config(Config::from_url(url)?);
    builder.set_connection_config(ConnectionConfig {
        tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
        ..ConnectionConfig::default()
    });
    let client = builder.build()?;
    client.init().await?;
    Ok(client)
}

/// Back-off from 1 ms to 32 ms, doubled at each retry, half of it random. The value is in µs.
pub(crate) struct RetryBackoff(u64);

impl RetryBackoff {
    pub(crate) fn new() -> Self {
        Self(1_000)
    }

    pub(crate) async fn wait(&mut self) {
        let micros = self.0 / 2 + rand::random_range(0..=self.0 / 2);
        tokio::time::sleep(Duration::from_micros(micros)).await;
        self.0 = (self.0 * 2).min(32_000);
    }
}
