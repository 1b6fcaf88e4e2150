//! The scripts of the seats, one batch or function each.

use std::time::Duration;

use serde::Serialize;

use super::reservation::Reservation;
use crate::catalogue::ScheduledConcert;
use crate::ids::{ConcertId, QueueId, ReservationId, ScheduleId, UserId};
use crate::money::Money;
use crate::partition::Partition;
use crate::redis::codes::{SeatCode, SeatsHoldCode, SeatsReleaseCode};
use crate::redis::{
    BatchOperation, BatchScript, EndedPage, Error, KeyBuilder, KeyScope, LuaScript, RedisClient,
    ReplyReader, ScriptArgs, ScriptReply, millis, scripts,
};

/// Numbers that one call of the map looks at.
const CHUNK: u32 = 1_000;

/// What all holds of a batch have in common: one schedule, on the terms of one version of its concert.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct HoldTerms {
    queue: QueueId,
    concert: ConcertId,
    schedule: ScheduleId,
    laid: String,
    opens_at: Option<i64>,
    closes_at: Option<i64>,
    hold_ms: i64,
    max_seats: u32,
}

impl HoldTerms {
    pub(super) fn of(date: &ScheduledConcert) -> Self {
        let (concert, schedule) = (&date.concert, date.schedule());
        Self {
            queue: concert.queue.clone(),
            concert: concert.id.clone(),
            schedule: schedule.id.clone(),
            laid: concert.laid(),
            opens_at: schedule.booking_opens_at.map(|time| time.timestamp_millis()),
            closes_at: schedule.booking_closes_at.map(|time| time.timestamp_millis()),
            hold_ms: i64::from(concert.hold_seconds) * 1_000,
            max_seats: concert.max_seats_per_user,
        }
    }

    /// What `lib/hold` reads.
    pub(super) fn write_args(&self, args: &mut ScriptArgs) {
        args.text(self.queue.as_str()).text(self.concert.as_str()).text(self.schedule.as_str());
        args.text(&self.laid).maybe_int(self.opens_at).maybe_int(self.closes_at);
        args.int(self.hold_ms).int(self.max_seats.into());
    }

    pub(super) fn scope(&self, keys: &KeyBuilder) -> KeyScope<'_> {
        KeyScope::schedule(keys, &self.queue, &self.schedule)
    }
}

/// One hold.
#[derive(Clone)]
pub(super) struct Hold {
    pub(super) id: ReservationId,
    pub(super) user: UserId,
    pub(super) score: u64,
    pub(super) amount: Money,
    pub(super) detail: String,
    pub(super) numbers: Vec<u32>,
}

/// What a hold's record has for itself, as `lib/hold` joins it.
#[derive(Serialize)]
struct HoldFields<'a> {
    seats: &'a [u32],
    detail: &'a str,
    amount: Money,
    score: &'a str,
}

/// What came of a hold.
#[derive(Debug)]
pub(super) enum HoldOutcome {
    Done { now: i64, held_until: i64 },
    Taken(Vec<u32>),
    LimitExceeded,
    NotOpen,
    Waiting,
    SlotGone,
}

/// `seats/hold`.
pub(super) struct HoldBatch;

impl BatchScript for HoldBatch {
    type Entity = HoldTerms;
    type Request = Hold;
    type Answer = HoldOutcome;

    fn script(&self) -> &'static LuaScript {
        &scripts::SEATS_HOLD
    }

    fn scope<'a>(&self, keys: &KeyBuilder, entity: &'a HoldTerms) -> KeyScope<'a> {
        entity.scope(keys)
    }

    fn write_args(
        &self,
        entity: &HoldTerms,
        requests: &[Hold],
        args: &mut ScriptArgs,
    ) -> Result<(), Error> {
        entity.write_args(args);
        for hold in requests {
            let score = hold.score.to_string();
            let own = HoldFields {
                seats: &hold.numbers,
                detail: &hold.detail,
                amount: hold.amount,
                score: &score,
            };
            args.bytes(hold.id.as_bytes()).bytes(hold.user.as_bytes()).text(&score).map(&own)?;
            args.int(i64::try_from(hold.numbers.len()).unwrap_or(i64::MAX));
            for number in &hold.numbers {
                args.int((*number).into());
            }
        }
        Ok(())
    }

    fn read_answers(
        &self,
        _: &HoldTerms,
        _: &[Hold],
        mut reply: ReplyReader,
    ) -> Result<Vec<HoldOutcome>, Error> {
        let now = reply.int()?;
        reply.rest().map(|word| hold_outcome(now, word)).collect()
    }
}

fn hold_outcome(now: i64, reply: ScriptReply) -> Result<HoldOutcome, Error> {
    let mut words = reply.words()?;
    Ok(match words.code()? {
        SeatsHoldCode::Held => HoldOutcome::Done { now, held_until: words.int()? },
        SeatsHoldCode::Taken => {
            HoldOutcome::Taken(words.rest().map(seat_number).collect::<Result<_, _>>()?)
        }
        SeatsHoldCode::LimitExceeded => HoldOutcome::LimitExceeded,
        SeatsHoldCode::NotOpen => HoldOutcome::NotOpen,
        SeatsHoldCode::Waiting => HoldOutcome::Waiting,
        SeatsHoldCode::Expired => HoldOutcome::SlotGone,
    })
}

pub(super) fn seat_number(word: ScriptReply) -> Result<u32, Error> {
    u32::try_from(word.int()?).map_err(|_| Error::Protocol("not a seat's number".into()))
}

/// What came of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReleaseOutcome {
    Done,
    NotReleasable,
    NotFound,
}

/// `seats/release`.
pub(super) async fn release(
    redis: &RedisClient,
    reservation: &Reservation,
    user: UserId,
) -> Result<ReleaseOutcome, Error> {
    let mut args = ScriptArgs::new();
    args.bytes(reservation.id.as_bytes()).bytes(user.as_bytes());
    let place = KeyScope::schedule(redis.keys(), &reservation.queue, &reservation.schedule);
    let mut words = redis.call(&scripts::SEATS_RELEASE, place, args).await?.words()?;
    Ok(match words.code()? {
        SeatsReleaseCode::Released => ReleaseOutcome::Done,
        SeatsReleaseCode::NotReleasable => ReleaseOutcome::NotReleasable,
        SeatsReleaseCode::NotFound => ReleaseOutcome::NotFound,
    })
}

/// `seats/expire`. Gives how many lapsed holds were written down.
pub(super) async fn expire(
    redis: &RedisClient,
    queue: &QueueId,
    most: u32,
) -> Result<SweepOutcome, Error> {
    let mut args = ScriptArgs::new();
    args.int(most.into());
    let place = KeyScope::queue(redis.keys(), queue);
    let mut words = redis.call(&scripts::SEATS_EXPIRE, place, args).await?.words()?;
    let expired = words.count()?;
    // Capacity and sold seats are counted in steps; what a fault has left below zero is shown as nothing.
    let mut seats = || words.int().map(|seats| u64::try_from(seats).unwrap_or_default());
    Ok(SweepOutcome { expired, for_sale: seats()?, sold: seats()?, held: seats()? })
}

/// What one sweep of a queue's holds came to.
pub(super) struct SweepOutcome {
    /// Holds that lapsed.
    pub(super) expired: u64,
    /// Seats of all the queue's concerts.
    pub(super) for_sale: u64,
    /// Those of them that are sold.
    pub(super) sold: u64,
    /// Reservations that are held or being paid.
    pub(super) held: u64,
}

/// `seats/prune`. Goes on from a cursor ("0" begins).
pub(super) async fn retire(
    redis: &RedisClient,
    partition: Partition,
    cursor: &str,
    checkpoint: u64,
    keep: Duration,
) -> Result<EndedPage, Error> {
    let mut args = ScriptArgs::new();
    args.text(cursor).text(&checkpoint.to_string()).int(millis(keep));
    EndedPage::read(redis.call(&scripts::SEATS_PRUNE, KeyScope::partition(partition), args).await?)
}

/// `seats/purge_lapsed_marks`. Goes on from a cursor ("0" begins).
pub(super) async fn clear(
    redis: &RedisClient,
    queue: &QueueId,
    schedule: &ScheduleId,
    cursor: &str,
) -> Result<EndedPage, Error> {
    let mut args = ScriptArgs::new();
    args.text(cursor);
    let place = KeyScope::schedule(redis.keys(), queue, schedule);
    EndedPage::read(redis.call(&scripts::SEATS_PURGE_LAPSED_MARKS, place, args).await?)
}

/// `seats/read`. Answers Redis' clock and the reservation, if Redis has it.
pub(super) struct ReservationReadBatch;

impl BatchScript for ReservationReadBatch {
    type Entity = Partition;
    type Request = ReservationId;
    type Answer = (i64, Option<Reservation>);

    fn script(&self) -> &'static LuaScript {
        &scripts::SEATS_READ
    }

    fn scope<'a>(&self, _: &KeyBuilder, entity: &'a Partition) -> KeyScope<'a> {
        KeyScope::partition(*entity)
    }

    fn write_args(
        &self,
        _: &Partition,
        requests: &[ReservationId],
        args: &mut ScriptArgs,
    ) -> Result<(), Error> {
        args.each(requests.iter().map(|id| id.as_bytes()));
        Ok(())
    }

    fn read_answers(
        &self,
        _: &Partition,
        _: &[ReservationId],
        mut reply: ReplyReader,
    ) -> Result<Vec<(i64, Option<Reservation>)>, Error> {
        let now = reply.int()?;
        reply.rest().map(|word| Ok((now, word.record()?))).collect()
    }
}

/// `seats/list_open`. Answers Redis' clock and a user's reservations that have not come to an end, or whose lapse is not written down yet.
pub(super) struct OpenReservationsBatch;

impl BatchScript for OpenReservationsBatch {
    type Entity = QueueId;
    type Request = UserId;
    type Answer = (i64, Vec<Reservation>);

    fn script(&self) -> &'static LuaScript {
        &scripts::SEATS_LIST_OPEN
    }

    fn scope<'a>(&self, keys: &KeyBuilder, entity: &'a QueueId) -> KeyScope<'a> {
        KeyScope::queue(keys, entity)
    }

    fn write_args(
        &self,
        _: &QueueId,
        requests: &[UserId],
        args: &mut ScriptArgs,
    ) -> Result<(), Error> {
        args.each(requests.iter().map(|user| user.as_bytes()));
        Ok(())
    }

    fn read_answers(
        &self,
        _: &QueueId,
        _: &[UserId],
        mut reply: ReplyReader,
    ) -> Result<Vec<(i64, Vec<Reservation>)>, Error> {
        let now = reply.int()?;
        let open = |word: ScriptReply| {
            let records =
                word.words()?.rest().map(ScriptReply::record).collect::<Result<Vec<_>, _>>()?;
            Ok((now, records.into_iter().flatten().collect()))
        };
        reply.rest().map(open).collect()
    }
}

/// A seat that is not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnavailableSeat {
    pub(super) number: u32,
    pub(super) sold: bool,
}

/// The whole of a schedule's seats: which queue, which schedule, how many.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SeatMapScope {
    pub(super) queue: QueueId,
    pub(super) schedule: ScheduleId,
    pub(super) seats: u32,
}

/// `seats/map`. One reading answers everybody who asks meanwhile.
pub(super) struct SeatMapBatch(pub(super) RedisClient);

impl BatchOperation for SeatMapBatch {
    type Entity = SeatMapScope;
    type Request = ();
    type Answer = std::sync::Arc<Vec<UnavailableSeat>>;

    fn script(&self) -> &'static LuaScript {
        &scripts::SEATS_MAP
    }

    async fn call(&self, hall: &SeatMapScope, asked: &[()]) -> Result<Vec<Self::Answer>, Error> {
        let place = KeyScope::schedule(self.0.keys(), &hall.queue, &hall.schedule);
        let mut taken = Vec::new();
        let mut first = 1;
        while first <= hall.seats {
            let last = hall.seats.min(first + CHUNK - 1);
            let mut args = ScriptArgs::new();
            args.int(first.into()).int(last.into());
            let mut words = self.0.call(self.script(), place, args).await?.words()?.rest();
            while let (Some(number), Some(state)) = (words.next(), words.next()) {
                taken.push(UnavailableSeat {
                    number: seat_number(number)?,
                    sold: state.code::<SeatCode>()? == SeatCode::SoldSeat,
                });
            }
            first = last + 1;
        }
        Ok(vec![taken.into(); asked.len()])
    }
}
