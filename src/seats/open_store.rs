//! Calls of `lua/seats/scan_open.lua`.

use super::reservation::Reservation;
use crate::ids::{ConcertId, QueueId};
use crate::redis::{Error, KeyScope, RedisClient, ScriptArgs, ScriptReply, scripts};

/// A part of the open reservations of a concert.
pub(super) struct OpenReservationsPage {
    /// Redis' clock, in milliseconds since 1970.
    pub(super) now: i64,
    /// "0" on the last page.
    pub(super) cursor: String,
    pub(super) reservations: Vec<Reservation>,
}

/// `seats/scan_open`. One page from a cursor. The first cursor is "0".
pub(super) async fn scan_open(
    redis: &RedisClient,
    queue: &QueueId,
    concert: &ConcertId,
    cursor: &str,
) -> Result<OpenReservationsPage, Error> {
    let mut args = ScriptArgs::new();
    args.text(cursor).text(concert.as_str());
    let scope = KeyScope::queue(redis.keys(), queue);
    let mut words = redis.call(&scripts::SEATS_SCAN_OPEN, scope, args).await?.words()?;
    let (now, cursor) = (words.int()?, words.text()?);
    let records = words.rest().map(ScriptReply::record).collect::<Result<Vec<_>, _>>()?;
    let reservations = records.into_iter().flatten().collect();
    Ok(OpenReservationsPage { now, cursor, reservations })
}
