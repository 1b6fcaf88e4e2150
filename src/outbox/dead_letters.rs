//! Dead letters: events that MySQL rejects, quarantined so that the entries after them are written.
//!
//! An entry that can't be decoded, or an event that violates a constraint, is rejected every time.
//! The writer narrows a failing flush down to that entry, applies its events one by one, and
//! inserts what is rejected into `dead_letters` with the cause, in the transaction that moves the
//! checkpoint past the entry. Nothing is lost, and an alert fires. `usher dead-letters retry`
//! applies them once the cause is repaired; a newer state of the same entity is kept.
//!
//! Not quarantined, because they stop the partition: a gap in the sequence, an entry of a newer
//! release, and errors that concern no row (a missing table, a revoked privilege).

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{Connection, MySqlConnection, MySqlPool};

use super::apply::{self, ApplyError, FlushBatch};
use super::event::OutboxEvent;
use super::event_log::{self, LoggedEntry};
use super::flush::{FlushFailure, keep_matching_epochs};
use super::sql;
use super::store::{WrittenOutbox, record_written};
use super::writer_handle::WriterHandle;
use crate::money::Money;
use crate::mysql::{Error, checkpoint};
use crate::partition::{Partition, PartitionCount};
use crate::redis::{self, RedisClient};
use crate::telemetry::Metric;

/// An outbox entry with rejected events.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct DeadLetter {
    #[sqlx(rename = "partition_id")]
    pub partition: u16,
    /// The entry's number in the outbox.
    pub n: u64,
    /// The version of the event schema.
    pub version: String,
    /// The whole entry.
    pub payload: Vec<u8>,
    /// The indexes of the rejected events; `None` when the entry can't be decoded.
    pub events: Option<Json<Vec<u16>>>,
    /// The error of the first rejected event.
    pub cause: String,
    /// When it was quarantined, by MySQL's clock.
    pub buried_at: DateTime<Utc>,
}

impl DeadLetter {
    fn entry(&self) -> redis::OutboxEntry {
        let (version, payload) = (self.version.clone(), self.payload.clone().into());
        redis::OutboxEntry { n: self.n, version, payload }
    }
}

/// The outcome of a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOutcome {
    /// Letters that were applied and deleted.
    pub applied: u32,
    /// Letters that were rejected again and are kept.
    pub refused: u32,
}

/// Applies the entry after a partition's checkpoint event by event and quarantines what is
/// rejected. Returns whether the checkpoint moved.
pub(super) async fn quarantine_entry(
    redis: &RedisClient,
    pool: &MySqlPool,
    writer: &WriterHandle,
    partition: Partition,
) -> Result<bool, FlushFailure> {
    let mut tx = pool.begin().await.map_err(Error::from)?;
    let locked = sql::lock(&mut tx, &[partition]).await?;
    // As in a flush: MySQL takes nothing from a Redis with another epoch.
    let Some((checkpoint, marks)) = keep_matching_epochs(redis, locked).await?.pop() else {
        return Ok(false);
    };
    let entries =
        redis.outbox_read(&[(partition, checkpoint.n)], 1).await?.pop().unwrap_or_default();
    if !redis.reads_are_replicated(&[partition]).await?.contains(partition) {
        // A failover may lose the entry, and its number would then belong to other events. A later
        // flush tries again.
        return Ok(false);
    }
    let Some(entry) = entries.first() else { return Ok(false) };
    match apply::decode_entry(checkpoint.n + 1, entry) {
        Ok(events) => {
            let logged = LoggedEntry::of(partition, entry, &events);
            let all: Vec<u16> = events.iter().map(|(index, ..)| *index).collect();
            let refused = apply_one_by_one(&mut tx, partition, entry.n, events).await?;
            let is_applied = |index: &u16| !refused.iter().any(|(refused, _)| refused == index);
            let applied = all.into_iter().filter(is_applied).collect();
            let logged: Vec<_> =
                logged.and_then(|logged| logged.only(applied)).into_iter().collect();
            let locked = [(checkpoint, checkpoint.n < marks.written)];
            event_log::append(&mut tx, &locked, &logged).await?;
            if let Some((_, cause)) = refused.first() {
                let indexes = refused.iter().map(|(index, _)| *index).collect();
                insert_letter(&mut tx, partition, entry, Some(indexes), cause).await?;
            }
        }
        Err(error) if error.is_permanent() => {
            insert_letter(&mut tx, partition, entry, None, &error.to_string()).await?;
        }
        Err(_) => return Ok(false),
    }
    let through = [(partition, entry.n)];
    sql::advance(&mut tx, &through).await?;
    tx.commit().await.map_err(Error::from)?;
    writer.record_committed(through);
    let (fence, bytes) = (marks.fence, entry.payload.len());
    record_written(redis, &[WrittenOutbox { partition, fence, through: entry.n, bytes }]).await;
    Ok(true)
}

/// Applies events one by one. Returns the indexes of those that are rejected, with the cause.
async fn apply_one_by_one(
    tx: &mut MySqlConnection,
    partition: Partition,
    n: u64,
    events: Vec<(u16, i64, OutboxEvent)>,
) -> Result<Vec<(u16, String)>, Error> {
    let mut refused = Vec::new();
    for event in events {
        let index = event.0;
        let batch = FlushBatch::of(partition, n, vec![event]);
        if let Some(cause) = try_write(tx, &batch).await? {
            refused.push((index, cause));
        }
    }
    Ok(refused)
}

/// Writes a batch within the transaction, all of it or nothing. Returns the cause when MySQL
/// rejects it.
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
    indexes: Option<Vec<u16>>,
    cause: &str,
) -> Result<(), Error> {
    tracing::error!(
        %partition, n = entry.n, cause,
        "quarantined events that MySQL rejects; see `usher dead-letters list`"
    );
    Metric::OutboxDeadLettersTotal.counter(&[]).increment(1);
    let insert = "INSERT INTO dead_letters (partition_id, n, version, payload, events, cause, \
                  buried_at) \
                  VALUES (?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(3))";
    let insert = sqlx::query(insert).bind(partition.get()).bind(entry.n).bind(&entry.version);
    insert.bind(&entry.payload[..]).bind(indexes.map(Json)).bind(cause).execute(tx).await?;
    Ok(())
}

pub(super) async fn count_letters(pool: &MySqlPool) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("SELECT COUNT(*) FROM dead_letters").fetch_one(pool).await?)
}

/// Whether a partition has a letter.
///
/// # Errors
/// From the database.
pub async fn has_any(pool: &MySqlPool, partition: Partition) -> Result<bool, Error> {
    let select = "SELECT EXISTS (SELECT 1 FROM dead_letters WHERE partition_id = ?)";
    Ok(sqlx::query_scalar(select).bind(partition.get()).fetch_one(pool).await?)
}

/// All letters, ordered by partition and number.
///
/// # Errors
/// From the database.
pub async fn list(pool: &MySqlPool) -> Result<Vec<DeadLetter>, Error> {
    let select = "SELECT partition_id, n, version, payload, events, cause, buried_at FROM \
                  dead_letters ORDER BY partition_id, n";
    Ok(sqlx::query_as(select).fetch_all(pool).await?)
}

/// A letter without its payload.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct DeadLetterSummary {
    #[sqlx(rename = "partition_id")]
    pub partition: u16,
    pub n: u64,
    pub events: Option<Json<Vec<u16>>>,
    /// The length of the payload.
    pub bytes: u64,
    pub cause: String,
    pub buried_at: DateTime<Utc>,
}

/// At most `limit` letters after a partition and number, in this order.
///
/// # Errors
/// From the database.
pub async fn page(
    pool: &MySqlPool,
    after: Option<(u16, u64)>,
    limit: usize,
) -> Result<Vec<DeadLetterSummary>, Error> {
    let select = "SELECT partition_id, n, events, CAST(LENGTH(payload) AS UNSIGNED) AS bytes, \
                  cause, buried_at FROM dead_letters \
                  WHERE ? OR partition_id > ? OR partition_id = ? AND n > ? \
                  ORDER BY partition_id, n LIMIT ?";
    let (partition, n) = after.unwrap_or_default();
    let select = sqlx::query_as(select).bind(after.is_none());
    let select = select.bind(partition).bind(partition).bind(n);
    Ok(select.bind(u64::try_from(limit).unwrap_or(u64::MAX)).fetch_all(pool).await?)
}

/// The cause of a letter that still exists.
///
/// # Errors
/// From the database.
pub async fn cause(pool: &MySqlPool, (partition, n): (u16, u64)) -> Result<Option<String>, Error> {
    let select = "SELECT cause FROM dead_letters WHERE partition_id = ? AND n = ?";
    Ok(sqlx::query_scalar(select).bind(partition).bind(n).fetch_optional(pool).await?)
}

/// Retries all letters, or only the one that is named, each in its own transaction. What is
/// rejected again is kept with the new cause.
///
/// # Errors
/// From the database. Letters that were applied before the error stay applied.
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
    let Some(partition) = partitions.nth(letter.partition) else { return Ok(false) };
    // Excludes the writer: the events of the letter get positions in the partition's log.
    let checkpoint = checkpoint::lock(&mut tx, partition).await?;
    let select = "SELECT n FROM dead_letters WHERE partition_id = ? AND n = ? FOR UPDATE";
    let select = sqlx::query(select).bind(letter.partition).bind(letter.n);
    if select.fetch_optional(&mut *tx).await?.is_none() {
        return Ok(false);
    }
    let refused = match refused_events(letter) {
        Ok(events) => {
            let logged = LoggedEntry::of(partition, &letter.entry(), &events);
            let (applied, refused) = reapply(&mut tx, partition, letter.n, events).await?;
            let logged: Vec<_> =
                logged.and_then(|logged| logged.only(applied)).into_iter().collect();
            event_log::append(&mut tx, &[(checkpoint, false)], &logged).await?;
            refused
        }
        Err(error) => {
            update_letter(&mut tx, letter, letter.events.clone(), &error.to_string()).await?;
            tx.commit().await?;
            return Ok(false);
        }
    };
    if let Some((_, cause)) = refused.first() {
        let indexes = refused.iter().map(|(index, _)| *index).collect();
        update_letter(&mut tx, letter, Some(Json(indexes)), cause).await?;
    } else {
        let delete = "DELETE FROM dead_letters WHERE partition_id = ? AND n = ?";
        sqlx::query(delete).bind(letter.partition).bind(letter.n).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(refused.is_empty())
}

/// Decodes the rejected events of a letter.
fn refused_events(letter: &DeadLetter) -> Result<Vec<(u16, i64, OutboxEvent)>, ApplyError> {
    let mut events = apply::decode_entry(letter.n, &letter.entry())?;
    if let Some(Json(indexes)) = &letter.events {
        events.retain(|(index, ..)| indexes.contains(index));
    }
    Ok(events)
}

/// Applies events that were rejected before. A newer state of the same entity is kept. Returns the
/// indexes of those that are applied, and of those that are rejected again with the cause.
async fn reapply(
    tx: &mut MySqlConnection,
    partition: Partition,
    n: u64,
    events: Vec<(u16, i64, OutboxEvent)>,
) -> Result<(Vec<u16>, Vec<(u16, String)>), Error> {
    let (mut applied, mut refused) = (Vec::new(), Vec::new());
    for (index, position, event) in events {
        let newer_exists = is_outdated(tx, position, &event).await?;
        let is_ledger_entry = matches!(event, OutboxEvent::Entry(_));
        let mut batch = FlushBatch::of(partition, n, vec![(index, position, event)]);
        if newer_exists && is_ledger_entry {
            // The balance is newer, but the ledger row and its part of the paid total are missing.
            keep_newer_balances(tx, &mut batch).await?;
        } else if newer_exists {
            continue;
        }
        match try_write(tx, &batch).await? {
            Some(cause) => refused.push((index, cause)),
            None => applied.push(index),
        }
    }
    Ok((applied, refused))
}

/// Replaces the balances of a batch by those that MySQL has.
async fn keep_newer_balances(
    tx: &mut MySqlConnection,
    batch: &mut FlushBatch,
) -> Result<(), Error> {
    for (user, wallet) in &mut batch.wallets {
        let select = "SELECT balance, updated_at FROM wallets WHERE user_id = ? FOR UPDATE";
        let row: Option<(i64, DateTime<Utc>)> =
            sqlx::query_as(select).bind(user.uuid()).fetch_optional(&mut *tx).await?;
        if let Some((balance, at)) = row {
            (wallet.balance, wallet.at) = (Money::new(balance).unwrap_or(wallet.balance), at);
        }
    }
    Ok(())
}

/// Whether MySQL has a newer state of the event's entity.
async fn is_outdated(
    tx: &mut MySqlConnection,
    position: i64,
    event: &OutboxEvent,
) -> Result<bool, Error> {
    let query = match event {
        OutboxEvent::Entry(entry) => {
            let newer = "SELECT 1 FROM wallet_entries WHERE user_id = ? AND position > ? LIMIT 1";
            sqlx::query(newer).bind(entry.user.uuid()).bind(position)
        }
        OutboxEvent::Reservation(reservation) => {
            let newer = "SELECT 1 FROM reservations WHERE id = ? AND updated_at > ? FOR UPDATE";
            sqlx::query(newer).bind(reservation.id.uuid()).bind(reservation.at)
        }
        OutboxEvent::Payment(payment) => {
            let newer = "SELECT 1 FROM payments WHERE id = ? AND (attempt > ? OR settled_at > ?) \
                         FOR UPDATE";
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
    indexes: Option<Json<Vec<u16>>>,
    cause: &str,
) -> Result<(), Error> {
    let update = "UPDATE dead_letters SET events = ?, cause = ? WHERE partition_id = ? AND n = ?";
    sqlx::query(update)
        .bind(indexes)
        .bind(cause)
        .bind(letter.partition)
        .bind(letter.n)
        .execute(tx)
        .await?;
    Ok(())
}
