//! What leaves Redis: reservations that have ended, once MySQL has them and nobody can ask for their first answer again, and the marks of lapsed
//! holds. The marks of sold seats stay: holds contend with them. Whoever reads a reservation that is gone here finds it in MySQL.

use std::time::Duration;

use super::{SeatService, store};
use crate::catalogue::ScheduledConcert;
use crate::partition::Partition;
use crate::redis;

impl SeatService {
    /// Drops a partition's reservations that have ended, that MySQL has by its checkpoint, and that ended `keep` ago. Gives how many, and Redis' clock.
    pub async fn retire(
        &self,
        partition: Partition,
        checkpoint: u64,
        keep: Duration,
    ) -> Result<(u64, i64), redis::Error> {
        let (mut cursor, mut dropped) = ("0".to_owned(), 0);
        loop {
            let part = store::retire(&self.redis, partition, &cursor, checkpoint, keep).await?;
            dropped += part.dropped;
            let Some(next) = part.next else { return Ok((dropped, part.now)) };
            cursor = next;
        }
    }

    /// Drops the marks of lapsed holds of all concerts that are on. Gives how many.
    pub async fn clear(&self) -> Result<u64, redis::Error> {
        let mut dropped = 0;
        for date in self
            .catalogue
            .concerts()
            .iter()
            .filter(|concert| !concert.archived)
            .flat_map(ScheduledConcert::all_of)
        {
            let mut cursor = "0".to_owned();
            loop {
                let (queue, schedule) = (&date.concert.queue, &date.schedule().id);
                let part = store::clear(&self.redis, queue, schedule, &cursor).await?;
                dropped += part.dropped;
                let Some(next) = part.next else { break };
                cursor = next;
            }
        }
        Ok(dropped)
    }
}
