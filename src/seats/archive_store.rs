//! The scripts of archiving, one function each.

use crate::catalogue::Concert;
use crate::ids::{ConcertId, QueueId, ScheduleId};
use crate::partition::Partition;
use crate::redis::{EndedPage, Error, KeyScope, RedisClient, ScriptArgs, scripts};

fn args(cursor: &str, concert: &ConcertId) -> ScriptArgs {
    let mut args = ScriptArgs::new();
    args.text(cursor).text(concert.as_str());
    args
}

/// `seats/count_running`. Goes on from a cursor ("0" begins); what is "dropped" here is how many are running.
pub(super) async fn running(
    redis: &RedisClient,
    partition: Partition,
    cursor: &str,
    concert: &ConcertId,
) -> Result<EndedPage, Error> {
    let place = KeyScope::partition(partition);
    EndedPage::read(redis.call(&scripts::SEATS_COUNT_RUNNING, place, args(cursor, concert)).await?)
}

/// `seats/archive_reservations`. Goes on from a cursor ("0" begins).
pub(super) async fn forget(
    redis: &RedisClient,
    partition: Partition,
    cursor: &str,
    concert: &ConcertId,
) -> Result<EndedPage, Error> {
    let place = KeyScope::partition(partition);
    EndedPage::read(
        redis.call(&scripts::SEATS_ARCHIVE_RESERVATIONS, place, args(cursor, concert)).await?,
    )
}

/// `seats/archive_purchase_counts`. Goes on from a cursor ("0" begins).
pub(super) async fn forget_counts(
    redis: &RedisClient,
    concert: &Concert,
    cursor: &str,
) -> Result<EndedPage, Error> {
    let place = KeyScope::queue(redis.keys(), &concert.queue);
    EndedPage::read(
        redis
            .call(&scripts::SEATS_ARCHIVE_PURCHASE_COUNTS, place, args(cursor, &concert.id))
            .await?,
    )
}

/// `seats/archive_seats`.
pub(super) async fn forget_seats(
    redis: &RedisClient,
    queue: &QueueId,
    schedule: &ScheduleId,
    sold: usize,
) -> Result<(), Error> {
    let mut args = ScriptArgs::new();
    args.int(i64::try_from(sold).unwrap_or(i64::MAX));
    let place = KeyScope::schedule(redis.keys(), queue, schedule);
    redis.call(&scripts::SEATS_ARCHIVE_SEATS, place, args).await.map(drop)
}

/// `seats/archive_queue`.
pub(super) async fn forget_queue(redis: &RedisClient, queue: &QueueId) -> Result<(), Error> {
    let place = KeyScope::queue(redis.keys(), queue);
    redis.call(&scripts::SEATS_ARCHIVE_QUEUE, place, ScriptArgs::new()).await.map(drop)
}
