//! Measures the writer: how fast it drains a backlog, compared with bare multi-row inserts into the
//! same server, and how far it lags behind a saturating load.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use sqlx::mysql::{MySqlConnection, MySqlPool};
use sqlx::{Connection as _, QueryBuilder};
use usher::ids::CouponId;
use usher::partition::{Partition, PartitionCount};
use uuid::Uuid;

use crate::redis_connection::RedisConnection;
use crate::scenario::{FreshUsers, LoadScenario, PreparedItems};
use crate::stack::ServiceStack;
use crate::table::{MarkdownTable, figure};
use crate::{BoxError, closed_loop, log_progress, setup};

/// Rows per statement and statements per transaction, as the writer uses them.
const ROWS_PER_STATEMENT: usize = 1_024;
const STATEMENTS_PER_TRANSACTION: usize = 8;
const BARE_INSERT_TIME: Duration = Duration::from_secs(3);
const BACKLOG_SIZE: usize = 200_000;
const LAG_TIME: Duration = Duration::from_secs(5);
const LAG_CONNECTIONS: usize = 256;
const LAG_SAMPLE_INTERVAL: Duration = Duration::from_millis(5);
const MAX_LAG_US: u64 = 60_000_000;

pub(crate) async fn measure(
    stack: &ServiceStack,
    redis: &mut RedisConnection,
) -> Result<String, BoxError> {
    let pool = MySqlPool::connect(&stack.mysql_url()).await?;
    let bare = bare_insert_rate(&pool).await?;
    let writer = drain_rate(stack, redis, &pool).await?;
    pool.close().await;
    let mut rates = MarkdownTable::new(&["inserts into MySQL", "rows/s", "× bare"]);
    rates.add_row(vec!["bare multi-row inserts".to_owned(), figure(bare), figure(1.0)]);
    rates.add_row(vec![
        "the writer on a backlog".to_owned(),
        figure(writer),
        figure(writer / bare),
    ]);
    let mut lags = MarkdownTable::new(&[
        "saturating load, 256 connections",
        "units/s",
        "lag p50 ms",
        "p99 ms",
        "max ms",
    ]);
    for name in ["issue", "purchase"] {
        lags.add_row(measure_lag(stack, redis, name).await?);
    }
    Ok(format!("{}\n{}", rates.render(), lags.render()))
}

/// Rows per second that one inserter reaches on an otherwise idle server.
async fn bare_insert_rate(pool: &MySqlPool) -> Result<f64, BoxError> {
    log_progress("inserting bare rows");
    sqlx::query("CREATE TABLE bare_rows LIKE coupon_issues").execute(pool).await?;
    let mut connection = pool.acquire().await?;
    let (started, mut rows) = (Instant::now(), 0);
    while started.elapsed() < BARE_INSERT_TIME {
        rows += insert_bare_rows(&mut connection).await?;
    }
    let rate = rows as f64 / started.elapsed().as_secs_f64();
    sqlx::query("DROP TABLE bare_rows").execute(pool).await?;
    Ok(rate)
}

async fn insert_bare_rows(connection: &mut MySqlConnection) -> Result<usize, BoxError> {
    let mut transaction = connection.begin().await?;
    for _ in 0..STATEMENTS_PER_TRANSACTION {
        let mut insert =
            QueryBuilder::new("INSERT INTO bare_rows (id, coupon_id, user_id, issued_at) ");
        insert.push_values(0..ROWS_PER_STATEMENT, |mut row, _| {
            row.push_bind(Uuid::new_v4())
                .push_bind("bare")
                .push_bind(Uuid::new_v4())
                .push("UTC_TIMESTAMP(3)");
        });
        insert.build().execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(ROWS_PER_STATEMENT * STATEMENTS_PER_TRANSACTION)
}

/// Rows per second that the writer reaches on a backlog while the service is otherwise idle.
async fn drain_rate(
    stack: &ServiceStack,
    redis: &mut RedisConnection,
    pool: &MySqlPool,
) -> Result<f64, BoxError> {
    log_progress("building a backlog while the writer is blocked");
    setup::coupon(stack.addresses(), "backlog", BACKLOG_SIZE as u64).await?;
    stack.wait_until_drained(redis).await?;
    // The writer skips checkpoints that another transaction has locked.
    let mut lock = pool.begin().await?;
    sqlx::query("SELECT partition_id FROM outbox_checkpoints FOR UPDATE")
        .fetch_all(&mut *lock)
        .await?;
    setup::issue_coupons(stack.addresses(), "backlog", BACKLOG_SIZE).await?;
    log_progress("draining the backlog");
    let started = Instant::now();
    lock.rollback().await?;
    stack.wait_until_drained(redis).await?;
    let took = started.elapsed();
    let (written,): (i64,) =
        sqlx::query_as("SELECT COUNT(*) FROM coupon_issues WHERE coupon_id = 'backlog'")
            .fetch_one(pool)
            .await?;
    if usize::try_from(written)? != BACKLOG_SIZE {
        return Err(format!("the writer wrote {written} rows of {BACKLOG_SIZE}").into());
    }
    Ok(BACKLOG_SIZE as f64 / took.as_secs_f64())
}

/// Saturates the service with one scenario and returns the row with the writer's lag.
async fn measure_lag(
    stack: &ServiceStack,
    redis: &mut RedisConnection,
    name: &str,
) -> Result<Vec<String>, BoxError> {
    log_progress(&format!("measuring the writer's lag: {name}"));
    let (service, id) = (stack.addresses(), format!("lag-{name}"));
    let partitions = PartitionCount::default();
    let (scenario, watched) = if name == "issue" {
        setup::coupon(service, &id, 1_000_000_000).await?;
        let path = format!("/v1/coupons/{id}/issues");
        let coupon: CouponId = id.parse()?;
        let scenario = LoadScenario::Issue { path, users: FreshUsers::new(), status: 201 };
        (scenario, vec![partitions.of(coupon.slot())])
    } else {
        let schedule = setup::open_concert(service, &id, setup::MAX_SEATS).await?;
        let seats = PreparedItems::new(vec![(); setup::MAX_SEATS]);
        let users = FreshUsers::new();
        (LoadScenario::Purchase { queue: id, schedule, seats, users }, partitions.all().collect())
    };
    stack.wait_until_drained(redis).await?;
    let finished = Arc::new(AtomicBool::new(false));
    let (port, end) = (stack.redis_port(), finished.clone());
    let sampler = tokio::task::spawn_blocking(move || sample_lag(port, &watched, &end));
    let (scenario, address) = (Rc::new(scenario), service.public);
    let outcome = closed_loop::run(&scenario, address, LAG_CONNECTIONS, LAG_TIME).await;
    finished.store(true, Ordering::Relaxed);
    let (lags, outcome) = (sampler.await??, outcome?);
    stack.wait_until_drained(redis).await?;
    let ms = |value: u64| figure(value as f64 / 1e3);
    Ok(vec![
        name.to_owned(),
        figure(outcome.rate()),
        ms(lags.value_at_quantile(0.5)),
        ms(lags.value_at_quantile(0.99)),
        ms(lags.max()),
    ])
}

/// Event numbers that were seen in Redis and are not yet in MySQL, with the time of sampling.
type PendingEvents = VecDeque<(u64, Instant)>;

/// Samples one partition after the other, and those with pending events each time, until the load
/// has finished and no event is pending.
fn sample_lag(
    port: u16,
    partitions: &[Partition],
    finished: &AtomicBool,
) -> Result<Histogram<u64>, BoxError> {
    let mut redis = RedisConnection::open(port)?;
    let mut lags = Histogram::new_with_max(MAX_LAG_US, 2)?;
    let mut pending = BTreeMap::<u16, PendingEvents>::new();
    for partition in partitions.iter().cycle() {
        if !finished.load(Ordering::Relaxed) {
            let now = Instant::now();
            let number = redis.number(&format!("usher:{{{partition}}}:seq"))?;
            add_pending(pending.entry(partition.get()).or_default(), number, now);
        } else if pending.values().all(VecDeque::is_empty) {
            return Ok(lags);
        }
        for (number, events) in pending.iter_mut().filter(|(_, events)| !events.is_empty()) {
            let written = redis.number(&format!("usher:{{p{number}}}:written"))?;
            let now = Instant::now();
            remove_written(events, written, |seen| {
                let lag = u64::try_from((now - seen).as_micros()).unwrap_or(MAX_LAG_US);
                lags.saturating_record(lag);
            });
        }
        std::thread::park_timeout(LAG_SAMPLE_INTERVAL);
    }
    Err("no partition to watch".into())
}

fn add_pending(events: &mut PendingEvents, number: u64, seen: Instant) {
    if events.back().is_none_or(|(last, _)| *last < number) {
        events.push_back((number, seen));
    }
}

/// Removes the events up to the last one that MySQL has.
fn remove_written(events: &mut PendingEvents, last: u64, mut written: impl FnMut(Instant)) {
    while let Some((_, seen)) = events.front().filter(|(number, _)| *number <= last) {
        written(*seen);
        events.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_pending_until_mysql_has_it() {
        let (at, mut events, mut written) = (Instant::now(), VecDeque::new(), 0);
        for number in [7, 7, 9, 12] {
            add_pending(&mut events, number, at);
        }
        assert_eq!(events.len(), 3);
        remove_written(&mut events, 6, |_| written += 1);
        assert_eq!((written, events.len()), (0, 3));
        remove_written(&mut events, 9, |_| written += 1);
        assert_eq!((written, events.len()), (2, 1));
        remove_written(&mut events, 12, |_| written += 1);
        assert_eq!((written, events.len()), (3, 0));
    }
}
