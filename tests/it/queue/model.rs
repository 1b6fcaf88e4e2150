//! The line under random use, on four instances with four promoters, two of them an hour ahead and an hour behind: nobody overtakes, nobody too many
//! gets in, nobody stands twice, and no position or estimate goes up.
//!
//! Each run is a queue of its own with random settings, and a random walk of joins, polls, leaves and changes of settings over all instances, from a seed
//! that is printed when something is wrong. `make model` makes ten thousand runs. The two promoters whose clocks are off are processes of their own; `skew.rs` asks such
//! instances everything else. Inside an instance there is nothing to skew: clippy refuses its clock wherever something is decided.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_util::sync::CancellationToken;
use usher::ids::{QueueId, UserId};
use usher::outbox::{DurabilitySettings, OutboxWriter};
use usher::partition::PartitionCount;
use usher::queue::{
    AdmissionState, Claims, Error, QueueService, QueueSettings, TokenSigner, run_promoter,
};
use usher::redis::{self, KeyBuilder, RedisClient};

use crate::support::servers::PARTITIONS;
use crate::support::skew::Skew;
use crate::support::{Stores, eventually, test_seed};

/// Instances of one run.
const INSTANCES: usize = 4;
/// Users of one run.
const USERS: u128 = 24;
/// Steps of one run.
const STEPS: usize = 90;
/// Nobody is asked to poll sooner than this, so nothing is promised between answers that lie closer together.
const POLLED_AFTER: Duration = Duration::from_millis(900);
/// Every instance knows a change of settings within a second; until then estimates may be of either.
const SETTLED: Duration = Duration::from_secs(1);
/// Runs at once. They are queues of their own, so they do not meet.
const AT_ONCE: usize = 96;
/// Runs on the same instances. Their lines stay behind, and every instance goes on looking at them, so more of them would only slow each other down.
const AT_A_TIME: usize = 400;

pub(crate) async fn connect(stores: &Stores) -> RedisClient {
    let keys = KeyBuilder::new(&stores.prefix, PartitionCount::new(PARTITIONS).unwrap());
    let settings = redis::RedisClientSettings {
        url: stores.redis_url().into(),
        ca_file: None,
        command_timeout: Duration::from_secs(20),
        may_forget: false,
        reach: redis::ReplicationRequirement::default(),
    };
    let redis = RedisClient::connect(&settings, keys).await.unwrap();
    usher::recovery::verify(&redis, &stores.mysql).await.unwrap();
    redis
}

/// The widest bounds that any settings of a run allowed: what was promised must hold for them.
#[derive(Debug)]
struct Bounds {
    per_interval: u64,
    interval_ms: i64,
    max_active: u64,
}

struct Told {
    at: Instant,
    score: u64,
    position: u64,
    wait: Option<u64>,
    /// How often the settings had changed.
    changes: u32,
}

struct Run {
    seed: u64,
    id: QueueId,
    random: StdRng,
    queues: Vec<Arc<QueueService>>,
    bounds: Bounds,
    settings: QueueSettings,
    tokens: HashMap<UserId, Claims>,
    /// What users were told while waiting.
    told: HashMap<UserId, Vec<Told>>,
    changes: u32,
    /// When they last changed.
    changed: Instant,
}

impl Run {
    async fn new(seed: u64, queues: Vec<Arc<QueueService>>) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let settings = QueueSettings {
            promote_per_interval: random.random_range(1..5),
            interval_ms: random.random_range(100..250),
            max_active: random.random_range(1..8),
            active_seconds: 1,
            claim_seconds: 1,
            max_waiting: random.random_bool(0.2).then(|| random.random_range(1..20)),
            ..QueueSettings::default()
        };
        let bounds = Bounds {
            per_interval: settings.promote_per_interval.into(),
            interval_ms: settings.interval_ms.into(),
            max_active: settings.max_active.into(),
        };
        let id: QueueId = format!("run-{seed}").parse().unwrap();
        queues[0].put(&id, settings.clone()).await.unwrap();
        for queue in &queues[1..] {
            queue.reload().await.unwrap();
        }
        let (tokens, told) = (HashMap::new(), HashMap::new());
        Self {
            seed,
            id,
            random,
            queues,
            bounds,
            settings,
            tokens,
            told,
            changes: 0,
            changed: Instant::now(),
        }
    }

    async fn walk(mut self) -> (QueueId, u64, Bounds) {
        for _ in 0..STEPS {
            let user: UserId = uuid::Uuid::from_u128(self.random.random_range(1..=USERS)).into();
            let queue = self.queues[self.random.random_range(0..INSTANCES)].clone();
            match self.random.random_range(0..100) {
                0..45 => self.join(&queue, user).await,
                45..80 => self.poll(&queue, user).await,
                80..98 => self.leave(&queue, user).await,
                _ => self.change(&queue).await,
            }
            // Users pause about as long as the promoters, so that promotions fall between their steps.
            let pause = self.random.random_range(0..45);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        (self.id, self.seed, self.bounds)
    }

    async fn join(&mut self, queue: &Arc<QueueService>, user: UserId) {
        let (place, fresh) = match queue.join(&self.id, user).await {
            Ok(joined) => joined,
            Err(Error::Full) => return,
            Err(error) => panic!("seed {}: {error}", self.seed),
        };
        if !fresh {
            let known = self.tokens.get(&user).map(|claims| claims.score);
            assert_eq!(
                known,
                Some(place.claims.score),
                "seed {}: {user} has two places",
                self.seed
            );
        }
        self.tokens.insert(user, place.claims.clone());
        self.hear(user, &place);
    }

    async fn poll(&mut self, queue: &Arc<QueueService>, user: UserId) {
        let Some(claims) = self.tokens.get(&user).cloned() else { return };
        let place =
            queue.poll(&claims).await.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        self.hear(user, &place);
    }

    async fn leave(&mut self, queue: &Arc<QueueService>, user: UserId) {
        if let Some(claims) = self.tokens.get(&user) {
            match queue.leave(claims).await {
                Ok(()) | Err(Error::TokenExpired) => {}
                Err(error) => panic!("seed {}: {error}", self.seed),
            }
            self.told.remove(&user);
        }
    }

    async fn change(&mut self, queue: &Arc<QueueService>) {
        self.settings.promote_per_interval = self.random.random_range(1..5);
        self.settings.max_active = self.random.random_range(1..8);
        self.bounds.per_interval =
            self.bounds.per_interval.max(self.settings.promote_per_interval.into());
        self.bounds.max_active = self.bounds.max_active.max(self.settings.max_active.into());
        self.changes += 1;
        self.changed = Instant::now();
        queue.put(&self.id, self.settings.clone()).await.unwrap();
    }

    /// Holds what a user is told against what they were told before, and the line against its bounds.
    fn hear(&mut self, user: UserId, place: &usher::queue::Ticket) {
        let Self { seed, bounds, changes, .. } = self;
        assert!(
            place.line.active <= bounds.max_active,
            "seed {seed}: {:?} above {bounds:?}",
            place.line
        );
        let AdmissionState::Waiting { position } = place.standing else { return };
        let settled = self.changed.elapsed() >= SETTLED;
        let (score, wait) = (place.claims.score, place.estimated_wait_seconds.filter(|_| settled));
        let told = self.told.entry(user).or_default();
        told.retain(|told| told.score == score);
        for before in told.iter().filter(|told| told.at.elapsed() >= POLLED_AFTER) {
            assert!(
                position <= before.position,
                "seed {seed}: {user} was told {}, then {position}",
                before.position
            );
            if let (Some(then), Some(next), true) = (before.wait, wait, before.changes == *changes)
            {
                assert!(next <= then, "seed {seed}: {user} was told {then} s, then {next} s");
            }
        }
        told.push(Told { at: Instant::now(), score, position, wait, changes: *changes });
    }
}

/// Users who stand in line and have a running slot as well, counted by Redis at one moment.
async fn standing_twice(stores: &Stores, queue: &QueueId) -> i64 {
    let partition = stores.partition_of(queue.as_str());
    let key = |name: &str| stores.key(partition, &format!("q:{queue}:{name}"));
    let script = "local t = redis.call('TIME'); local now, n = t[1] * 1000 + t[2] / 1000, 0 \
        for _, user in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do \
          if tonumber(redis.call('ZSCORE', KEYS[2], user) or '0') > now then n = n + 1 end end return n";
    let (waiting, active) = (key("waiting"), key("active"));
    stores.redis().await.ask(&["EVAL", script, "2", &waiting, &active]).await.int()
}

/// All promotions in the order in which they were made, against the bounds.
async fn check_promotions(stores: &Stores, (queue, seed, bounds): &(QueueId, u64, Bounds)) -> u64 {
    let rows: Vec<(i64, i64, u32, chrono::NaiveDateTime)> = sqlx::query_as(
        "SELECT from_score, to_score, count, promoted_at FROM promotions WHERE queue_id = ? ORDER BY n, idx",
    )
    .bind(queue.as_str())
    .fetch_all(&stores.mysql)
    .await
    .unwrap();
    let mut last = -1;
    for (from, to, ..) in &rows {
        assert!(*from > last && to >= from, "seed {seed}: {from}…{to} after {last}");
        last = *to;
    }
    for (at, row) in rows.iter().enumerate() {
        let within = |other: &&(i64, i64, u32, chrono::NaiveDateTime)| {
            (row.3 - other.3).num_milliseconds() < bounds.interval_ms
        };
        let let_in: u64 =
            rows[..=at].iter().rev().take_while(within).map(|row| u64::from(row.2)).sum();
        assert!(
            let_in <= bounds.per_interval,
            "seed {seed}: {let_in} within an interval, {bounds:?}"
        );
    }
    rows.iter().map(|row| u64::from(row.2)).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_line_keeps_its_promises_under_random_use() {
    let runs: u64 = std::env::var("USHER_MODEL_RUNS").ok().map_or(48, |runs| runs.parse().unwrap());
    let first = test_seed();
    println!("seeds {first} to {}", first + runs - 1);
    let mut let_in = 0;
    for nth in (0..runs).step_by(AT_A_TIME) {
        let some = runs.min(nth + AT_A_TIME as u64) - nth;
        let_in += Box::pin(walk_some(first + nth, some)).await;
        println!("{} walked", nth + some);
    }
    assert!(let_in > runs, "hardly anybody was let in: the runs prove nothing");
}

/// Walks with the seeds from `first` on, on instances of their own. Gives how many were let in.
async fn walk_some(first: u64, runs: u64) -> u64 {
    let stores = Stores::new().await;
    let stop = CancellationToken::new();
    let mut skewed = Vec::new();
    if let Some(skew) = Skew::new() {
        skewed = vec![skew.start(&stores, 3_600).await, skew.start(&stores, -3_600).await];
    }
    let mut queues = Vec::new();
    for nth in 0..INSTANCES {
        let key = ("k1".to_owned(), "d41d8cd98f00b204e9800998ecf8427e".to_owned().into());
        let redis = connect(&stores).await;
        let queue =
            QueueService::new(redis, stores.mysql.clone(), TokenSigner::new(&[key]), stop.clone());
        queues.push(Arc::new(queue));
        if nth >= skewed.len() {
            tokio::spawn(run_promoter(queues[nth].clone(), stop.clone()));
        }
    }
    let redis = connect(&stores).await;
    let writer =
        OutboxWriter::new(redis.clone(), stores.mysql.clone(), DurabilitySettings::default());
    tokio::spawn(writer.run(stop.clone()));

    let walks = (first..first + runs).map(|seed| {
        let queues = queues.clone();
        async move { Run::new(seed, queues).await.walk().await }
    });
    let walked: Vec<_> = futures::stream::iter(walks).buffer_unordered(AT_ONCE).collect().await;
    let all: Vec<_> = redis.keys().partitions().all().collect();
    eventually("an empty outbox", async || {
        (redis.outbox_lengths(&all).await.unwrap().iter().sum::<u64>() == 0).then_some(())
    })
    .await;
    let mut let_in = 0;
    for run in &walked {
        assert_eq!(standing_twice(&stores, &run.0).await, 0, "seed {}", run.1);
        let_in += check_promotions(&stores, run).await;
    }
    stop.cancel();
    for process in skewed {
        process.kill().await;
    }
    let seeds: HashSet<u64> = walked.iter().map(|run| run.1).collect();
    assert_eq!(seeds.len() as u64, runs);
    let_in
}
