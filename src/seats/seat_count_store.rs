//! How many seats of a schedule are available, without reading the seats.
//!
//! Redis has one mark per held or sold seat in `s:seats`, so the size of that hash is the count: it
//! cannot disagree with the seats, and a restore and an audit need nothing more. A mark outlasts a
//! hold that lapses. The count leaves out those that the sweep has not recorded yet, and the sweep
//! deletes the marks of those that it records. What remains after a failure is deleted by
//! [`SeatService::purge_lapsed_marks`].

use std::collections::BTreeMap;

use super::store::seat_number;
use super::{Error, SeatService, sql};
use crate::catalogue::ScheduledConcert;
use crate::ids::{QueueId, ScheduleId};
use crate::redis::{
    self, BatchScript, KeyBuilder, KeyScope, LuaScript, ReplyReader, ScriptArgs, scripts,
};

/// Seats in one call of `seats/free_lapsed`.
const SEATS_PER_CALL: usize = 500;

impl SeatService {
    /// The number of seats that are neither held nor sold.
    pub(super) async fn available_seats(&self, scheduled: &ScheduledConcert) -> Result<u32, Error> {
        let schedule = scheduled.schedule();
        let unavailable = if scheduled.concert.archived {
            sql::count_sold(&self.mysql, &schedule.id).await?
        } else {
            let scope = SeatCountScope {
                queue: scheduled.concert.queue.clone(),
                schedule: schedule.id.clone(),
            };
            self.counts.submit(scope, ()).await?
        };
        Ok(schedule.seats().saturating_sub(u32::try_from(unavailable).unwrap_or(u32::MAX)))
    }

    /// Deletes the marks of recorded holds.
    pub(super) async fn free_lapsed(
        &self,
        queue: &QueueId,
        lapsed: &BTreeMap<ScheduleId, Vec<u32>>,
    ) {
        for (schedule, numbers) in lapsed {
            let scope = KeyScope::schedule(self.redis.keys(), queue, schedule);
            for some in numbers.chunks(SEATS_PER_CALL) {
                let mut args = ScriptArgs::new();
                for number in some {
                    args.int((*number).into());
                }
                if let Err(error) = self.redis.call(&scripts::SEATS_FREE_LAPSED, scope, args).await
                {
                    tracing::debug!(%queue, %schedule, %error, "lapsed marks are purged later");
                }
            }
        }
    }
}

/// Reads `schedule, how many seats, seat…` of each recorded hold.
pub(super) fn read_lapsed(
    mut words: ReplyReader,
) -> Result<BTreeMap<ScheduleId, Vec<u32>>, redis::Error> {
    let mut lapsed: BTreeMap<ScheduleId, Vec<u32>> = BTreeMap::new();
    while !words.is_empty() {
        let schedule = words.text()?;
        let schedule = schedule
            .parse()
            .map_err(|_| redis::Error::Protocol(format!("{schedule:?} is not a schedule")))?;
        let numbers = lapsed.entry(schedule).or_default();
        for _ in 0..words.count()? {
            numbers.push(seat_number(words.word()?)?);
        }
    }
    Ok(lapsed)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SeatCountScope {
    queue: QueueId,
    schedule: ScheduleId,
}

/// `seats/count`: how many seats are held or sold. One read answers all requests that wait for it.
pub(super) struct SeatCountBatch;

impl BatchScript for SeatCountBatch {
    type Entity = SeatCountScope;
    type Request = ();
    type Answer = u64;

    fn script(&self) -> &'static LuaScript {
        &scripts::SEATS_COUNT
    }

    fn scope<'a>(&self, keys: &KeyBuilder, entity: &'a SeatCountScope) -> KeyScope<'a> {
        KeyScope::schedule(keys, &entity.queue, &entity.schedule)
    }

    fn write_args(
        &self,
        entity: &SeatCountScope,
        _: &[()],
        args: &mut ScriptArgs,
    ) -> Result<(), redis::Error> {
        args.text(entity.schedule.as_str());
        Ok(())
    }

    fn read_answers(
        &self,
        _: &SeatCountScope,
        requests: &[()],
        mut reply: ReplyReader,
    ) -> Result<Vec<u64>, redis::Error> {
        let count = reply.count()?;
        Ok(vec![count; requests.len()])
    }
}
