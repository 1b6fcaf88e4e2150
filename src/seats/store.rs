//! Calls of the scripts in `lua/seats/`, one function or batch for each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::reservation::Reservation;
use super::seat_count_store;
use super::seat_statuses::SeatStatuses;
use crate::catalogue::ScheduledConcert;
use crate::ids::{ConcertId, QueueId, ReservationId, ScheduleId, UserId};
use crate::money::Money;
use crate::partition::Partition;
use crate::redis::codes::{SeatsHoldCode, SeatsReleaseCode};
use crate::redis::{
    BatchOperation, BatchScript, Error, KeyBuilder, KeyScope, LuaScript, PurgePage, RedisClient,
    ReplyReader, ScriptArgs, ScriptReply, millis, scripts,
};

/// Keeps a call of `seats/map` short.
const SEATS_PER_CALL: u32 = 1_000;

/// What all holds of a batch share: one schedule, in one version of its concert.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct HoldTerms {
    queue: QueueId,
    concert: ConcertId,
    schedule: ScheduleId,
    published_version: String,
    opens_at: Option<i64>,
    closes_at: i64,
    hold_ms: i64,
    max_seats: u32,
    title: String,
    starts_at: i64,
}

impl HoldTerms {
    pub(super) fn of(scheduled: &ScheduledConcert) -> Self {
        let (concert, schedule) = (&scheduled.concert, scheduled.schedule());
        Self {
            queue: concert.queue.clone(),
            concert: concert.id.clone(),
            schedule: schedule.id.clone(),
            published_version: concert.published_version(),
            opens_at: schedule.booking_opens_at.map(|time| time.timestamp_millis()),
            closes_at: schedule.closes_at().timestamp_millis(),
            hold_ms: i64::from(concert.hold_seconds) * 1_000,
            max_seats: concert.max_seats_per_user,
            title: concert.title.clone(),
            starts_at: schedule.starts_at.timestamp_millis(),
        }
    }

    /// The arguments that `lua/lib/hold.lua` reads.
    pub(super) fn write_args(&self, args: &mut ScriptArgs) {
        args.text(self.queue.as_str()).text(self.concert.as_str()).text(self.schedule.as_str());
        args.text(&self.published_version).optional_int(self.opens_at).int(self.closes_at);
        args.int(self.hold_ms).int(self.max_seats.into());
        args.text(&self.title).int(self.starts_at);
    }

    pub(super) fn scope(&self, keys: &KeyBuilder) -> KeyScope<'_> {
        KeyScope::schedule(keys, &self.queue, &self.schedule)
    }
}

#[derive(Clone)]
pub(super) struct Hold {
    pub(super) id: ReservationId,
    pub(super) user: UserId,
    pub(super) score: u64,
    pub(super) amount: Money,
    pub(super) detail: String,
    pub(super) numbers: Vec<u32>,
    /// Whether the request has an idempotency key, so that the hold may exist already.
    pub(super) keyed: bool,
}

/// The fields of a reservation that differ within a batch. `lua/lib/hold.lua` adds the shared ones.
#[derive(Serialize)]
struct HoldFields<'a> {
    seats: &'a [u32],
    detail: &'a str,
    amount: Money,
    score: &'a str,
}

#[derive(Debug)]
pub(super) enum HoldOutcome {
    /// Times in milliseconds since 1970.
    Held {
        now: i64,
        held_until: i64,
    },
    /// `yours` are those of `seats` that the user holds already.
    SeatsTaken {
        seats: Vec<u32>,
        yours: Vec<u32>,
    },
    LimitExceeded,
    NotOpen,
    /// The visit's own time is over.
    VisitOver,
    Waiting,
    SlotExpired,
    /// An earlier request with the same idempotency key made the hold.
    Repeated,
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
            let fields = HoldFields {
                seats: &hold.numbers,
                detail: &hold.detail,
                amount: hold.amount,
                score: &score,
            };
            args.bytes(hold.id.as_bytes()).bytes(hold.user.as_bytes()).text(&score).map(&fields)?;
            args.int(hold.keyed.into());
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
        SeatsHoldCode::Held => HoldOutcome::Held { now, held_until: words.int()? },
        SeatsHoldCode::Taken => HoldOutcome::SeatsTaken {
            seats: seat_numbers(words.word()?)?,
            yours: seat_numbers(words.word()?)?,
        },
        SeatsHoldCode::LimitExceeded => HoldOutcome::LimitExceeded,
        SeatsHoldCode::NotOpen => HoldOutcome::NotOpen,
        SeatsHoldCode::VisitOver => HoldOutcome::VisitOver,
        SeatsHoldCode::Waiting => HoldOutcome::Waiting,
        SeatsHoldCode::Expired => HoldOutcome::SlotExpired,
        SeatsHoldCode::Repeated => HoldOutcome::Repeated,
    })
}

fn seat_numbers(list: ScriptReply) -> Result<Vec<u32>, Error> {
    list.words()?.rest().map(seat_number).collect()
}

pub(super) fn seat_number(word: ScriptReply) -> Result<u32, Error> {
    u32::try_from(word.int()?).map_err(|_| Error::Protocol("invalid seat number".into()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReleaseOutcome {
    Released,
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
    let scope = KeyScope::schedule(redis.keys(), &reservation.queue, &reservation.schedule);
    let mut words = redis.call(&scripts::SEATS_RELEASE, scope, args).await?.words()?;
    Ok(match words.code()? {
        SeatsReleaseCode::Released => ReleaseOutcome::Released,
        SeatsReleaseCode::NotReleasable => ReleaseOutcome::NotReleasable,
        SeatsReleaseCode::NotFound => ReleaseOutcome::NotFound,
    })
}

/// `seats/expire`. Records at most `limit` expired holds.
pub(super) async fn expire(
    redis: &RedisClient,
    queue: &QueueId,
    limit: u32,
) -> Result<SweepOutcome, Error> {
    let mut args = ScriptArgs::new();
    args.int(limit.into());
    let scope = KeyScope::queue(redis.keys(), queue);
    let mut words = redis.call(&scripts::SEATS_EXPIRE, scope, args).await?.words()?;
    let expired = words.count()?;
    // The counts are updated incrementally. A fault could leave one negative: show it as 0.
    let mut seats = || words.int().map(|seats| u64::try_from(seats).unwrap_or_default());
    let (for_sale, sold, held) = (seats()?, seats()?, seats()?);
    let lapsed = seat_count_store::read_lapsed(words.word()?.words()?)?;
    Ok(SweepOutcome { expired, for_sale, sold, held, lapsed })
}

pub(super) struct SweepOutcome {
    /// Holds that this call recorded.
    pub(super) expired: u64,
    /// Seats of all concerts of the queue.
    pub(super) for_sale: u64,
    pub(super) sold: u64,
    /// Reservations that are held or being paid.
    pub(super) held: u64,
    /// The seats of the recorded holds, by schedule.
    pub(super) lapsed: BTreeMap<ScheduleId, Vec<u32>>,
}

/// `seats/prune`. One page from a cursor. The first cursor is "0".
pub(super) async fn prune(
    redis: &RedisClient,
    partition: Partition,
    cursor: &str,
    checkpoint: u64,
    keep: Duration,
) -> Result<PurgePage, Error> {
    let mut args = ScriptArgs::new();
    args.text(cursor).text(&checkpoint.to_string()).int(millis(keep));
    PurgePage::read(redis.call(&scripts::SEATS_PRUNE, KeyScope::partition(partition), args).await?)
}

/// `seats/purge_lapsed_marks`. One page from a cursor. The first cursor is "0".
pub(super) async fn purge_lapsed_marks(
    redis: &RedisClient,
    queue: &QueueId,
    schedule: &ScheduleId,
    cursor: &str,
) -> Result<PurgePage, Error> {
    let mut args = ScriptArgs::new();
    args.text(cursor);
    let scope = KeyScope::schedule(redis.keys(), queue, schedule);
    PurgePage::read(redis.call(&scripts::SEATS_PURGE_LAPSED_MARKS, scope, args).await?)
}

/// `seats/read`. The answer is Redis' clock and the reservation, if Redis has it.
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

/// `seats/list_open`. The answer is Redis' clock and a user's reservations that are held or being
/// paid, including holds that have expired but are not recorded as such.
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

/// The seats 1 to `seats` of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SeatMapScope {
    pub(super) queue: QueueId,
    pub(super) schedule: ScheduleId,
    pub(super) seats: u32,
}

/// `seats/map`. One read answers all requests that wait for it.
pub(super) struct SeatMapBatch(pub(super) RedisClient);

impl BatchOperation for SeatMapBatch {
    type Entity = SeatMapScope;
    type Request = ();
    type Answer = Arc<SeatStatuses>;

    fn script(&self) -> &'static LuaScript {
        &scripts::SEATS_MAP
    }

    async fn call(&self, map: &SeatMapScope, requests: &[()]) -> Result<Vec<Self::Answer>, Error> {
        let scope = KeyScope::schedule(self.0.keys(), &map.queue, &map.schedule);
        let mut letters = String::with_capacity(map.seats as usize);
        let mut first = 1;
        while first <= map.seats {
            let last = map.seats.min(first + SEATS_PER_CALL - 1);
            let mut args = ScriptArgs::new();
            args.int(first.into()).int(last.into());
            let reply = self.0.call(self.script(), scope, args).await?.bytes()?;
            letters.push_str(&String::from_utf8_lossy(&reply));
            first = last + 1;
        }
        let statuses = SeatStatuses::parse(letters)
            .filter(|statuses| statuses.len() == map.seats as usize)
            .ok_or_else(|| Error::Protocol("the map of seats is not one letter a seat".into()))?;
        let statuses = Arc::new(statuses);
        Ok(vec![statuses; requests.len()])
    }
}
