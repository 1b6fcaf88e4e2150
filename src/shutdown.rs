//! Quiet, then drain, then stop by a deadline.
//!
//! - **quiet**: `/readyz` says 503, so that load balancers look elsewhere; requests are still answered.
//! - **drain**: listeners accept nothing more, requests in flight finish.
//! - **stop**: background work ends after the step it is in, connections that still stand are cut.
//!
//! Stop comes as soon as the app says that everything has drained ([`ShutdownSignal::stop`]) and at the deadline at the latest. A second
//! signal moves the deadline to now.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The three moments of a shutdown. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct ShutdownSignal {
    quiet: CancellationToken,
    drain: CancellationToken,
    stop: CancellationToken,
}

/// How long the phases last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownTiming {
    /// From the signal until the listeners close.
    pub quiet: Duration,
    /// From the signal until everything is cut; not shorter than `quiet`.
    pub deadline: Duration,
}

impl ShutdownTiming {
    /// A deadline with a quiet time that fits it: a quarter of it, two seconds at most, which is what a load balancer needs to see it.
    pub fn within(deadline: Duration) -> Self {
        Self { quiet: (deadline / 4).min(Duration::from_secs(2)), deadline }
    }
}

impl ShutdownSignal {
    /// A shutdown that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the shutdown begins.
    pub fn quiet_token(&self) -> &CancellationToken {
        &self.quiet
    }

    /// Cancelled when listeners close.
    pub fn drain_token(&self) -> &CancellationToken {
        &self.drain
    }

    /// Cancelled when background work ends and connections are cut.
    pub fn stop_token(&self) -> &CancellationToken {
        &self.stop
    }

    /// Goes to the last phase at once, through the others.
    pub fn stop(&self) {
        self.quiet.cancel();
        self.drain.cancel();
        self.stop.cancel();
    }

    /// Waits for the first event of `signals`, then walks through the phases. Ends when stop is reached, by whatever way.
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
                tracing::warn!("the deadline of the shutdown has passed: cutting what is left");
            };
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = phases => {}
                () = signals() => tracing::warn!("a second signal: stopping at once"),
            }
        }
        self.stop();
    }
}

/// SIGTERM and SIGINT, from now on.
///
/// # Errors
/// When the process can't listen to signals.
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

    /// Gives the first signal at once and the second never.
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
    async fn the_phases_come_in_order_and_end_at_the_deadline() {
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
    async fn it_ends_early_once_everything_has_drained() {
        let shutdown = ShutdownSignal::new();
        let app = async {
            shutdown.drain_token().cancelled().await;
            shutdown.stop();
        };
        let both = async { tokio::join!(shutdown.run(one_signal(), timing(1, 600_000)), app) };
        tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    }

    #[tokio::test]
    async fn a_second_signal_stops_at_once() {
        let shutdown = ShutdownSignal::new();
        let run = shutdown.run(|| std::future::ready(()), timing(600_000, 600_000));
        tokio::time::timeout(Duration::from_secs(10), run).await.unwrap();
        assert!(shutdown.drain_token().is_cancelled() && shutdown.stop_token().is_cancelled());
    }

    #[tokio::test]
    async fn an_app_that_ends_by_itself_needs_no_signal() {
        let shutdown = ShutdownSignal::new();
        shutdown.stop();
        shutdown.run(std::future::pending::<()>, timing(600_000, 600_000)).await;
    }

    #[test]
    fn the_quiet_time_is_bounded() {
        assert_eq!(ShutdownTiming::within(Duration::from_secs(20)).quiet, Duration::from_secs(2));
        assert_eq!(ShutdownTiming::within(Duration::from_secs(4)).quiet, Duration::from_secs(1));
    }
}
