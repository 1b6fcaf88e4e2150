//! Calls of the scripts for archiving, one function for each.

use crate::catalogue::Concert;
use crate::ids::{ConcertId, QueueId, ScheduleId};
use crate::partition::Partition;
use crate::redis::{Error, KeyScope, PurgePage, RedisClient, ScriptArgs, scripts};

fn args(cursor: &str, concert: &ConcertId) -> ScriptArgs {
    let mut args = ScriptArgs::new();
    args.text(cursor).text(concert.as_str());
    args
}

/// `seats/count_running`. One page from a cursor. The first cursor is "0". The count of the page is
/// the number of open reservations.
pub(super) async fn count_running(
    redis: &RedisClient,
    partition: Partition,
    cursor: &str,
    concert: &ConcertId,
) -> Result<PurgePage, Error> {
    let scope = KeyScope::partition(partition);
    PurgePage::read(redis.call(&scripts::SEATS_COUNT_RUNNING, scope, args(cursor, concert)).await?)
}

/// `seats/archive_reservations`. One page from a cursor. The first cursor is "0".
pub(super) async fn archive_reservations(
    redis: &RedisClient,
    partition: Partition,
    cursor: &str,
    concert: &ConcertId,
) -> Result<PurgePage, Error> {
    let scope = KeyScope::partition(partition);
    PurgePage::read(
        redis.call(&scripts::SEATS_ARCHIVE_RESERVATIONS, scope, args(cursor, concert)).await?,
    )
}

/// `seats/archive_purchase_counts`. One page from a cursor. The first cursor is "0".
pub(super) async fn archive_purchase_counts(
    redis: &RedisClient,
    concert: &Concert,
    cursor: &str,
) -> Result<PurgePage, Error> {
    let scope = KeyScope::queue(redis.keys(), &concert.queue);
    PurgePage::read(
        redis
            .call(&scripts::SEATS_ARCHIVE_PURCHASE_COUNTS, scope, args(cursor, &concert.id))
            .await?,
    )
}

/// `seats/archive_seats`.
pub(super) async fn archive_seats(
    redis: &RedisClient,
    queue: &QueueId,
    schedule: &ScheduleId,
    sold: usize,
) -> Result<(), Error> {
    let mut args = ScriptArgs::new();
    args.int(i64::try_from(sold).unwrap_or(i64::MAX));
    let scope = KeyScope::schedule(redis.keys(), queue, schedule);
    redis.call(&scripts::SEATS_ARCHIVE_SEATS, scope, args).await.map(drop)
}

/// `seats/archive_queue`.
pub(super) async fn archive_queue(redis: &RedisClient, queue: &QueueId) -> Result<(), Error> {
    let scope = KeyScope::queue(redis.keys(), queue);
    redis.call(&scripts::SEATS_ARCHIVE_QUEUE, scope, ScriptArgs::new()).await.map(drop)
}
