//! Shutdown in three phases: quiet, drain, stop.
//!
//! - **quiet**: `/readyz` returns 503, so that load balancers choose other instances. Requests are
//!   still served.
//! - **drain**: listeners accept no connections, and requests in flight finish.
//! - **stop**: background tasks end after their current step, and open connections are closed.
//!
//! Stop begins as soon as everything has drained ([`ShutdownSignal::stop`]), at the deadline, or at
//! a second signal.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The phases of a shutdown. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct ShutdownSignal {
    quiet: CancellationToken,
    drain: CancellationToken,
    stop: CancellationToken,
}

/// The duration of the phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownTiming {
    /// From the signal to the drain.
    pub quiet: Duration,
    /// From the signal to the forced stop; not shorter than `quiet`.
    pub deadline: Duration,
}

impl ShutdownTiming {
    /// The quiet phase takes a quarter of the deadline, two seconds at most. That is enough for
    /// load balancers to notice it.
    pub fn within(deadline: Duration) -> Self {
        Self { quiet: (deadline / 4).min(Duration::from_secs(2)), deadline }
    }
}

impl ShutdownSignal {
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled at the start of the quiet phase.
    pub fn quiet_token(&self) -> &CancellationToken {
        &self.quiet
    }

    /// Cancelled at the start of the drain phase.
    pub fn drain_token(&self) -> &CancellationToken {
        &self.drain
    }

    /// Cancelled at the start of the stop phase.
    pub fn stop_token(&self) -> &CancellationToken {
        &self.stop
    }

    /// Starts the stop phase, and with it the earlier phases.
    pub fn stop(&self) {
        self.quiet.cancel();
        self.drain.cancel();
        self.stop.cancel();
    }

    /// Waits for the first of `signals`, then runs the phases. Returns once the stop phase begins.
    pub async fn run<F: Future<Output = ()>>(
        &self,
        mut signals: impl FnMut() -> F,
        timing: ShutdownTiming,
    ) {
        if self.stop.run_until_cancelled(signals()).await.is_some() {
            tracing::info!(quiet = ?timing.quiet, deadline = ?timing.deadline, "shutting down");
            self.quiet.cancel();
            let phases = async {
                tokio::time::sleep(timing.quiet).await;
                self.drain.cancel();
                tokio::time::sleep(timing.deadline.saturating_sub(timing.quiet)).await;
                tracing::warn!("shutdown deadline reached, closing open connections");
            };
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = phases => {}
                () = signals() => tracing::warn!("second signal, stopping immediately"),
            }
        }
        self.stop();
    }
}

/// Listens for SIGTERM and SIGINT. Each call of the result waits for the next signal.
///
/// # Errors
/// When the process can't listen for signals.
pub fn signals() -> std::io::Result<impl FnMut() -> futures::future::BoxFuture<'static, ()>> {
    let streams = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let streams = std::sync::Arc::new(tokio::sync::Mutex::new(streams));
    Ok(move || {
        let streams = streams.clone();
        let next: futures::future::BoxFuture<'static, ()> = Box::pin(async move {
            let (terminate, interrupt) = &mut *streams.lock().await;
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        next
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn timing(quiet: u64, deadline: u64) -> ShutdownTiming {
        ShutdownTiming {
            quiet: Duration::from_millis(quiet),
            deadline: Duration::from_millis(deadline),
        }
    }

    /// Sends one signal immediately, and no second one.
    fn one_signal() -> impl FnMut() -> futures::future::BoxFuture<'static, ()> {
        let mut given = false;
        move || {
            if std::mem::replace(&mut given, true) {
                Box::pin(std::future::pending())
            } else {
                Box::pin(std::future::ready(()))
            }
        }
    }

    #[tokio::test]
    async fn phases_run_in_order_and_end_at_the_deadline() {
        let shutdown = ShutdownSignal::new();
        let started = Instant::now();
        let observed = async {
            shutdown.quiet_token().cancelled().await;
            assert!(!shutdown.drain_token().is_cancelled());
            shutdown.drain_token().cancelled().await;
            assert!(!shutdown.stop_token().is_cancelled());
        };
        tokio::join!(shutdown.run(one_signal(), timing(30, 90)), observed);
        assert!(shutdown.stop_token().is_cancelled());
        assert!(started.elapsed() >= Duration::from_millis(90));
    }

    #[tokio::test]
    async fn shutdown_ends_early_once_everything_has_drained() {
        let shutdown = ShutdownSignal::new();
        let app = async {
            shutdown.drain_token().cancelled().await;
            shutdown.stop();
        };
        let both = async { tokio::join!(shutdown.run(one_signal(), timing(1, 600_000)), app) };
        tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    }

    #[tokio::test]
    async fn second_signal_stops_immediately() {
        let shutdown = ShutdownSignal::new();
        let run = shutdown.run(|| std::future::ready(()), timing(600_000, 600_000));
        tokio::time::timeout(Duration::from_secs(10), run).await.unwrap();
        assert!(shutdown.drain_token().is_cancelled() && shutdown.stop_token().is_cancelled());
    }

    #[tokio::test]
    async fn app_that_ends_on_its_own_needs_no_signal() {
        let shutdown = ShutdownSignal::new();
        shutdown.stop();
        shutdown.run(std::future::pending::<()>, timing(600_000, 600_000)).await;
    }

    #[test]
    fn quiet_time_is_limited() {
        assert_eq!(ShutdownTiming::within(Duration::from_secs(20)).quiet, Duration::from_secs(2));
        assert_eq!(ShutdownTiming::within(Duration::from_secs(4)).quiet, Duration::from_secs(1));
    }
}
