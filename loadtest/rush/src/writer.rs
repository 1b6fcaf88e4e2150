//! How fast facts reach MySQL: the rate at which the writer catches up, beside that of bare multi-row inserts into the same server, and how
//! far it lags behind a rush.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use sqlx::mysql::{MySqlConnection, MySqlPool};
use sqlx::{Connection as _, QueryBuilder};
use usher::ids::CouponId;
use usher::partition::{Partition, Partitions};
use usher::redis::Keys;
use uuid::Uuid;

use crate::redis::{Answer, Redis};
use crate::scenario::{People, Scenario, Stock};
use crate::stack::Stack;
use crate::table::{Table, figure};
use crate::{Failure, closed, prepare, progress};

/// Rows of a statement, and statements of a transaction: those of the writer.
const ROWS: usize = 1_024;
const STATEMENTS: usize = 8;
/// How long bare rows are inserted.
const BARE: Duration = Duration::from_secs(3);
/// Coupons that are issued while the writer can't write.
const BACKLOG: usize = 200_000;
/// How long the rushes last whose lag is measured, and on how many connections.
const RUSH: Duration = Duration::from_secs(5);
const CONNECTIONS: usize = 256;
/// The pause between two looks at the outboxes.
const LOOK: Duration = Duration::from_millis(5);
/// The longest lag that is told apart, in microseconds.
const LONGEST_US: u64 = 60_000_000;

const READING: &str = "\nThe bare rows go into a table like that of the coupons' issues, 1,024 to a statement and eight statements to a commit, over one \
connection. The writer is kept from its checkpoints while 200,000 coupons are issued, and timed from its release until the outboxes are empty. Lag is the time \
from the moment at which an event's number is seen in Redis until its entry is trimmed, which follows the commit, sampled every 5 ms.\n";

/// Measures the writer and gives its two tables.
pub(crate) async fn measure(stack: &Stack, redis: &mut Redis) -> Result<String, Failure> {
    let pool = MySqlPool::connect(&stack.mysql_url()).await?;
    let bare = bare(&pool).await?;
    let writer = caught_up(stack, redis, &pool).await?;
    pool.close().await;
    let mut rates = Table::new(&["MySQL", "rows/s", "× bare"]);
    rates.row(vec!["bare multi-row insert".to_owned(), figure(bare), figure(1.0)]);
    rates.row(vec!["the writer, catching up".to_owned(), figure(writer), figure(writer / bare)]);
    let mut lags = Table::new(&["a rush, 256 connections", "units/s", "lag p50 ms", "p99 ms", "max ms"]);
    for name in ["issue", "purchase"] {
        lags.row(rush(stack, redis, name).await?);
    }
    Ok(format!("\n{}\n{}{READING}", rates.render(), lags.render()))
}

/// Rows a second that this MySQL takes when nobody but one inserter uses it.
async fn bare(pool: &MySqlPool) -> Result<f64, Failure> {
    progress("inserting bare rows");
    sqlx::query("CREATE TABLE bare_rows LIKE coupon_issues").execute(pool).await?;
    let mut connection = pool.acquire().await?;
    let (started, mut rows) = (Instant::now(), 0);
    while started.elapsed() < BARE {
        rows += transaction(&mut connection).await?;
    }
    let rate = rows as f64 / started.elapsed().as_secs_f64();
    sqlx::query("DROP TABLE bare_rows").execute(pool).await?;
    Ok(rate)
}

async fn transaction(connection: &mut MySqlConnection) -> Result<usize, Failure> {
    let mut transaction = connection.begin().await?;
    for _ in 0..STATEMENTS {
        let mut insert = QueryBuilder::new("INSERT INTO bare_rows (id, coupon_id, user_id, issued_at) ");
        insert.push_values(0..ROWS, |mut row, _| {
            row.push_bind(Uuid::new_v4())
                .push_bind("bare")
                .push_bind(Uuid::new_v4())
                .push("UTC_TIMESTAMP(3)");
        });
        insert.build().execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(ROWS * STATEMENTS)
}

/// Rows a second that the writer brings over when nothing else is asked of the service.
async fn caught_up(stack: &Stack, redis: &mut Redis, pool: &MySqlPool) -> Result<f64, Failure> {
    progress("issuing coupons while the writer is kept waiting");
    prepare::coupon(&stack.target, "backlog", BACKLOG as u64).await?;
    stack.drained(redis).await?;
    // The writer passes over checkpoints that someone else has locked.
    let mut lock = pool.begin().await?;
    sqlx::query("SELECT partition_id FROM outbox_checkpoints FOR UPDATE").fetch_all(&mut *lock).await?;
    prepare::issued(&stack.target, "backlog", BACKLOG).await?;
    progress("letting the writer catch up");
    let started = Instant::now();
    lock.rollback().await?;
    stack.drained(redis).await?;
    let took = started.elapsed();
    let (written,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM coupon_issues WHERE coupon_id = 'backlog'")
        .fetch_one(pool)
        .await?;
    if usize::try_from(written)? != BACKLOG {
        return Err(format!("the writer brought {written} rows of {BACKLOG}").into());
    }
    Ok(BACKLOG as f64 / took.as_secs_f64())
}

/// A rush, and how far the writer lagged behind it.
async fn rush(stack: &Stack, redis: &mut Redis, name: &str) -> Result<Vec<String>, Failure> {
    progress(&format!("measuring the writer's lag in a rush: {name}"));
    let (target, what) = (&stack.target, format!("lag-{name}"));
    let partitions = Partitions::default();
    let (scenario, watched) = if name == "issue" {
        prepare::coupon(target, &what, 1_000_000_000).await?;
        let path = format!("/v1/coupons/{what}/issues");
        let coupon: CouponId = what.parse()?;
        let partition = Keys::new("usher", partitions).partition(coupon.slot());
        (Scenario::Issue { path, people: People::new(), status: 201 }, vec![partition])
    } else {
        let schedule = prepare::hall(target, &what, prepare::MOST_SEATS).await?;
        let seats = Stock::new(vec![(); prepare::MOST_SEATS]);
        (
            Scenario::Purchase { queue: what, schedule, seats, people: People::new() },
            partitions.all().collect(),
        )
    };
    stack.drained(redis).await?;
    let over = Arc::new(AtomicBool::new(false));
    let (port, end) = (stack.redis_port(), over.clone());
    let watch = tokio::task::spawn_blocking(move || {
        watch(port, &watched, &end).map_err(|failure| failure.to_string())
    });
    let outcome = closed::run(&Rc::new(scenario), target.public, CONNECTIONS, RUSH).await;
    over.store(true, Ordering::Relaxed);
    let (lags, outcome) = (watch.await??, outcome?);
    stack.drained(redis).await?;
    let ms = |value: u64| figure(value as f64 / 1e3);
    Ok(vec![
        name.to_owned(),
        figure(outcome.rate()),
        ms(lags.value_at_quantile(0.5)),
        ms(lags.value_at_quantile(0.99)),
        ms(lags.max()),
    ])
}

/// Numbers of events that were seen in Redis and are not in MySQL yet, with the time of the look, by partition.
type Pending = BTreeMap<u16, VecDeque<(u64, Instant)>>;

/// Looks at one partition after another, and at all that have something pending, until it is over and nothing is.
fn watch(port: u16, partitions: &[Partition], over: &AtomicBool) -> Result<Histogram<u64>, Failure> {
    let mut redis = Redis::open(port)?;
    let (mut lags, mut pending) = (Histogram::new_with_max(LONGEST_US, 2)?, Pending::new());
    for partition in partitions.iter().cycle() {
        if !over.load(Ordering::Relaxed) {
            let seen = Instant::now();
            if let Answer::Bytes(n) = redis.command(&["GET", &format!("usher:{{{partition}}}:seq")])? {
                let n = String::from_utf8_lossy(&n).parse()?;
                note(pending.entry(partition.get()).or_default(), n, seen);
            }
        } else if pending.values().all(VecDeque::is_empty) {
            return Ok(lags);
        }
        for (number, waiting) in pending.iter_mut().filter(|(_, waiting)| !waiting.is_empty()) {
            let outbox = format!("usher:{{p{number}}}:outbox");
            let first = first_entry(&redis.command(&["XRANGE", &outbox, "-", "+", "COUNT", "1"])?);
            let now = Instant::now();
            settle(waiting, first, |seen| lags.saturating_record(us(now - seen)));
        }
        std::thread::park_timeout(LOOK);
    }
    Err("there is nothing to watch".into())
}

/// Notes a number that is higher than those that are pending: the same one again says nothing new.
fn note(waiting: &mut VecDeque<(u64, Instant)>, n: u64, seen: Instant) {
    if waiting.back().is_none_or(|(last, _)| *last < n) {
        waiting.push_back((n, seen));
    }
}

/// Everything before the first entry that still stands is written; all is where none stands.
fn settle(waiting: &mut VecDeque<(u64, Instant)>, first: Option<u64>, mut written: impl FnMut(Instant)) {
    while let Some((n, seen)) = waiting.front() {
        if first.is_some_and(|first| *n >= first) {
            return;
        }
        written(*seen);
        waiting.pop_front();
    }
}

/// The number of the first entry in the answer of `XRANGE`.
fn first_entry(answer: &Answer) -> Option<u64> {
    let Answer::List(entries) = answer else { return None };
    let Some(Answer::List(entry)) = entries.first() else { return None };
    let Some(Answer::Bytes(id)) = entry.first() else { return None };
    std::str::from_utf8(id).ok()?.split_once('-')?.0.parse().ok()
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(LONGEST_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_pending_until_its_entry_is_gone() {
        let (at, mut waiting, mut written) = (Instant::now(), VecDeque::new(), 0);
        for n in [7, 7, 9, 12] {
            note(&mut waiting, n, at);
        }
        assert_eq!(waiting.len(), 3);
        settle(&mut waiting, Some(7), |_| written += 1);
        assert_eq!((written, waiting.len()), (0, 3));
        settle(&mut waiting, Some(10), |_| written += 1);
        assert_eq!((written, waiting.len()), (2, 1));
        settle(&mut waiting, None, |_| written += 1);
        assert_eq!((written, waiting.len()), (3, 0));
    }

    #[test]
    fn the_first_entry_is_found() {
        let entry = |id: &[u8]| Answer::List(vec![Answer::Bytes(id.to_vec()), Answer::List(Vec::new())]);
        assert_eq!(first_entry(&Answer::List(vec![entry(b"42-0"), entry(b"43-0")])), Some(42));
        assert_eq!(first_entry(&Answer::List(Vec::new())), None);
    }
}
