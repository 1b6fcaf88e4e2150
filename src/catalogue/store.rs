//! Calls of the scripts in `lua/catalogue/`, one function for each.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use super::concert::Concert;
use crate::ids::{ConcertId, QueueId, ReservationId, ScheduleId};
use crate::redis::codes::SeatCode;
use crate::redis::{Error, KeyScope, RedisClient, ReplyReader, ScriptArgs, scripts};

/// How many seats one call of `seats_in_use` checks. The script accepts no more.
const SEATS_PER_CALL: u32 = 1_000;

/// `catalogue/publish`: this version of the concert can be booked from now on.
pub(super) async fn publish(redis: &RedisClient, concert: &Concert) -> Result<(), Error> {
    call_publish(redis, &concert.queue, &concert.id, concert.version, concert.seats()).await
}

/// `catalogue/publish`: the concert can no longer be booked through this queue.
pub(super) async fn withdraw(
    redis: &RedisClient,
    queue: &QueueId,
    concert: &ConcertId,
) -> Result<(), Error> {
    call_publish(redis, queue, concert, 0, 0).await
}

async fn call_publish(
    redis: &RedisClient,
    queue: &QueueId,
    concert: &ConcertId,
    version: u64,
    seats: u32,
) -> Result<(), Error> {
    let mut args = ScriptArgs::new();
    args.text(concert.as_str()).text(&version.to_string()).int(seats.into());
    redis
        .call(&scripts::CATALOGUE_PUBLISH, KeyScope::queue(redis.keys(), queue), args)
        .await
        .map(drop)
}

/// A seat that is held or sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SeatInUse {
    pub(super) number: u32,
    pub(super) reservation: ReservationId,
    /// When the hold ends, in milliseconds since 1970. `None` once it is sold.
    pub(super) held_until: Option<i64>,
}

/// `catalogue/seats_in_use`: the seats of the range that are held or sold, at most those of `limit`
/// reservations.
pub(super) async fn seats_in_use(
    redis: &RedisClient,
    queue: &QueueId,
    schedule: &ScheduleId,
    range: RangeInclusive<u32>,
    limit: usize,
) -> Result<Vec<SeatInUse>, Error> {
    let scope = KeyScope::schedule(redis.keys(), queue, schedule);
    let (mut first, last) = range.into_inner();
    let (mut found, mut reservations) = (Vec::new(), HashSet::new());
    while first <= last {
        let end = last.min(first + SEATS_PER_CALL - 1);
        let mut args = ScriptArgs::new();
        args.int(first.into()).int(end.into());
        let mut words = redis.call(&scripts::CATALOGUE_SEATS_IN_USE, scope, args).await?.words()?;
        while !words.is_empty() {
            let seat = read_seat(&mut words)?;
            if reservations.len() < limit || reservations.contains(&seat.reservation) {
                reservations.insert(seat.reservation);
                found.push(seat);
            }
        }
        first = end + 1;
    }
    Ok(found)
}

fn read_seat(words: &mut ReplyReader) -> Result<SeatInUse, Error> {
    let number = u32::try_from(words.int()?);
    let (state, id, until) = (words.code::<SeatCode>()?, words.word()?.bytes()?, words.int()?);
    let invalid = || Error::Protocol("not a seat in use".to_owned());
    Ok(SeatInUse {
        number: number.map_err(|_| invalid())?,
        reservation: ReservationId::from_slice(&id).ok_or_else(invalid)?,
        held_until: (state == SeatCode::HeldSeat).then_some(until),
    })
}
