//! Removes data from Redis that is no longer needed there.
//!
//! - Reservations that have ended, when MySQL has them and no client can repeat the request. They
//!   are read from MySQL from then on.
//! - The entries of expired holds in `s:seats`. The entries of sold seats stay, because holds
//!   compete with them.

use std::time::Duration;

use super::{SeatService, store};
use crate::catalogue::ScheduledConcert;
use crate::partition::Partition;
use crate::redis;

impl SeatService {
    /// Removes the reservations of a partition that ended at least `keep` ago and that MySQL has
    /// according to its checkpoint. Returns their number, and Redis' clock in milliseconds since
    /// 1970.
    pub async fn prune_ended(
        &self,
        partition: Partition,
        checkpoint: u64,
        keep: Duration,
    ) -> Result<(u64, i64), redis::Error> {
        let (mut cursor, mut pruned) = ("0".to_owned(), 0);
        loop {
            let page = store::prune(&self.redis, partition, &cursor, checkpoint, keep).await?;
            pruned += page.dropped;
            let Some(next) = page.next else { return Ok((pruned, page.now)) };
            cursor = next;
        }
    }

    /// Removes the entries of expired holds of all concerts that are not archived. Returns their
    /// number.
    pub async fn purge_lapsed_marks(&self) -> Result<u64, redis::Error> {
        let mut dropped = 0;
        for scheduled in self
            .catalogue
            .concerts()
            .iter()
            .filter(|concert| !concert.archived)
            .flat_map(ScheduledConcert::all)
        {
            let mut cursor = "0".to_owned();
            loop {
                let (queue, schedule) = (&scheduled.concert.queue, &scheduled.schedule().id);
                let page = store::purge_lapsed_marks(&self.redis, queue, schedule, &cursor).await?;
                dropped += page.dropped;
                let Some(next) = page.next else { break };
                cursor = next;
            }
        }
        Ok(dropped)
    }
}
