//! `usher serve`: opens the listeners, serves, and shuts down on a signal.

use std::net::SocketAddr;

use super::error::Error;
use super::instance::{UsherApp, listen};
use crate::config::UsherConfig;
use crate::edge::file_descriptors;
use crate::shutdown::{self, ShutdownSignal};

/// `usher serve`: serves until a signal.
///
/// # Errors
/// When the instance can't be built or its listeners can't be opened.
pub async fn serve(config: UsherConfig) -> Result<(), Error> {
    run(config, ShutdownSignal::new(), axum::Router::new(), |_| {}).await
}

/// The addresses that the listeners have after the start, where port 0 became a free port.
#[derive(Clone, Copy)]
pub(super) struct BoundAddresses {
    pub(super) public: SocketAddr,
    pub(super) admin: SocketAddr,
}

/// Builds an instance, opens its listeners, calls `on_listening`, and serves until the shutdown is
/// over.
pub(super) async fn run(
    mut config: UsherConfig,
    shutdown: ShutdownSignal,
    extra_admin_routes: axum::Router,
    on_listening: impl FnOnce(BoundAddresses),
) -> Result<(), Error> {
    // The signal handlers come first, so that no signal during the start is lost.
    let signals = shutdown::signals().map_err(Error::Signals)?;
    let timing = config.http.shutdown;
    let max_connections = &mut config.http.listener.max_connections;
    *max_connections = file_descriptors::raise_limit(*max_connections);
    // The listeners open before the stores are connected: an address in use fails fast. Clients
    // wait in the kernel's backlog.
    let public = listen(config.http.listen).await?;
    let admin = listen(config.http.admin_listen).await?;
    let addresses = (public.local_addr(), admin.local_addr());
    let app = UsherApp::build_with(config, shutdown.clone(), extra_admin_routes).await?;
    if let (Ok(public), Ok(admin)) = addresses {
        tracing::info!(%public, %admin, "serving");
        on_listening(BoundAddresses { public, admin });
    }
    let phases = tokio::spawn(async move { shutdown.run(signals, timing).await });
    app.serve(public, admin).await;
    phases.abort();
    tracing::info!("stopped");
    Ok(())
}
