//! The audit: checks that the data in Redis and MySQL satisfies the guarantees of the service.
//!
//! It scans both stores in bounded pages (HSCAN and ZSCAN in Redis, by primary key in MySQL) and
//! compares each page with the other store, so it needs as much memory for ten million rows as for
//! ten thousand. It can run while instances serve. A difference may then be a change on its way
//! from Redis to MySQL. So differences are inspected again until they disappear, until nothing
//! changes any more, or until `patience` is over; what remains is a fault (`reinspect`).
//!
//! It parses what the scripts wrote with its own structures and shares no code with the domains, so
//! that a mistake in a domain can't hide itself. Start reading at [`audit`].
//!
//! - `reinspect`: repeated inspections, and whether anything changes.
//! - `fences`: epochs, sequences, checkpoints, outboxes.
//! - `queues`: waiting and active users, capacity, order and rate of admissions.
//! - `reservations`: reservations and their payments.
//! - `seats`: the owner of each seat.
//! - `pending_payments`: external payments that wait, references, refunds that are due.
//! - `payments`: one final state each; confirmed means debited and sold.
//! - `money`: balances, ledgers, and the sums over everything.
//! - `coupons_and_rewards`: coupons, rewards, and facts of users.
//! - `user_names`: the ids of users in descriptions.

mod coupons_and_rewards;
mod fences;
mod money;
mod payments;
mod pending_payments;
mod queues;
mod reinspect;
mod reservations;
mod routes;
mod seat_rows;
mod seats;
mod user_names;

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::MySqlPool;
use sqlx::mysql::MySql;
use sqlx::query_builder::Separated;
use uuid::Uuid;

use crate::ids::{CouponId, QueueId, ScheduleId};
use crate::partition::{HashSlot, Partition};
use crate::redis::RedisClient;
use crate::store_error::StoreError;
use crate::telemetry::Metric;
use reinspect::{AuditInspection, Reinspection};

pub use routes::router;

/// Rows in one page, and values in one list of a statement.
const PAGE_SIZE: usize = 500;
/// Faults that one check describes. It counts all.
const MAX_REPORTED_FAULTS: usize = 10;

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = AuditCheck)]
pub struct AuditCheck {
    /// The name of the check.
    pub name: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// The number of items in Redis, or their sum for money; null where the check does not read
    /// Redis.
    pub redis: Option<i64>,
    /// The same for MySQL.
    pub mysql: Option<i64>,
    /// What was compared, and the first faults.
    pub detail: String,
}

/// The result of an audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = AuditReport)]
pub struct AuditReport {
    /// Whether every check passed.
    pub consistent: bool,
    pub checks: Vec<AuditCheck>,
}

/// Called with the name of the current check, the number of rows inspected so far, and an estimate
/// of their total.
pub type AuditProgress<'a> = &'a (dyn Fn(&'static str, u64, u64) + Sync);

/// Runs all checks. `patience` limits the total time for repeated inspections.
///
/// # Errors
/// When a store does not answer.
pub async fn audit(
    redis: &RedisClient,
    mysql: &MySqlPool,
    patience: Duration,
    progress: AuditProgress<'_>,
) -> Result<AuditReport, StoreError> {
    let context = AuditContext::read(redis, mysql, patience, progress).await?;
    context.reinspection.wait_until_quiescent().await?;
    let mut checks = vec![fences::check(&context).await?];
    checks.extend(queues::check(&context).await?);
    checks.push(reservations::check_reservations(&context).await?);
    checks.push(seats::check_seats(&context).await?);
    checks.push(payments::check(&context).await?);
    checks.push(pending_payments::check_waiting(&context).await?);
    checks.push(pending_payments::check_references(&context).await?);
    checks.push(money::check_wallets(&context).await?);
    checks.push(money::check_ledgers(&context).await?);
    checks.push(money::check_sums(&context).await?);
    checks.push(coupons_and_rewards::check_coupons(&context).await?);
    checks.push(coupons_and_rewards::check_rewards(&context).await?);
    checks.push(coupons_and_rewards::check_facts(&context).await?);
    let mut checks: Vec<AuditCheck> = checks.into_iter().map(CheckTally::finish).collect();
    user_names::name_users(mysql, &mut checks).await?;
    Ok(AuditReport { consistent: checks.iter().all(|check| check.ok), checks })
}

/// A schedule, and the partition of its seats.
struct AuditedSchedule {
    queue: QueueId,
    id: ScheduleId,
    partition: Partition,
    /// Whether its concert is archived; then Redis has no seats of it.
    archived: bool,
}

/// What every check needs.
struct AuditContext<'a> {
    redis: &'a RedisClient,
    mysql: &'a MySqlPool,
    reinspection: Reinspection<'a>,
    schedules: Vec<AuditedSchedule>,
    coupons: Vec<(CouponId, Option<i64>)>,
    seen: std::sync::atomic::AtomicU64,
    estimated_rows: u64,
    progress: AuditProgress<'a>,
}

impl<'a> AuditContext<'a> {
    async fn read(
        redis: &'a RedisClient,
        mysql: &'a MySqlPool,
        patience: Duration,
        progress: AuditProgress<'a>,
    ) -> Result<Self, StoreError> {
        let partition = |queue: &QueueId| redis.keys().partition(queue.slot());
        let schedules: Vec<(String, String, bool)> = sqlx::query_as(
            "SELECT s.id, c.queue_id, c.archived_at IS NOT NULL FROM schedules s JOIN concerts c \
             ON c.id = s.concert_id ORDER BY s.id",
        )
        .fetch_all(mysql)
        .await?;
        let halls = schedules.into_iter().filter_map(|(schedule, queue, archived)| {
            let queue: QueueId = queue.parse().ok()?;
            Some(AuditedSchedule {
                id: schedule.parse().ok()?,
                partition: partition(&queue),
                archived,
                queue,
            })
        });
        let coupons: Vec<(String, Option<i64>)> =
            sqlx::query_as("SELECT id, CAST(total_quantity AS SIGNED) FROM coupons ORDER BY id")
                .fetch_all(mysql)
                .await?;
        let coupons = coupons.into_iter().filter_map(|(id, total)| Some((id.parse().ok()?, total)));
        // The server's own estimate, accurate enough for a progress bar. Most rows are inspected
        // from both sides.
        let about: Option<i64> = sqlx::query_scalar(
            "SELECT CAST(2 * SUM(TABLE_ROWS) AS SIGNED) FROM information_schema.TABLES WHERE \
             TABLE_SCHEMA = DATABASE()",
        )
        .fetch_one(mysql)
        .await?;
        Ok(Self {
            redis,
            mysql,
            reinspection: Reinspection::new(redis, mysql, patience).await?,
            schedules: halls.collect(),
            coupons: coupons.collect(),
            seen: std::sync::atomic::AtomicU64::new(0),
            estimated_rows: about.and_then(|rows| u64::try_from(rows).ok()).unwrap_or_default(),
            progress,
        })
    }

    fn partition(&self, slot: HashSlot) -> Partition {
        self.redis.keys().partition(slot)
    }

    fn partitions(&self) -> impl Iterator<Item = Partition> {
        self.redis.keys().partitions().all()
    }

    /// Reports more inspected rows.
    fn record_progress(&self, check: &'static str, rows: usize) {
        let seen =
            self.seen.fetch_add(rows as u64, std::sync::atomic::Ordering::Relaxed) + rows as u64;
        (self.progress)(check, seen, self.estimated_rows.max(seen));
    }

    /// Inspects items, repeatedly where they look wrong, and adds the faults.
    async fn inspect<K: Clone + Ord, F: AuditInspection<K>>(
        &self,
        tally: &mut CheckTally,
        ids: Vec<K>,
        inspect: &impl Fn(Vec<K>) -> F,
    ) -> Result<(), StoreError> {
        self.record_progress(tally.name, ids.len());
        if !ids.is_empty() {
            tally.add_faults(self.reinspection.inspect_until_stable(ids, inspect).await?);
        }
        Ok(())
    }

    /// Inspects every field of a hash in Redis, one page at a time.
    async fn walk_hash<K: Clone + Ord, F: AuditInspection<K>>(
        &self,
        tally: &mut CheckTally,
        (partition, name): (Partition, &str),
        id: impl Fn(&Bytes) -> Option<K>,
        inspect: &impl Fn(Vec<K>) -> F,
    ) -> Result<(), StoreError> {
        tally.count_redis(self.redis.hash_len(partition, name).await?);
        let mut from = None;
        loop {
            let page = self.redis.scan_hash(partition, name, from).await?;
            let mut ids = Vec::with_capacity(page.pairs.len());
            for (field, _) in &page.pairs {
                match id(field) {
                    Some(id) => ids.push(id),
                    None => tally.add_faults(vec![format!(
                        "{name} of {partition} has {field:?}, which does not belong there"
                    )]),
                }
            }
            for chunk in ids.chunks(PAGE_SIZE) {
                self.inspect(tally, chunk.to_vec(), inspect).await?;
            }
            from = page.next;
            if from.is_none() {
                return Ok(());
            }
        }
    }

    /// Inspects every id that `select` returns, one page at a time. Each of its parameters is the
    /// last id of the page before.
    async fn walk_table<K: Clone + Ord + From<Uuid>, F: AuditInspection<K>>(
        &self,
        tally: &mut CheckTally,
        select: &'static str,
        inspect: &impl Fn(Vec<K>) -> F,
    ) -> Result<(), StoreError> {
        let mut after = Uuid::nil();
        loop {
            let mut query = sqlx::query_scalar(select);
            for _ in select.matches('?') {
                query = query.bind(after);
            }
            let page: Vec<Uuid> = query.fetch_all(self.mysql).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = *last;
            tally.count_mysql(page.len());
            self.inspect(tally, page.into_iter().map(K::from).collect(), inspect).await?;
        }
    }

    /// Reads MessagePack records by their ids from the hash `name` of each id's partition.
    async fn records<T: DeserializeOwned>(
        &self,
        name: &str,
        ids: &[(Partition, Uuid)],
    ) -> Result<Vec<Option<Result<T, String>>>, StoreError> {
        let read =
            |packed: Bytes| rmp_serde::from_slice(&packed).map_err(|error| error.to_string());
        let fields: Vec<_> =
            ids.iter().map(|(at, id)| (*at, Bytes::copy_from_slice(id.as_bytes()))).collect();
        Ok(self.fields(name, &fields).await?.into_iter().map(|packed| packed.map(read)).collect())
    }

    /// The clock of the server that owns a hash slot. The comparisons allow for larger differences
    /// than those between servers.
    async fn clock(&self, slot: Option<HashSlot>) -> Result<i64, StoreError> {
        let first = HashSlot::from_low_bits(0);
        Ok(self.redis.clock(self.partition(slot.unwrap_or(first))).await?)
    }

    /// Reads fields of the hash `name`, each from its partition.
    async fn fields(
        &self,
        name: &str,
        fields: &[(Partition, Bytes)],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let mut values = vec![None; fields.len()];
        for partition in self.partitions() {
            let here: Vec<usize> =
                (0..fields.len()).filter(|at| fields[*at].0 == partition).collect();
            if here.is_empty() {
                continue;
            }
            let names: Vec<Bytes> = here.iter().map(|at| fields[*at].1.clone()).collect();
            let found = self.redis.hash_fields(partition, name, &names).await?;
            for (at, value) in here.into_iter().zip(found) {
                values[at] = value;
            }
        }
        Ok(values)
    }
}

/// The state of a running check.
struct CheckTally {
    name: &'static str,
    redis: Option<i64>,
    mysql: Option<i64>,
    note: String,
    fault_count: u64,
    reported: Vec<String>,
}

impl CheckTally {
    fn new(name: &'static str, note: &str) -> Self {
        Self {
            name,
            redis: None,
            mysql: None,
            note: note.to_owned(),
            fault_count: 0,
            reported: Vec::new(),
        }
    }

    fn count_redis(&mut self, more: u64) {
        self.redis = Some(self.redis.unwrap_or_default() + i64::try_from(more).unwrap_or(i64::MAX));
    }

    fn count_mysql(&mut self, more: usize) {
        self.mysql = Some(self.mysql.unwrap_or_default() + i64::try_from(more).unwrap_or(i64::MAX));
    }

    fn add_faults(&mut self, faults: Vec<String>) {
        self.fault_count += faults.len() as u64;
        let free = MAX_REPORTED_FAULTS - self.reported.len();
        self.reported.extend(faults.into_iter().take(free));
    }

    fn finish(self) -> AuditCheck {
        let mut detail = self.note;
        if self.fault_count > 0 {
            detail.push_str(&format!("; {} wrong: {}", self.fault_count, self.reported.join("; ")));
            let more = self.fault_count - self.reported.len() as u64;
            if more > 0 {
                detail.push_str(&format!("; and {more} more"));
            }
        }
        Metric::AuditFaults.gauge(&[("check", self.name)]).set(self.fault_count as f64);
        AuditCheck {
            name: self.name,
            ok: self.fault_count == 0,
            redis: self.redis,
            mysql: self.mysql,
            detail,
        }
    }
}

/// Binds a list of values.
fn push_values<T>(mut list: Separated<'_, MySql, &'static str>, values: &[T])
where
    T: Clone + Send + for<'q> sqlx::Encode<'q, MySql> + sqlx::Type<MySql> + 'static,
{
    for value in values {
        list.push_bind(value.clone());
    }
}
