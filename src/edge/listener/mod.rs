//! The accept loop, and the limits and the end of connections.
//!
//! `axum::serve` has no timeouts, so a client that sends half a header would keep its connection
//! forever. Here each stage has a limit: the number of connections in total and per address
//! (`connection_permits`), the TLS handshake, the size, number and time of headers, idle time and
//! stalled writes ([`super::connection_timeouts`]), concurrent and reset streams of one HTTP/2
//! connection (`http2_streams`), and in [`super::layers`] the body and the whole request. The HTTP
//! version follows from TLS ALPN, else from the first bytes.

mod certificates;
mod connection;
mod connection_permits;
mod http2_streams;
mod settings;

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
pub use settings::ListenerSettings;

/// Pause after a failed accept, usually because no file descriptor is left. Immediate retries would
/// only use processor time.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// The maximum timeouts of a connection above the limit. They are short because there are few such
/// connections.
const OVERFLOW_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves `router` on `listener` until the shutdown drains. Then requests in flight may finish
/// until the shutdown stops, which cuts them. With certificates the listener accepts only TLS.
///
/// A connection above the limit gets one response of `overflow` and ends. Without a response, a
/// client could not distinguish a full instance from a broken one.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    overflow: Router,
    settings: ListenerSettings,
    certificates: Option<Arc<ServerCertificates>>,
    shutdown: ShutdownSignal,
) {
    // Without this call axum would build the layers of a route for each request; `axum::serve` does
    // the same.
    let (router, overflow) = (router.with_state(()), overflow.with_state(()));
    let overflow_settings = ListenerSettings {
        header_timeout: settings.header_timeout.min(OVERFLOW_TIMEOUT),
        idle_timeout: settings.idle_timeout.min(OVERFLOW_TIMEOUT),
        ..settings
    };
    let permits = ConnectionPermits::new(settings.max_connections, settings.max_per_address);
    let graceful = GracefulShutdown::new();
    let connections = TaskTracker::new();
    let refused = Metric::ConnectionsRefusedTotal.counter(&[("reason", "address")]);
    let refused_total = Metric::ConnectionsRefusedTotal.counter(&[("reason", "total")]);
    let accepting = async {
        loop {
            let Some(available) = permits.acquire().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let Some(permit) = available.for_address(peer.ip()) else {
                        refused.increment(1);
                        continue;
                    };
                    let quiet = shutdown.quiet_token().child_token();
                    let (router, settings) = if permit.is_overflow {
                        refused_total.increment(1);
                        // The first response closes the connection.
                        quiet.cancel();
                        (overflow.clone(), overflow_settings)
                    } else {
                        (router.clone(), settings)
                    };
                    let connection = ConnectionContext {
                        router,
                        peer: PeerAddress(peer),
                        settings,
                        quiet,
                        certificates: certificates.clone(),
                        watcher: graceful.watcher(),
                        drain: shutdown.drain_token().child_token(),
                        cut: shutdown.stop_token().child_token(),
                        permit,
                    };
                    connections.spawn(connection.run(stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
                }
            }
        }
    };
    shutdown.drain_token().run_until_cancelled(accepting).await;
    drop(listener);
    connections.close();
    let last_requests = async {
        graceful.shutdown().await;
        connections.wait().await;
    };
    shutdown.stop_token().run_until_cancelled(last_requests).await;
}

#[cfg(test)]
mod tests;
