//! The accept loop: how many connections there are, how slowly they may speak, and how they end.
//!
//! `axum::serve` arms no timers, so a client that sends half a header would hold its slot for ever. Here each stage has a bound: the
//! count of connections, in all and from one address (`slots`), the TLS handshake, the size, number and time of headers, the idle time, stalled
//! writes (`stall`), what one HTTP/2 connection may ask at once and take back (`streams`), and, in `layers`, the body and the request as a whole. Which
//! version is spoken is told by TLS' ALPN, else by the first bytes. The socket and the shutdown are handed in.

mod certificates;
mod connection;
mod connection_permits;
mod http2_streams;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::http::peer::PeerAddress;
use crate::shutdown::ShutdownSignal;
use crate::telemetry::Metric;

pub use certificates::{CertificateFiles, ServerCertificates};
use connection::ConnectionContext;
use connection_permits::ConnectionPermits;

/// After a failed accept (no file descriptor is left, mostly) trying again at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bounds on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Connections that stand at once; further ones wait in the kernel's backlog.
    pub max_connections: usize,
    /// Connections that stand at once from one address (of IPv6, one /64); further ones are closed at once. 0 is off.
    pub max_per_address: u32,
    /// From the first byte of a request to the last of its headers; also a TLS handshake, and how long a write may make no progress.
    pub header_timeout: Duration,
    /// How long a connection may stand without a request. Longer than the minute for which load balancers keep theirs, so that
    /// they close first and never send into a closed one.
    pub idle_timeout: Duration,
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

/// Serves `router` on `listener` until the shutdown drains, then lets requests in flight finish, and returns when none is left or when
/// the shutdown stops, which cuts them. With certificates it speaks TLS and nothing else.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: ListenerSettings,
    certificates: Option<Arc<ServerCertificates>>,
    shutdown: ShutdownSignal,
) {
    // Without it axum builds every route with its layers anew for each request, as `axum::serve` knows.
    let router = router.with_state(());
    let slots = ConnectionPermits::new(settings.max_connections, settings.max_per_address);
    let graceful = GracefulShutdown::new();
    let connections = TaskTracker::new();
    let refused = Metric::ConnectionsRefusedTotal.counter(&[("reason", "address")]);
    let accepting = async {
        loop {
            let Some(room) = slots.room().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let Some(slot) = room.of(peer.ip()) else {
                        refused.increment(1);
                        continue;
                    };
                    let connection = ConnectionContext {
                        router: router.clone(),
                        peer: PeerAddress(peer),
                        settings,
                        quiet: shutdown.quiet_token().child_token(),
                        certificates: certificates.clone(),
                        watcher: graceful.watcher(),
                        drain: shutdown.drain_token().child_token(),
                        cut: shutdown.stop_token().child_token(),
                        slot,
                    };
                    connections.spawn(connection.run(stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    shutdown.drain_token().run_until_cancelled(accepting).await;
    drop(listener);
    connections.close();
    let ending = async {
        graceful.shutdown().await;
        connections.wait().await;
    };
    shutdown.stop_token().run_until_cancelled(ending).await;
}

#[cfg(test)]
mod tests;
