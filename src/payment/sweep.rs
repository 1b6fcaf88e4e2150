//! The sweep: drives payments that are past their due time to an end.

use std::time::Duration;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::record::PaymentState;
use super::{PaymentService, cancel, flow, store};
use crate::ids::QueueId;
use crate::redis;
use crate::telemetry::Metric;

/// How often every queue is looked at.
const EVERY: Duration = Duration::from_millis(500);
/// Payments taken in one look.
const TAKEN: u32 = 256;
/// For so long nobody else is given a payment that one sweep has taken.
const LEASE_MS: i64 = 5_000;
/// Payments driven side by side.
const PARALLEL: usize = 16;

/// Runs until `stop`.
pub(super) async fn run(payments: &PaymentService, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let mut oldest_ms = 0;
        for queue in payments.queue.ids() {
            match sweep(payments, &queue).await {
                Ok(oldest) => oldest_ms = oldest.max(oldest_ms),
                Err(redis::Error::Recovering(_)) => {}
                Err(error) => tracing::warn!(%queue, %error, "sweeping payments"),
            }
        }
        let age = Duration::from_millis(oldest_ms);
        Metric::PaymentsPendingOldestSeconds.gauge(&[]).set(age.as_secs_f64());
    }
}

/// Gives for how many milliseconds the oldest payment of the queue has been without an end.
async fn sweep(payments: &PaymentService, queue: &QueueId) -> Result<u64, redis::Error> {
    let (oldest_ms, overdue) = store::overdue(&payments.redis, queue, TAKEN, LEASE_MS).await?;
    let driven = futures::stream::iter(overdue).map(async |payment| {
        let outcome = match payment.state {
            PaymentState::Refunding => cancel::resume(payments, &payment).await,
            _ => flow::finish(payments, &payment).await,
        };
        match outcome {
            Ok(payment) => {
                tracing::info!(payment = %payment.id, state = ?payment.state, "an overdue payment was driven to its end");
                super::count(&payment);
            }
            Err(error) => tracing::warn!(payment = %payment.id, %error, "an overdue payment waits for the next sweep"),
        }
    });
    driven.buffer_unordered(PARALLEL).collect::<()>().await;
    Ok(oldest_ms)
}
