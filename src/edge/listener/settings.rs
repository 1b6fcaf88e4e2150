//! Limits of connections.

use std::time::Duration;

use crate::edge::connection_timeouts::ConnectionTimeouts;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Concurrent connections. Further ones receive one response with 503.
    pub max_connections: usize,
    /// Concurrent connections from one address (of IPv6: one /64). Further ones are closed
    /// immediately. 0 disables the limit.
    pub max_per_address: u32,
    /// From the first byte of a request to the end of its headers. Also limits the TLS handshake
    /// and a write without progress.
    pub header_timeout: Duration,
    /// How long a connection may be idle. It must be longer than the idle timeout of the load
    /// balancer, so that the load balancer closes first and never sends a request into a closed
    /// connection.
    pub idle_timeout: Duration,
}

impl ListenerSettings {
    pub(super) fn connection_timeouts(&self) -> ConnectionTimeouts {
        ConnectionTimeouts { headers: self.header_timeout, idle: self.idle_timeout }
    }
}

impl Default for ListenerSettings {
    fn default() -> Self {
        Self {
            max_connections: 25_000,
            max_per_address: 0,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
        }
    }
}
