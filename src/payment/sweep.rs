//! The sweep: drives payments that are past their due time to an end.

use std::time::Duration;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{Payments, flow, store};
use crate::ids::QueueId;
use crate::redis;

/// How often every queue is looked at.
const EVERY: Duration = Duration::from_millis(500);
/// Payments taken in one look.
const TAKEN: u32 = 256;
/// For so long nobody else is given a payment that one sweep has taken.
const LEASE_MS: i64 = 5_000;
/// Payments driven side by side.
const PARALLEL: usize = 16;

/// Runs until `stop`.
pub(super) async fn run(payments: &Payments, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        for queue in payments.queue.ids() {
            match sweep(payments, &queue).await {
                Ok(()) | Err(redis::Error::Recovering(_)) => {}
                Err(error) => tracing::warn!(%queue, %error, "sweeping payments"),
            }
        }
    }
}

async fn sweep(payments: &Payments, queue: &QueueId) -> Result<(), redis::Error> {
    let overdue = store::overdue(&payments.redis, queue, TAKEN, LEASE_MS).await?;
    let driven = futures::stream::iter(overdue).map(async |payment| {
        match flow::finish(payments, &payment).await {
            Ok(payment) => {
                tracing::info!(payment = %payment.id, state = ?payment.state, "an overdue payment was driven to its end");
                super::count(&payment);
            }
            Err(error) => tracing::warn!(payment = %payment.id, %error, "an overdue payment waits for the next sweep"),
        }
    });
    driven.buffer_unordered(PARALLEL).collect::<()>().await;
    Ok(())
}
