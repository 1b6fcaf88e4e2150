//! The audit: whether what is promised holds for what stands in Redis and MySQL.
//!
//! It walks both stores in bounded parts (HSCAN and ZSCAN on one side, pages by primary key on the other) and holds the two sides of each part against
//! each other, so it needs as much memory for ten million rows as for ten thousand. It may run while instances serve. What looks wrong is then
//! perhaps only on its way, so it is looked at again until it is gone, until nothing moves any more, or until the audit's patience is over: what
//! moves on is no fault, what stays is one ([`again`]).
//!
//! - `again`: looking again; whether anything is under way.
//! - `fences`: generations, sequences, checkpoints, outboxes.
//! - `queues`: places, slots, order and rate.
//! - `seats`: reservations and who owns a seat.
//! - `payments`: one end each; confirmed ⇔ debited and sold.
//! - `money`: balances, ledgers, and the sums over everything.
//! - `giveaways`: coupons, rewards, and what is known of users.
//!
//! It reads what the scripts wrote with structures of its own and shares no code with the rooms: a mistake in a room must not hide itself.

mod coupons_and_rewards;
mod fences;
mod money;
mod payments;
mod queues;
mod reinspect;
mod routes;
mod seats;

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

/// Rows of a page, and names of a list in a statement.
const PAGE_SIZE: usize = 500;
/// Faults that one check tells of; it counts them all.
const MAX_REPORTED_FAULTS: usize = 10;

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = AuditCheck)]
pub struct AuditCheck {
    /// What was checked.
    pub name: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// How many Redis has, or their sum where it is about money; null where Redis has no say.
    pub redis: Option<i64>,
    /// The same of MySQL.
    pub mysql: Option<i64>,
    /// What was compared, and the first of what is wrong.
    pub detail: String,
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = AuditReport)]
pub struct AuditReport {
    /// Whether every check holds.
    pub consistent: bool,
    /// All checks.
    pub checks: Vec<AuditCheck>,
}

/// Hears which check is at work, how many rows and elements were seen so far, and about how many there are.
pub type AuditProgress<'a> = &'a (dyn Fn(&'static str, u64, u64) + Sync);

/// Checks everything. `patience` bounds how long the audit waits in all for things that are under way.
///
/// # Errors
/// When a store does not answer.
pub async fn audit(
    redis: &RedisClient,
    mysql: &MySqlPool,
    patience: Duration,
    progress: AuditProgress<'_>,
) -> Result<AuditReport, StoreError> {
    let scene = AuditContext::read(redis, mysql, patience, progress).await?;
    scene.reinspection.wait_until_quiescent().await?;
    let mut checks = vec![fences::check(&scene).await?];
    checks.extend(queues::check(&scene).await?);
    checks.push(seats::check_reservations(&scene).await?);
    checks.push(seats::check_seats(&scene).await?);
    checks.push(payments::check(&scene).await?);
    checks.push(money::check_wallets(&scene).await?);
    checks.push(money::check_ledgers(&scene).await?);
    checks.push(money::check_sums(&scene).await?);
    checks.push(coupons_and_rewards::check_coupons(&scene).await?);
    checks.push(coupons_and_rewards::check_rewards(&scene).await?);
    checks.push(coupons_and_rewards::check_facts(&scene).await?);
    let checks: Vec<AuditCheck> = checks.into_iter().map(CheckTally::finish).collect();
    Ok(AuditReport { consistent: checks.iter().all(|check| check.ok), checks })
}

/// A schedule and where its seats are.
struct AuditedSchedule {
    queue: QueueId,
    schedule: ScheduleId,
    partition: Partition,
    /// Its concert is archived: Redis holds nothing of it any more.
    archived: bool,
}

/// What every check needs to know.
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
            "SELECT s.id, c.queue_id, c.archived_at IS NOT NULL FROM schedules s JOIN concerts c ON c.id = s.concert_id ORDER BY s.id",
        )
        .fetch_all(mysql)
        .await?;
        let halls = schedules.into_iter().filter_map(|(schedule, queue, archived)| {
            let queue: QueueId = queue.parse().ok()?;
            Some(AuditedSchedule {
                schedule: schedule.parse().ok()?,
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
        // What the server estimates for its planner; good enough for a progress bar. Most rows are looked at from both sides.
        let about: Option<i64> = sqlx::query_scalar(
            "SELECT CAST(2 * SUM(TABLE_ROWS) AS SIGNED) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()",
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

    /// Says that some more was looked at.
    fn record_progress(&self, check: &'static str, rows: usize) {
        let seen =
            self.seen.fetch_add(rows as u64, std::sync::atomic::Ordering::Relaxed) + rows as u64;
        (self.progress)(check, seen, self.estimated_rows.max(seen));
    }

    /// Looks at some things, and at those that look wrong again.
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

    /// Looks at everything that stands in one hash of Redis, a part at a time.
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
            let part = self.redis.scan_hash(partition, name, from).await?;
            let mut ids = Vec::with_capacity(part.pairs.len());
            for (field, _) in &part.pairs {
                match id(field) {
                    Some(id) => ids.push(id),
                    None => tally.add_faults(vec![format!(
                        "{name} of {partition} has {field:?}, which is not of there"
                    )]),
                }
            }
            for some in ids.chunks(PAGE_SIZE) {
                self.inspect(tally, some.to_vec(), inspect).await?;
            }
            from = part.next;
            if from.is_none() {
                return Ok(());
            }
        }
    }

    /// Looks at everything that `select` lists, a page at a time: ids after the one that each of its parameters takes, in their order.
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

    /// MessagePack records under sixteen-byte ids, each in the partition that its id leads to.
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

    /// Redis' clock: of several servers, that of whoever holds a slot. What it is compared with allows for more than they differ.
    async fn clock(&self, slot: Option<HashSlot>) -> Result<i64, StoreError> {
        let first = HashSlot::from_low_bits(0);
        Ok(self.redis.clock(self.partition(slot.unwrap_or(first))).await?)
    }

    /// Fields of a hash that every partition has.
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

/// What a check has come to so far.
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
        Self { name, redis: None, mysql: None, note: note.to_owned(), fault_count: 0, reported: Vec::new() }
    }

    fn count_redis(&mut self, more: u64) {
        self.redis = Some(self.redis.unwrap_or_default() + i64::try_from(more).unwrap_or(i64::MAX));
    }

    fn count_mysql(&mut self, more: usize) {
        self.mysql = Some(self.mysql.unwrap_or_default() + i64::try_from(more).unwrap_or(i64::MAX));
    }

    fn add_faults(&mut self, faults: Vec<String>) {
        self.fault_count += faults.len() as u64;
        let room = MAX_REPORTED_FAULTS - self.reported.len();
        self.reported.extend(faults.into_iter().take(room));
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

/// Binds a list of values, separated by commas.
fn push_values<T>(mut list: Separated<'_, MySql, &'static str>, values: &[T])
where
    T: Clone + Send + for<'q> sqlx::Encode<'q, MySql> + sqlx::Type<MySql> + 'static,
{
    for value in values {
        list.push_bind(value.clone());
    }
}
