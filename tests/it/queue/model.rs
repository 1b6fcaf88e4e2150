//! The queue under random use, on four instances with four promoters, two of them an hour ahead and
//! an hour behind: the order is kept, limits hold, no user has two places, no position increases,
//! draws are fair, and every waiting user is admitted.
//!
//! Each run is a queue with random settings and a random walk of joins, polls, leaves and changes
//! of every setting over all instances. Then all runs lose Redis, and walk on after the restore.
//! At last each queue is opened until every user who waits was admitted, used again with a draw,
//! and opened again. A failure prints its seed and its steps. `make model` makes ten thousand runs.
//! The two promoters with wrong clocks are separate processes. `faults/clock_skew.rs` tests
//! everything else on such instances. Code inside an instance cannot depend on its clock: clippy
//! forbids reading it where decisions are made.

mod random_walk;

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime};
use futures::{FutureExt, StreamExt};
use tokio_util::sync::CancellationToken;
use usher::ids::QueueId;
use usher::outbox::{DurabilitySettings, OutboxWriter};
use usher::partition::PartitionCount;
use usher::queue::{QueueService, TokenSigner, run_heard_writer, run_promoter};
use usher::recovery::run_verifier;
use usher::redis::{self, KeyBuilder, RedisClient};

use self::random_walk::{RandomWalk, StepLog};
use crate::support::servers::PARTITIONS;
use crate::support::skew::ClockSkew;
use crate::support::{TestStores, eventually, test_seed};

const INSTANCES: usize = 4;
/// Runs at the same time. They are independent queues.
const CONCURRENT_RUNS: usize = 96;
/// Runs on the same instances. Their queues stay behind and every instance keeps reading them, so
/// more runs would only slow each other down.
const RUNS_PER_BATCH: usize = 400;

pub(crate) async fn connect(stores: &TestStores) -> RedisClient {
    let keys = KeyBuilder::new(&stores.prefix, PartitionCount::new(PARTITIONS).unwrap());
    let settings = redis::RedisClientSettings {
        url: stores.redis_url().into(),
        ca_file: None,
        command_timeout: Duration::from_secs(20),
        may_forget: false,
        replication: redis::ReplicationRequirement::default(),
        kept_entries: redis::KeptEntries::default(),
    };
    let redis = RedisClient::connect(&settings, keys).await.unwrap();
    usher::recovery::verify(&redis, &stores.mysql).await.unwrap().complete().unwrap();
    redis
}

/// Users who wait and have an active slot, counted by Redis at one moment.
async fn users_waiting_and_active(stores: &TestStores, queue: &QueueId) -> i64 {
    let partition = stores.partition_of(queue.as_str());
    let key = |name: &str| stores.key(partition, &format!("q:{queue}:{name}"));
    let script = "local t = redis.call('TIME'); local now, n = t[1] * 1000 + t[2] / 1000, 0 \
        for _, user in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do \
          if tonumber(redis.call('ZSCORE', KEYS[2], user) or '0') > now then n = n + 1 end end \
          return n";
    let (waiting, active) = (key("waiting"), key("active"));
    stores.redis().await.ask(&["EVAL", script, "2", &waiting, &active]).await.int()
}

/// Compares all promotions, in their order, with the limits. After the loss of Redis at `lost_at`,
/// users who return may have lower scores than the last one before it.
async fn check_promotions(stores: &TestStores, walk: &RandomWalk, lost_at: NaiveDateTime) -> u64 {
    let (seed, bounds) = (walk.seed, walk.bounds);
    let rows: Vec<(i64, i64, u32, NaiveDateTime)> = sqlx::query_as(
        "SELECT from_score, to_score, count, promoted_at FROM promotions WHERE queue_id = ? ORDER \
             BY promoted_at, n, idx",
    )
    .bind(walk.id.as_str())
    .fetch_all(&stores.mysql)
    .await
    .unwrap();
    for half in rows.chunk_by(|one, other| (one.3 < lost_at) == (other.3 < lost_at)) {
        let mut last = -1;
        for (from, to, ..) in half {
            assert!(*from > last && to >= from, "seed {seed}: {from}…{to} after {last}");
            last = *to;
        }
    }
    for score in &walk.admitted {
        let score = i64::try_from(*score).unwrap();
        assert!(
            rows.iter().any(|(from, to, ..)| (*from..=*to).contains(&score)),
            "seed {seed}: the place {score} was lost"
        );
    }
    for (at, row) in rows.iter().enumerate() {
        let within = |other: &&(i64, i64, u32, NaiveDateTime)| {
            (row.3 - other.3).num_milliseconds() < bounds.interval_ms
        };
        let let_in: u64 =
            rows[..=at].iter().rev().take_while(within).map(|row| u64::from(row.2)).sum();
        assert!(
            let_in <= bounds.per_interval,
            "seed {seed}: {let_in} promotions within an interval, {bounds:?}"
        );
    }
    rows.iter().map(|row| u64::from(row.2)).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_keeps_its_guarantees_under_random_use() {
    let runs: u64 =
        std::env::var("USHER_TEST_MODEL_RUNS").ok().map_or(48, |runs| runs.parse().unwrap());
    let first = test_seed();
    println!("seeds {first} to {}", first + runs - 1);
    let mut let_in = 0;
    for nth in (0..runs).step_by(RUNS_PER_BATCH) {
        let some = runs.min(nth + RUNS_PER_BATCH as u64) - nth;
        let_in += Box::pin(walk_seeds(first + nth, some)).await;
        println!("{} runs done", nth + some);
    }
    assert!(let_in > runs, "too few promotions: the runs prove nothing");
}

/// Performs a part of a run. A failure prints the seed and all steps of the run.
async fn attempt<T>(seed: u64, steps: StepLog, part: impl Future<Output = T>) -> T {
    match AssertUnwindSafe(part).catch_unwind().await {
        Ok(value) => value,
        Err(panic) => {
            let steps = steps.lock().unwrap().join("\n");
            eprintln!("seed {seed} failed after these steps:\n{steps}");
            resume_unwind(panic)
        }
    }
}

/// Performs a part of every run, some at the same time.
async fn attempt_all(
    walks: Vec<(RandomWalk, StepLog)>,
    at_once: usize,
    part: impl AsyncFn(&mut RandomWalk),
) -> Vec<(RandomWalk, StepLog)> {
    let part = &part;
    let parts = walks.into_iter().map(|(mut walk, steps)| async move {
        attempt(walk.seed, steps.clone(), part(&mut walk)).await;
        (walk, steps)
    });
    futures::stream::iter(parts).buffer_unordered(at_once).collect().await
}

/// Empties Redis once MySQL has everything, and waits until every instance serves the restored one.
/// Returns the time of the loss, by the clock of Redis.
async fn lose_redis(stores: &TestStores, instances: &[RedisClient]) -> NaiveDateTime {
    stores.wait_until_idle().await;
    let all: Vec<_> = instances[0].keys().partitions().all().collect();
    let epochs = |redis: &RedisClient| -> Vec<Option<u64>> {
        all.iter().map(|partition| redis.epochs().get(*partition)).collect()
    };
    let before = epochs(&instances[0]);
    let mut redis = stores.redis().await;
    let mut time = redis.ask(&["TIME"]).await.list().into_iter();
    let seconds: i64 = time.next().unwrap().text().parse().unwrap();
    let micros: u32 = time.next().unwrap().text().parse().unwrap();
    redis.ask(&["FLUSHALL"]).await;
    for instance in instances {
        eventually("an instance serves the restored Redis", async || {
            let now = epochs(instance);
            let restored = |(now, before)| now > &None && now != before;
            now.iter().zip(&before).all(restored).then_some(())
        })
        .await;
    }
    DateTime::from_timestamp(seconds, micros * 1_000).unwrap().naive_utc()
}

/// Runs the seeds from `first` on new instances. Returns the number of promotions.
async fn walk_seeds(first: u64, runs: u64) -> u64 {
    let stores = Arc::new(TestStores::with_own_redis().await);
    let stop = CancellationToken::new();
    let mut skewed = Vec::new();
    if let Some(skew) = ClockSkew::new() {
        skewed = vec![skew.start(&stores, 3_600).await, skew.start(&stores, -3_600).await];
    }
    let redis = connect(&stores).await;
    let writer =
        OutboxWriter::new(redis.clone(), stores.mysql.clone(), DurabilitySettings::default());
    let (mut queues, mut clients) = (Vec::new(), vec![redis.clone()]);
    for nth in 0..INSTANCES {
        let key = ("k1".to_owned(), "d41d8cd98f00b204e9800998ecf8427e".to_owned().into());
        let redis = connect(&stores).await;
        let (mysql, handle) = (stores.mysql.clone(), writer.handle());
        tokio::spawn(run_verifier(redis.clone(), mysql.clone(), handle, stop.clone()));
        clients.push(redis.clone());
        let queue = QueueService::new(redis, mysql, TokenSigner::new(&[key]), stop.clone());
        queues.push(Arc::new(queue));
        tokio::spawn(run_heard_writer(queues[nth].clone(), stop.clone()));
        if nth >= skewed.len() {
            tokio::spawn(run_promoter(queues[nth].clone(), stop.clone()));
        }
    }
    let (mysql, handle) = (stores.mysql.clone(), writer.handle());
    tokio::spawn(run_verifier(redis.clone(), mysql, handle, stop.clone()));
    tokio::spawn(writer.run(stop.clone()));

    let walks = (first..first + runs).map(|seed| {
        let (stores, queues, steps) = (stores.clone(), queues.clone(), StepLog::default());
        attempt(seed, steps.clone(), async move {
            let mut walk = RandomWalk::new(seed, stores, queues, steps.clone()).await;
            walk.walk().await;
            (walk, steps)
        })
    });
    let walks: Vec<_> =
        futures::stream::iter(walks).buffer_unordered(CONCURRENT_RUNS).collect().await;
    let lost_at = lose_redis(&stores, &clients).await;
    let walks = attempt_all(walks, usize::try_from(runs).unwrap(), RandomWalk::come_back).await;
    let walks = attempt_all(walks, CONCURRENT_RUNS, async |walk| {
        walk.walk().await;
        walk.admit_everyone().await;
        walk.use_again().await;
        walk.admit_everyone().await;
    })
    .await;

    let all: Vec<_> = redis.keys().partitions().all().collect();
    eventually("an empty outbox", async || {
        (redis.outbox_backlogs(&all).await.unwrap().iter().sum::<u64>() == 0).then_some(())
    })
    .await;
    let mut let_in = 0;
    for (walk, steps) in &walks {
        let checks = async {
            assert_eq!(users_waiting_and_active(&stores, &walk.id).await, 0);
            let report = queues[0].audit(&walk.id).await.unwrap();
            assert_eq!(report.violations, Vec::<String>::new());
            check_promotions(&stores, walk, lost_at).await
        };
        let_in += attempt(walk.seed, steps.clone(), checks).await;
    }
    stop.cancel();
    for process in skewed {
        process.kill().await;
    }
    assert_eq!(walks.len() as u64, runs);
    let_in
}
