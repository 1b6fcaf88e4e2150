//! Compares `USHER_REDIS_WAIT_REPLICAS` with the replicas that may be promoted.
//!
//! `WAIT` does not say which replicas have a write. A failover loses no answered write only if the
//! writes waited for every replica that may be promoted.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::RedisClient;
use crate::telemetry::Metric;

const CHECK_INTERVAL: Duration = Duration::from_secs(5);

impl RedisClient {
    /// Checks at the start and periodically, until `stop`. Warns whenever the number changes.
    pub async fn watch_replicas(self, stop: CancellationToken) {
        let gauge = Metric::RedisUnawaitedReplicas.gauge(&[]);
        gauge.set(0.0);
        let mut warned = 0;
        let mut ticks = tokio::time::interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let electable = match self.topology().electable_replicas().await {
                Ok(electable) => electable,
                Err(error) => {
                    tracing::debug!(%error, "could not count the replicas of Redis");
                    continue;
                }
            };
            let awaited = self.replication().replicas;
            let unawaited = electable.saturating_sub(awaited);
            gauge.set(f64::from(unawaited));
            if awaited > 0 && unawaited > 0 && warned != unawaited {
                tracing::warn!(
                    electable,
                    awaited,
                    "a failover may lose answered writes: more replicas can be promoted than \
                     USHER_REDIS_WAIT_REPLICAS waits for. Raise it, or make the other replicas \
                     ineligible (replica-priority 0; in a cluster cluster-replica-no-failover yes)"
                );
            }
            warned = unawaited;
        }
    }
}
