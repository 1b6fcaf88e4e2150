//! The sweep: finishes overdue payments and cancellations.

use std::time::Duration;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::record::PaymentState;
use super::{PaymentService, cancel, flow, sql, store};
use crate::ids::QueueId;
use crate::redis;
use crate::telemetry::Metric;

const SWEEP_INTERVAL: Duration = Duration::from_millis(500);
/// Payments per queue in one sweep.
const SWEEP_PAGE_SIZE: u32 = 256;
/// Other instances don't get a payment for this time after one has taken it.
const LEASE_MS: i64 = 5_000;
const MAX_CONCURRENT_PAYMENTS: usize = 16;
/// How often the metrics of refunds that are due are updated.
const REFUNDS_DUE_INTERVAL: Duration = Duration::from_secs(15);

/// Runs until `stop` is cancelled.
pub(super) async fn run(payments: &PaymentService, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    let mut refund_ticks = tokio::time::interval(REFUNDS_DUE_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = refund_ticks.tick() => {
                report_refunds_due(payments).await;
                continue;
            }
            _ = ticks.tick() => {}
        }
        let mut oldest_ms = 0;
        for queue in payments.queue.recently_busy() {
            match sweep(payments, &queue).await {
                Ok(oldest) => oldest_ms = oldest.max(oldest_ms),
                Err(redis::Error::Recovering(_)) => {}
                Err(error) => tracing::warn!(%queue, %error, "sweeping payments failed"),
            }
        }
        let age = Duration::from_millis(oldest_ms);
        Metric::PaymentsPendingOldestSeconds.gauge(&[]).set(age.as_secs_f64());
    }
}

async fn report_refunds_due(payments: &PaymentService) {
    match sql::refunds_due(&payments.mysql).await {
        Ok((count, oldest_seconds)) => {
            Metric::RefundsDue.gauge(&[]).set(count as f64);
            Metric::RefundsDueOldestSeconds.gauge(&[]).set(oldest_seconds as f64);
        }
        Err(error) => tracing::warn!(%error, "counting the refunds due failed"),
    }
}

/// Returns the age of the oldest payment in progress, in milliseconds.
async fn sweep(payments: &PaymentService, queue: &QueueId) -> Result<u64, redis::Error> {
    let (oldest_ms, overdue) =
        store::overdue(&payments.redis, queue, SWEEP_PAGE_SIZE, LEASE_MS).await?;
    let finished = futures::stream::iter(overdue).map(async |payment| {
        let id = payment.id;
        let outcome = match payment.state {
            PaymentState::Refunding => cancel::finish_overdue(payments, &payment).await,
            _ => flow::finish_overdue(payments, &payment).await,
        };
        match outcome {
            Ok(payment) => {
                tracing::info!(payment = %id, state = ?payment.state, "finished an overdue payment");
                super::count_payment(&payment);
            }
            Err(error) => {
                tracing::warn!(payment = %id, %error, "finishing an overdue payment failed");
            }
        }
    });
    finished.buffer_unordered(MAX_CONCURRENT_PAYMENTS).collect::<()>().await;
    Ok(oldest_ms)
}
