//! The connections to one Redis server, configured so that no command is sent twice or waits
//! without a limit.
//!
//! The driver's own support for Cluster and Sentinel is not used. With one attempt per command,
//! which we need because a second attempt may repeat an effect, the driver can't follow a redirect;
//! an ASK ends its task; and a command that waits for the reply of a demoted node is sent to the
//! next one. So the driver sees each server as a standalone one, and `topology.rs` finds the
//! owners.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::config::{
    Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, Server, TcpConfig,
    UnresponsiveConfig,
};
use fred::types::{Builder, ConnectHandle};
use tokio::sync::broadcast;

use crate::redis::Error;

/// Commands are pipelined, so two connections keep the one core of Redis busy; a third only adds
/// wake-ups.
const CONNECTIONS_PER_SERVER: usize = 2;
/// Commands that may wait in the buffer of one connection. The coalescers limit script calls much
/// earlier; this limits everything else.
const MAX_BUFFERED_COMMANDS: usize = 20_000;
/// How long connecting and the handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One server. Dropping it closes its connections.
#[derive(Debug)]
pub(in crate::redis) struct RedisNode {
    server: Server,
    clients: Vec<Client>,
    tasks: Vec<ConnectHandle>,
    turn: AtomicUsize,
}

impl RedisNode {
    /// Connects to a server that owns partitions.
    pub(in crate::redis) async fn connect(
        config: Config,
        timeout: Duration,
    ) -> Result<Self, Error> {
        Self::connect_with(config, timeout, CONNECTIONS_PER_SERVER, true).await
    }

    /// Connects to a server that is only queried for the topology: one connection.
    pub(in crate::redis) async fn connect_single(
        config: Config,
        timeout: Duration,
    ) -> Result<Self, Error> {
        Self::connect_with(config, timeout, 1, true).await
    }

    /// Connects once and never reconnects.
    pub(in crate::redis) async fn connect_once(
        config: Config,
        timeout: Duration,
    ) -> Result<Self, Error> {
        Self::connect_with(config, timeout, 1, false).await
    }

    async fn connect_with(
        config: Config,
        timeout: Duration,
        connections: usize,
        reconnect: bool,
    ) -> Result<Self, Error> {
        let server = config.server.hosts().pop().unwrap_or_else(|| Server::new("", 0));
        let mut builder = Builder::from_config(config);
        builder.set_performance_config(PerformanceConfig {
            default_command_timeout: timeout,
            ..PerformanceConfig::default()
        });
        builder.set_connection_config(ConnectionConfig {
            connection_timeout: CONNECT_TIMEOUT,
            internal_command_timeout: CONNECT_TIMEOUT,
            // With more attempts the driver repeats a command whose reply was lost, and
            // its effect happens twice.
            max_command_attempts: 1,
            max_command_buffer_len: MAX_BUFFERED_COMMANDS,
            unresponsive: UnresponsiveConfig {
                max_timeout: Some(timeout * 2),
                interval: Duration::from_millis(500),
            },
            tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
            ..ConnectionConfig::default()
        });
        if reconnect {
            builder.set_policy(ReconnectPolicy::new_exponential(0, 50, 2_000, 2));
        }
        // Built step by step, so that an error drops the connections that exist already.
        let mut node =
            Self { server, clients: Vec::new(), tasks: Vec::new(), turn: AtomicUsize::new(0) };
        for _ in 0..connections {
            let client = builder.build()?;
            let task = client.init().await;
            node.tasks.push(task.map_err(|error| Error::unreachable(&node.server, &error))?);
            node.clients.push(client);
        }
        Ok(node)
    }

    pub(in crate::redis) fn server(&self) -> &Server {
        &self.server
    }

    /// The next connection in turn, preferably one that is up.
    pub(in crate::redis) fn client(&self) -> &Client {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let nth = |step: usize| &self.clients[(turn + step) % self.clients.len()];
        (0..self.clients.len())
            .map(nth)
            .find(|client| client.is_connected())
            .unwrap_or_else(|| nth(0))
    }

    pub(in crate::redis) fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// Whether at least one connection is up.
    pub(in crate::redis) fn is_connected(&self) -> bool {
        self.clients.iter().any(ClientLike::is_connected)
    }

    /// Whether all connections are up.
    pub(in crate::redis) fn is_fully_connected(&self) -> bool {
        self.clients.iter().all(ClientLike::is_connected)
    }

    /// An event for each reconnection.
    pub(in crate::redis) fn reconnections(&self) -> Vec<broadcast::Receiver<Server>> {
        self.clients.iter().map(EventInterface::reconnect_rx).collect()
    }

    pub(in crate::redis) async fn close(&self) {
        for client in &self.clients {
            if let Err(error) = client.quit().await {
                tracing::debug!(%error, "could not close a connection to Redis");
            }
        }
    }
}

impl Drop for RedisNode {
    /// Ends the driver's tasks, so that pending commands fail at once.
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
