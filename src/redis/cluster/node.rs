//! One Redis server: its pipelined connections, set so that nothing is ever sent twice or waits for ever.
//!
//! The driver could follow a cluster and Sentinel by itself. It is not let: with one attempt a command (and more would repeat what may have run) it can't
//! follow a redirection, an ASK ends its task, and a command that waits for a reply of a node that is demoted goes to the next one again. So
//! each server is a plain one to it, and who holds what is found out in `servers.rs`.

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

/// Pipelining is automatic, so two connections keep Redis' one core busy; a third only adds wake-ups.
const CONNECTIONS: usize = 2;
/// Commands that may wait in one connection's buffer. The coalescers bound the load long before; this bounds everything else.
const BUFFERED_COMMANDS: usize = 20_000;
/// How long a connection and its greeting may take.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);

/// One server. Its connections end with it.
#[derive(Debug)]
pub(in crate::redis) struct RedisNode {
    server: Server,
    clients: Vec<Client>,
    tasks: Vec<ConnectHandle>,
    turn: AtomicUsize,
}

impl RedisNode {
    /// Connects to one server that holds data.
    pub(in crate::redis) async fn connect(
        config: Config,
        timeout: Duration,
    ) -> Result<Self, Error> {
        Self::connect_by(config, timeout, CONNECTIONS, true).await
    }

    /// Connects to one that is asked now and then.
    pub(in crate::redis) async fn connect_to_ask(
        config: Config,
        timeout: Duration,
    ) -> Result<Self, Error> {
        Self::connect_by(config, timeout, 1, true).await
    }

    /// Connects once: the connection is not made again when it ends.
    pub(in crate::redis) async fn connect_once(
        config: Config,
        timeout: Duration,
    ) -> Result<Self, Error> {
        Self::connect_by(config, timeout, 1, false).await
    }

    async fn connect_by(
        config: Config,
        timeout: Duration,
        many: usize,
        again: bool,
    ) -> Result<Self, Error> {
        let server = config.server.hosts().pop().unwrap_or_else(|| Server::new("", 0));
        let mut builder = Builder::from_config(config);
        builder.set_performance_config(PerformanceConfig {
            default_command_timeout: timeout,
            ..PerformanceConfig::default()
        });
        builder.set_connection_config(ConnectionConfig {
            connection_timeout: CONNECTED_WITHIN,
            internal_command_timeout: CONNECTED_WITHIN,
            // With more than one attempt the driver repeats a command whose reply was lost, and its effect is there twice.
            max_command_attempts: 1,
            max_command_buffer_len: BUFFERED_COMMANDS,
            unresponsive: UnresponsiveConfig {
                max_timeout: Some(timeout * 2),
                interval: Duration::from_millis(500),
            },
            tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
            ..ConnectionConfig::default()
        });
        if again {
            builder.set_policy(ReconnectPolicy::new_exponential(0, 50, 2_000, 2));
        }
        // As it grows, what was made of it ends with it.
        let mut node =
            Self { server, clients: Vec::new(), tasks: Vec::new(), turn: AtomicUsize::new(0) };
        for _ in 0..many {
            let client = builder.build()?;
            node.tasks.push(client.init().await?);
            node.clients.push(client);
        }
        Ok(node)
    }

    /// Where it is.
    pub(in crate::redis) fn server(&self) -> &Server {
        &self.server
    }

    /// One of its connections: one that stands, if any does.
    pub(in crate::redis) fn client(&self) -> &Client {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let nth = |step: usize| &self.clients[(turn + step) % self.clients.len()];
        (0..self.clients.len())
            .map(nth)
            .find(|client| client.is_connected())
            .unwrap_or_else(|| nth(0))
    }

    /// All of its connections.
    pub(in crate::redis) fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// Whether any connection stands.
    pub(in crate::redis) fn answers(&self) -> bool {
        self.clients.iter().any(ClientLike::is_connected)
    }

    /// Whether all connections stand.
    pub(in crate::redis) fn is_whole(&self) -> bool {
        self.clients.iter().all(ClientLike::is_connected)
    }

    /// Tells of each connection that was made again.
    pub(in crate::redis) fn reconnections(&self) -> Vec<broadcast::Receiver<Server>> {
        self.clients.iter().map(EventInterface::reconnect_rx).collect()
    }

    /// Closes the connections.
    pub(in crate::redis) async fn close(&self) {
        for client in &self.clients {
            if let Err(error) = client.quit().await {
                tracing::debug!(%error, "closing a connection to Redis");
            }
        }
    }
}

impl Drop for RedisNode {
    /// Whoever still waits for an answer hears that there is none.
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
