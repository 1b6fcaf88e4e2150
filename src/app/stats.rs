//! The totals over all instances, from Redis and MySQL.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::domain_services::DomainServices;
use crate::http::{JsonBody, ProblemDetails};
use crate::mysql::{self, checkpoint};

pub(super) fn router() -> OpenApiRouter<DomainServices> {
    OpenApiRouter::new().routes(routes!(show))
}

/// Totals over all instances. Those from MySQL are behind by what the outbox still holds.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = Stats)]
struct StatsDto {
    /// The number of sold seats, without cancelled ones, as MySQL has them.
    seats_sold: u64,
    /// The number of reservations that are held.
    holds: u64,
    /// The number of confirmed payments, without refunded ones, as MySQL has them.
    payments_confirmed: u64,
    /// The number of payments and cancellations in progress.
    payments_pending: u64,
    /// The number of issued coupons.
    coupons_issued: u64,
    /// The number of granted claims, as MySQL has them.
    rewards_claimed: u64,
    /// The number of waiting users in all queues.
    waiting: u64,
    /// The number of active users in all queues.
    active: u64,
    /// The number of outbox entries that MySQL does not have yet.
    outbox_backlog: u64,
}

/// Requests that wait for each other share one computation.
#[derive(Default)]
pub(super) struct SharedStats(Mutex<Option<(Instant, StatsDto)>>);

/// Get totals over all instances
#[utoipa::path(
    get,
    path = "/admin/stats",
    operation_id = "getStats",
    tag = "admin",
    responses((status = 200, body = StatsDto)),
    security(("admin" = []))
)]
async fn show(
    State(services): State<DomainServices>,
    Extension(shared): Extension<Arc<SharedStats>>,
) -> Result<JsonBody<StatsDto>, ProblemDetails> {
    let asked_at = Instant::now();
    let mut last = shared.0.lock().await;
    if let Some((_, stats)) = last.filter(|(started_at, _)| *started_at >= asked_at) {
        return Ok(JsonBody(stats));
    }
    let started_at = Instant::now();
    let stats = compute(&services).await?;
    *last = Some((started_at, stats));
    Ok(JsonBody(stats))
}

async fn compute(services: &DomainServices) -> Result<StatsDto, ProblemDetails> {
    let count = async |sql: &'static str| {
        let count: Result<u64, sqlx::Error> =
            sqlx::query_scalar(sql).fetch_one(&services.mysql).await;
        count.map_err(mysql::Error::from)
    };
    let (queues, coupons_issued, rewards_claimed, outbox_backlog) = tokio::join!(
        services.queue.totals(),
        services.coupons.issued_total(),
        services.rewards.granted_total(),
        backlog(services),
    );
    let queues = queues?;
    Ok(StatsDto {
        seats_sold: count("SELECT CAST(COUNT(*) AS UNSIGNED) FROM reservation_seats").await?,
        holds: queues.holds,
        payments_confirmed: count(
            "SELECT CAST(COUNT(*) AS UNSIGNED) FROM payments WHERE status = 'confirmed'",
        )
        .await?,
        payments_pending: queues.pending,
        coupons_issued: coupons_issued?,
        rewards_claimed: rewards_claimed?,
        waiting: queues.waiting,
        active: queues.active,
        outbox_backlog: outbox_backlog?,
    })
}

async fn backlog(services: &DomainServices) -> Result<u64, ProblemDetails> {
    let partitions: Vec<_> = services.redis.keys().partitions().all().collect();
    // The checkpoints first: an entry that is written in between would count as negative.
    let checkpoints =
        checkpoint::load_all(&services.mysql, services.redis.keys().partitions()).await?;
    let marks = services.redis.fence_marks(&partitions).await?;
    let behind = partitions.iter().zip(&marks).map(|(partition, marks)| {
        let written = checkpoints.iter().find(|checkpoint| checkpoint.partition == *partition);
        marks.seq.saturating_sub(written.map_or(0, |checkpoint| checkpoint.n))
    });
    Ok(behind.sum())
}
