//! The yardstick outside: axum as it comes, with one route that does nothing; and the same router on our own listener.

use std::io::Write;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use usher::http::listener;
use usher::shutdown::Shutdown;

use crate::Failure;

/// Serves until standard input ends, so that it can't outlive the bench.
pub(crate) async fn serve() -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let ours = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "{}\n{}", listener.local_addr()?, ours.local_addr()?)?;
    let app = Router::new().route("/noop", get(|| async {}));
    let ended = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    tokio::select! {
        served = axum::serve(listener, app.clone()) => served?,
        () = listener::serve(ours, app, listener::Settings::default(), None, Shutdown::new()) => {}
        _ = ended => {}
    }
    Ok(())
}
