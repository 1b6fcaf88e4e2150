//! The work that goes on beside requests, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::DomainServices;
use super::retire::{self, PruneSchedule};
use crate::http::jwt;
use crate::edge::limits::RateLimits;
use crate::edge::listener;
use crate::mysql::definitions;
use crate::outbox::OutboxWriter;
use crate::outbox::pressure::{self, PressureWatermarks};
use crate::telemetry::{self, Metric};
use crate::{queue, recovery};

/// How often the version of the definitions is looked at: a change reaches every instance well within a second.
const REFRESH: Duration = Duration::from_millis(250);

/// Everything that runs.
pub(super) struct BackgroundTasks {
    sweeps: TaskTracker,
    stop_sweeps: CancellationToken,
    writer: JoinHandle<()>,
    stop_writer: CancellationToken,
}

/// Starts the promoter, the sweeps, the refresher, the verifier and the writer.
pub(super) fn start(
    rooms: &DomainServices,
    writer: OutboxWriter,
    limits: Arc<RateLimits>,
    jwt: Option<Arc<jwt::JwtVerifier>>,
    certificates: Option<Arc<listener::ServerCertificates>>,
    retirement: PruneSchedule,
    watermarks: PressureWatermarks,
) -> BackgroundTasks {
    let (sweeps, stop) = (TaskTracker::new(), CancellationToken::new());
    let stop_writer = CancellationToken::new();
    sweeps.spawn(queue::run_promoter(rooms.queue.clone(), stop.clone()));
    sweeps.spawn(rooms.seats.clone().run_sweep(stop.clone()));
    sweeps.spawn(rooms.payments.clone().run_sweep(stop.clone()));
    sweeps.spawn(rooms.wallet.clone().run_tidy(stop.clone()));
    sweeps.spawn(rooms.coupons.clone().run(stop.clone()));
    sweeps.spawn(retire::run(rooms.clone(), retirement, stop.clone()));
    sweeps.spawn(refresh(rooms.clone(), stop.clone()));
    sweeps.spawn(recovery::run_verifier(
        rooms.redis.clone(),
        rooms.mysql.clone(),
        writer.nudge(),
        stop.clone(),
    ));
    let settling =
        recovery::StoreReconciler::new(rooms.redis.clone(), rooms.mysql.clone(), writer.nudge());
    sweeps.spawn(recovery::run_settling(settling, stop.clone()));
    sweeps.spawn(limits.tidy(stop.clone()));
    if let Some(jwt) = jwt {
        sweeps.spawn(jwt.reread(stop.clone()));
    }
    if let Some(certificates) = certificates {
        sweeps.spawn(certificates.reread(stop.clone()));
    }
    sweeps.spawn(telemetry::upkeep(telemetry::install(), stop.clone()));
    sweeps.spawn(telemetry::watch_runtime(stop.clone()));
    sweeps.spawn(pressure::watch(rooms.redis.clone(), watermarks, stop.clone()));
    sweeps.spawn(writer.nudge().watch(rooms.mysql.clone(), stop.clone()));
    sweeps.close();
    BackgroundTasks {
        sweeps,
        stop_sweeps: stop,
        writer: tokio::spawn(writer.run(stop_writer.clone())),
        stop_writer,
    }
}

impl BackgroundTasks {
    /// Ends the sweeps after the step they are in, then the writer after a last look at the outbox.
    pub(super) async fn stop(self) {
        self.stop_sweeps.cancel();
        self.sweeps.wait().await;
        self.stop_writer.cancel();
        if let Err(error) = self.writer.await {
            tracing::error!(%error, "the writer ended by itself");
        }
    }
}

/// Reads the definitions again whenever their version has moved.
async fn refresh(rooms: DomainServices, stop: CancellationToken) {
    let mut seen = None;
    let mut ticks = tokio::time::interval(REFRESH);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        Metric::MysqlPoolConnections.gauge(&[("state", "open")]).set(f64::from(rooms.mysql.size()));
        Metric::MysqlPoolConnections.gauge(&[("state", "idle")]).set(rooms.mysql.num_idle() as f64);
        rooms.redis.count_connections();
        match definitions::version(&rooms.mysql).await {
            Ok(version) if seen == Some(version) => {}
            // The version is taken before the settings, so these are never older than it says.
            Ok(version) => match rooms.reload().await {
                Ok(()) => seen = Some(version),
                Err(error) => tracing::warn!(%error, "reading the definitions"),
            },
            Err(error) => tracing::warn!(%error, "reading the version of the definitions"),
        }
    }
}
