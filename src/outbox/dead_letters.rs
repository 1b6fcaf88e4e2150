//! Dead letters: events that MySQL can't take, put aside so that the line behind them goes on.
//!
//! An entry that can't be read, or an event that a constraint refuses, will be refused for ever. The writer narrows a failing pass down to the entry,
//! applies its events one by one, and writes what is refused to `dead_letters`, with its cause, in the transaction that moves the checkpoint past
//! it. Nothing is lost, and somebody is told. `usher dead-letters retry` applies them once the cause is gone; of what has changed since, the
//! newer state stays.
//!
//! Not put aside are a gap in the sequence, an entry of a newer release, and errors that blame no row (a missing table, a right that was taken
//! away): those stop the partition.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{Connection, MySqlConnection, MySqlPool};

use super::apply::{self, ApplyError, FlushBatch};
use super::event::OutboxEvent;
use super::flush::FlushFailure;
use super::sql;
use super::writer_handle::WriterHandle;
use crate::mysql::Error;
use crate::partition::{Partition, PartitionCount};
use crate::redis::{self, RedisClient};
use crate::telemetry::Metric;

/// An entry of which something was put aside.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct DeadLetter {
    /// Whose outbox it stood in.
    #[sqlx(rename = "partition_id")]
    pub partition: u16,
    /// Its number there.
    pub n: u64,
    /// The version of the event schema.
    pub version: String,
    /// The whole entry.
    pub payload: Vec<u8>,
    /// The places of the events that were refused; `None` when the entry can't be read.
    pub events: Option<Json<Vec<u16>>>,
    /// What was said against it.
    pub cause: String,
    /// When it was put aside, by MySQL's clock.
    pub buried_at: DateTime<Utc>,
}

/// What came of trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOutcome {
    /// Letters that are gone now.
    pub applied: u32,
    /// Letters that stay.
    pub refused: u32,
}

/// Carries the one entry after a partition's checkpoint over, event by event, and puts aside what is refused. Answers whether the checkpoint moved.
pub(super) async fn quarantine_entry(
    redis: &RedisClient,
    pool: &MySqlPool,
    nudge: &WriterHandle,
    partition: Partition,
) -> Result<bool, FlushFailure> {
    let mut tx = pool.begin().await.map_err(Error::from)?;
    let Some(checkpoint) = sql::lock(&mut tx, &[partition]).await?.pop() else { return Ok(false) };
    let entries =
        redis.outbox_read(&[(partition, checkpoint.n)], 1).await?.pop().unwrap_or_default();
    redis.reads_are_replicated(&[partition]).await?;
    let Some(entry) = entries.first() else { return Ok(false) };
    match apply::decode_entry(checkpoint.n + 1, entry) {
        Ok(events) => {
            let refused = apply_one_by_one(&mut tx, partition, entry.n, events).await?;
            if let Some((_, cause)) = refused.first() {
                let places = refused.iter().map(|(place, _)| *place).collect();
                insert_letter(&mut tx, partition, entry, Some(places), cause).await?;
            }
        }
        Err(fault) if fault.is_poison() => {
            insert_letter(&mut tx, partition, entry, None, &fault.to_string()).await?;
        }
        Err(_) => return Ok(false),
    }
    let through = [(partition, entry.n)];
    sql::advance(&mut tx, &through).await?;
    tx.commit().await.map_err(Error::from)?;
    nudge.record_committed(through);
    redis.outbox_trim(&through).await?;
    Ok(true)
}

/// Applies events each for itself. Gives the places of those that are refused, and why.
async fn apply_one_by_one(
    tx: &mut MySqlConnection,
    partition: Partition,
    n: u64,
    events: Vec<(u16, i64, OutboxEvent)>,
) -> Result<Vec<(u16, String)>, Error> {
    let mut refused = Vec::new();
    for event in events {
        let place = event.0;
        let batch = FlushBatch::of(partition, n, vec![event]);
        if let Some(cause) = try_write(tx, &batch).await? {
            refused.push((place, cause));
        }
    }
    Ok(refused)
}

/// Writes a batch within the transaction, all of it or nothing. Answers what is said against it.
async fn try_write(tx: &mut MySqlConnection, batch: &FlushBatch) -> Result<Option<String>, Error> {
    let mut savepoint = tx.begin().await?;
    match sql::write(&mut savepoint, batch).await {
        Ok(_) => {
            savepoint.commit().await?;
            Ok(None)
        }
        Err(error) if error.is_row_rejection() => {
            savepoint.rollback().await?;
            Ok(Some(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

async fn insert_letter(
    tx: &mut MySqlConnection,
    partition: Partition,
    entry: &redis::OutboxEntry,
    places: Option<Vec<u16>>,
    cause: &str,
) -> Result<(), Error> {
    tracing::error!(
        %partition, n = entry.n, cause,
        "events that MySQL refuses were put aside: see `usher dead-letters list`"
    );
    Metric::OutboxDeadLettersTotal.counter(&[]).increment(1);
    let insert = "INSERT INTO dead_letters (partition_id, n, version, payload, events, cause, buried_at) \
                  VALUES (?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(3))";
    let insert = sqlx::query(insert).bind(partition.get()).bind(entry.n).bind(&entry.version);
    insert.bind(&entry.payload[..]).bind(places.map(Json)).bind(cause).execute(tx).await?;
    Ok(())
}

/// How many there are.
pub(super) async fn count(pool: &MySqlPool) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("SELECT COUNT(*) FROM dead_letters").fetch_one(pool).await?)
}

/// All of them, in the order of their partitions' histories.
///
/// # Errors
/// From the database.
pub async fn list(pool: &MySqlPool) -> Result<Vec<DeadLetter>, Error> {
    let select = "SELECT partition_id, n, version, payload, events, cause, buried_at FROM dead_letters ORDER BY partition_id, n";
    Ok(sqlx::query_as(select).fetch_all(pool).await?)
}

/// Tries all of them again, or the one that is named, each in a transaction of its own. What is refused again stays, with the new cause.
///
/// # Errors
/// From the database. What was applied before that is gone from the letters.
pub async fn retry(
    pool: &MySqlPool,
    partitions: PartitionCount,
    only: Option<(u16, u64)>,
) -> Result<RetryOutcome, Error> {
    let mut retried = RetryOutcome::default();
    for letter in list(pool).await? {
        if only.is_some_and(|only| only != (letter.partition, letter.n)) {
            continue;
        }
        match retry_one(pool, partitions, &letter).await? {
            true => retried.applied += 1,
            false => retried.refused += 1,
        }
    }
    Ok(retried)
}

async fn retry_one(
    pool: &MySqlPool,
    partitions: PartitionCount,
    letter: &DeadLetter,
) -> Result<bool, Error> {
    let mut tx = pool.begin().await?;
    let locked = "SELECT n FROM dead_letters WHERE partition_id = ? AND n = ? FOR UPDATE";
    let still_there: Option<(u64,)> = sqlx::query_as(locked)
        .bind(letter.partition)
        .bind(letter.n)
        .fetch_optional(&mut *tx)
        .await?;
    let (Some(_), Some(partition)) = (still_there, partitions.nth(letter.partition)) else {
        return Ok(false);
    };
    let refused = match refused_events(letter) {
        Ok(events) => reapply(&mut tx, partition, letter.n, events).await?,
        Err(fault) => {
            update_letter(&mut tx, letter, letter.events.clone(), &fault.to_string()).await?;
            tx.commit().await?;
            return Ok(false);
        }
    };
    if let Some((_, cause)) = refused.first() {
        let places = refused.iter().map(|(place, _)| *place).collect();
        update_letter(&mut tx, letter, Some(Json(places)), cause).await?;
    } else {
        let delete = "DELETE FROM dead_letters WHERE partition_id = ? AND n = ?";
        sqlx::query(delete).bind(letter.partition).bind(letter.n).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(refused.is_empty())
}

/// The events of a letter that were refused.
fn refused_events(letter: &DeadLetter) -> Result<Vec<(u16, i64, OutboxEvent)>, ApplyError> {
    let (n, version) = (letter.n, letter.version.clone());
    let entry = redis::OutboxEntry { n, version, payload: letter.payload.clone().into() };
    let mut events = apply::decode_entry(n, &entry)?;
    if let Some(Json(places)) = &letter.events {
        events.retain(|(place, ..)| places.contains(place));
    }
    Ok(events)
}

/// Applies what was refused before. Of a thing that has changed since, the newer state stays.
async fn reapply(
    tx: &mut MySqlConnection,
    partition: Partition,
    n: u64,
    events: Vec<(u16, i64, OutboxEvent)>,
) -> Result<Vec<(u16, String)>, Error> {
    let mut refused = Vec::new();
    for (place, position, event) in events {
        let outdated = is_outdated(tx, position, &event).await?;
        let ledger = matches!(event, OutboxEvent::Entry(_));
        let mut batch = FlushBatch::of(partition, n, vec![(place, position, event)]);
        if outdated && ledger {
            // The line is missing all the same.
            batch.wallets.clear();
        } else if outdated {
            continue;
        }
        if let Some(cause) = try_write(tx, &batch).await? {
            refused.push((place, cause));
        }
    }
    Ok(refused)
}

/// Whether MySQL has a newer state of what the event is about.
async fn is_outdated(
    tx: &mut MySqlConnection,
    position: i64,
    event: &OutboxEvent,
) -> Result<bool, Error> {
    let query = match event {
        OutboxEvent::Entry(line) => {
            let newer = "SELECT 1 FROM wallet_entries WHERE user_id = ? AND position > ? LIMIT 1";
            sqlx::query(newer).bind(line.user.uuid()).bind(position)
        }
        OutboxEvent::Reservation(reservation) => {
            let newer = "SELECT 1 FROM reservations WHERE id = ? AND updated_at > ? FOR UPDATE";
            sqlx::query(newer).bind(reservation.id.uuid()).bind(reservation.at)
        }
        OutboxEvent::Payment(payment) => {
            let newer = "SELECT 1 FROM payments WHERE id = ? AND (attempt > ? OR settled_at > ?) FOR UPDATE";
            sqlx::query(newer).bind(payment.id.uuid()).bind(payment.attempt).bind(payment.at)
        }
        OutboxEvent::Use(used) => {
            let newer = "SELECT 1 FROM coupon_issues WHERE id = ? AND payment_id <> ? FOR UPDATE";
            sqlx::query(newer).bind(used.id.uuid()).bind(used.payment.map(|payment| payment.uuid()))
        }
        OutboxEvent::Facts(facts) => {
            let newer = "SELECT 1 FROM user_facts WHERE user_id = ? AND updated_at > ? FOR UPDATE";
            sqlx::query(newer).bind(facts.user.uuid()).bind(facts.at)
        }
        _ => return Ok(false),
    };
    Ok(query.fetch_optional(tx).await?.is_some())
}

async fn update_letter(
    tx: &mut MySqlConnection,
    letter: &DeadLetter,
    places: Option<Json<Vec<u16>>>,
    cause: &str,
) -> Result<(), Error> {
    let update = "UPDATE dead_letters SET events = ?, cause = ? WHERE partition_id = ? AND n = ?";
    sqlx::query(update)
        .bind(places)
        .bind(cause)
        .bind(letter.partition)
        .bind(letter.n)
        .execute(tx)
        .await?;
    Ok(())
}
