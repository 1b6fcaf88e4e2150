//! The background tasks of an instance, and the order in which they end.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::clocks;
use super::definition_sync::DefinitionSync;
use super::domain_services::DomainServices;
use super::jobs;
use super::prune::{self, PruneSchedule};
use crate::edge::limits::RateLimits;
use crate::edge::listener;
use crate::http::jwt;
use crate::outbox::OutboxWriter;
use crate::outbox::pressure::{self, PressureWatermarks};
use crate::telemetry;
use crate::webhooks::{RetrySchedule, WebhookService};
use crate::{queue, recovery};

pub(super) struct BackgroundTasks {
    tasks: TaskTracker,
    stop_tasks: CancellationToken,
    writer: JoinHandle<()>,
    stop_writer: CancellationToken,
}

/// Starts all background tasks.
#[expect(clippy::too_many_arguments, reason = "each argument belongs to one or two tasks")]
pub(super) fn start(
    services: &DomainServices,
    definitions: Arc<DefinitionSync>,
    writer: OutboxWriter,
    limits: Arc<RateLimits>,
    jwt: Option<Arc<jwt::JwtVerifier>>,
    certificates: Option<Arc<listener::ServerCertificates>>,
    prune_schedule: PruneSchedule,
    (webhooks, retries): (Arc<WebhookService>, RetrySchedule),
    watermarks: PressureWatermarks,
) -> BackgroundTasks {
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let stop_writer = CancellationToken::new();
    tasks.spawn(queue::run_promoter(services.queue.clone(), stop.clone()));
    tasks.spawn(queue::run_heard_writer(services.queue.clone(), stop.clone()));
    tasks.spawn(services.seats.clone().run_sweep(stop.clone()));
    tasks.spawn(services.payments.clone().run_sweep(stop.clone()));
    tasks.spawn(services.wallet.clone().run_purge(stop.clone()));
    tasks.spawn(services.coupons.clone().run(stop.clone()));
    tasks.spawn(prune::run(services.clone(), prune_schedule, stop.clone()));
    tasks.spawn(webhooks.run(retries, stop.clone()));
    tasks.spawn(jobs::run(services.clone(), stop.clone()));
    tasks.spawn(definitions.run(stop.clone()));
    tasks.spawn(recovery::run_verifier(
        services.redis.clone(),
        services.mysql.clone(),
        writer.handle(),
        stop.clone(),
    ));
    let reconciler = recovery::StoreReconciler::new(
        services.redis.clone(),
        services.mysql.clone(),
        writer.handle(),
    );
    tasks.spawn(recovery::run_reconciler(reconciler, stop.clone()));
    tasks.spawn(services.redis.clone().watch_replicas(stop.clone()));
    tasks.spawn(limits.run_cleanup(stop.clone()));
    if let Some(jwt) = jwt {
        tasks.spawn(jwt.reload(stop.clone()));
    }
    if let Some(certificates) = certificates {
        tasks.spawn(certificates.reload(stop.clone()));
    }
    tasks.spawn(telemetry::run_upkeep(telemetry::install(), stop.clone()));
    tasks.spawn(telemetry::watch_runtime(stop.clone()));
    tasks.spawn(clocks::watch(services.redis.clone(), services.mysql.clone(), stop.clone()));
    tasks.spawn(pressure::watch(services.redis.clone(), watermarks, stop.clone()));
    tasks.spawn(writer.handle().run_durability_watcher(services.mysql.clone(), stop.clone()));
    tasks.close();
    BackgroundTasks {
        tasks,
        stop_tasks: stop,
        writer: tokio::spawn(writer.run(stop_writer.clone())),
        stop_writer,
    }
}

impl BackgroundTasks {
    /// Ends the tasks after their current step, then the writer after a last flush of the outbox.
    pub(super) async fn stop(self) {
        self.stop_tasks.cancel();
        self.tasks.wait().await;
        self.stop_writer.cancel();
        if let Err(error) = self.writer.await {
            tracing::error!(%error, "the outbox writer ended unexpectedly");
        }
    }
}
