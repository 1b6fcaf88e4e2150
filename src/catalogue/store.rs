//! Calls of the scripts in `lua/catalogue/`, one function for each.

use std::ops::RangeInclusive;

use super::concert::Concert;
use crate::ids::{ConcertId, QueueId, ScheduleId};
use crate::redis::{Error, KeyScope, RedisClient, ScriptArgs, scripts};

/// How many seats one call of `any_seat_in_use` checks. The script accepts no more.
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

/// `catalogue/any_seat_in_use`: whether any seat of the range is held or sold.
pub(super) async fn any_seat_in_use(
    redis: &RedisClient,
    queue: &QueueId,
    schedule: &ScheduleId,
    range: RangeInclusive<u32>,
) -> Result<bool, Error> {
    let scope = KeyScope::schedule(redis.keys(), queue, schedule);
    let (mut first, last) = range.into_inner();
    while first <= last {
        let end = last.min(first + SEATS_PER_CALL - 1);
        let mut args = ScriptArgs::new();
        args.int(first.into()).int(end.into());
        if redis.call(&scripts::CATALOGUE_ANY_SEAT_IN_USE, scope, args).await?.flag()? {
            return Ok(true);
        }
        first = end + 1;
    }
    Ok(false)
}
