//! The queue under random use, on four instances with four promoters, two of them an hour ahead and
//! an hour behind: the order is kept, limits hold, no user has two places, and no position
//! increases.
//!
//! Each run is a queue with random settings and a random walk of joins, polls, leaves and changed
//! settings over all instances. A failure prints its seed. `make model` makes ten thousand runs.
//! The two promoters with wrong clocks are separate processes. `faults/clock_skew.rs` tests
//! everything else on such instances. Code inside an instance cannot depend on its clock: clippy
//! forbids reading it where decisions are made.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_util::sync::CancellationToken;
use usher::definition::ChangePreconditions;
use usher::http::identity::QueueVisitor;
use usher::http::merge_patch::DefinitionChange;
use usher::ids::{QueueId, UserId};
use usher::outbox::{DurabilitySettings, OutboxWriter};
use usher::partition::PartitionCount;
use usher::queue::{
    AdmissionState, Claims, Error, QueueService, QueueSettings, TokenSigner, run_promoter,
};
use usher::redis::{self, KeyBuilder, RedisClient};

use crate::support::servers::PARTITIONS;
use crate::support::skew::ClockSkew;
use crate::support::{TestStores, eventually, test_seed};

const INSTANCES: usize = 4;
const USERS: u128 = 24;
const STEPS: usize = 90;
/// Clients are never asked to poll sooner than this, so nothing is guaranteed between responses
/// that are closer together.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(900);
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

async fn put_settings(queue: &QueueService, id: &QueueId, settings: &QueueSettings) {
    let change = DefinitionChange::Replace(settings.clone());
    queue.change(id, change, &ChangePreconditions::default()).await.unwrap();
}

/// The widest limits of any settings of a run. The guarantees are checked against these.
#[derive(Debug)]
struct PromisedBounds {
    per_interval: u64,
    interval_ms: i64,
    max_active: u64,
}

struct ReportedTicket {
    at: Instant,
    score: u64,
    position: u64,
}

struct RandomWalk {
    seed: u64,
    id: QueueId,
    random: StdRng,
    queues: Vec<Arc<QueueService>>,
    bounds: PromisedBounds,
    settings: QueueSettings,
    tokens: HashMap<UserId, Claims>,
    /// Tickets that users received while waiting.
    reported: HashMap<UserId, Vec<ReportedTicket>>,
}

impl RandomWalk {
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
        let bounds = PromisedBounds {
            per_interval: settings.promote_per_interval.into(),
            interval_ms: settings.interval_ms.into(),
            max_active: settings.max_active.into(),
        };
        let id: QueueId = format!("run-{seed}").parse().unwrap();
        put_settings(&queues[0], &id, &settings).await;
        for queue in &queues[1..] {
            queue.reload().await.unwrap();
        }
        let (tokens, reported) = (HashMap::new(), HashMap::new());
        Self { seed, id, random, queues, bounds, settings, tokens, reported }
    }

    async fn walk(mut self) -> (QueueId, u64, PromisedBounds) {
        for _ in 0..STEPS {
            let user: UserId = uuid::Uuid::from_u128(self.random.random_range(1..=USERS)).into();
            let queue = self.queues[self.random.random_range(0..INSTANCES)].clone();
            match self.random.random_range(0..100) {
                0..45 => self.join(&queue, user).await,
                45..80 => self.poll(&queue, user).await,
                80..98 => self.leave(&queue, user).await,
                _ => self.change(&queue).await,
            }
            // Users pause about as long as the promoters, so that promotions fall between their
            // steps.
            let pause = self.random.random_range(0..45);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        (self.id, self.seed, self.bounds)
    }

    async fn join(&mut self, queue: &Arc<QueueService>, user: UserId) {
        let visitor = QueueVisitor { name: user.into(), is_guest: false };
        let (place, fresh) = match queue.join(&self.id, &visitor).await {
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
            self.reported.remove(&user);
        }
    }

    async fn change(&mut self, queue: &Arc<QueueService>) {
        self.settings.promote_per_interval = self.random.random_range(1..5);
        self.settings.max_active = self.random.random_range(1..8);
        self.bounds.per_interval =
            self.bounds.per_interval.max(self.settings.promote_per_interval.into());
        self.bounds.max_active = self.bounds.max_active.max(self.settings.max_active.into());
        put_settings(queue, &self.id, &self.settings).await;
    }

    /// Compares a ticket with the user's earlier ones, and the queue with its limits.
    fn hear(&mut self, user: UserId, place: &usher::queue::Ticket) {
        let Self { seed, bounds, .. } = self;
        assert!(
            place.queue_state.active <= bounds.max_active,
            "seed {seed}: {:?} above {bounds:?}",
            place.queue_state
        );
        let AdmissionState::Waiting { position: Some(position) } = place.admission else { return };
        let score = place.claims.score;
        let reported = self.reported.entry(user).or_default();
        reported.retain(|reported| reported.score == score);
        for before in reported.iter().filter(|reported| reported.at.elapsed() >= MIN_POLL_INTERVAL)
        {
            assert!(
                position <= before.position,
                "seed {seed}: {user} had position {}, then {position}",
                before.position
            );
        }
        reported.push(ReportedTicket { at: Instant::now(), score, position });
    }
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

/// Compares all promotions, in their order, with the limits.
async fn check_promotions(
    stores: &TestStores,
    (queue, seed, bounds): &(QueueId, u64, PromisedBounds),
) -> u64 {
    let rows: Vec<(i64, i64, u32, chrono::NaiveDateTime)> = sqlx::query_as(
        "SELECT from_score, to_score, count, promoted_at FROM promotions WHERE queue_id = ? ORDER \
             BY n, idx",
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
            "seed {seed}: {let_in} promotions within an interval, {bounds:?}"
        );
    }
    rows.iter().map(|row| u64::from(row.2)).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_keeps_its_guarantees_under_random_use() {
    let runs: u64 = std::env::var("USHER_MODEL_RUNS").ok().map_or(48, |runs| runs.parse().unwrap());
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

/// Runs the seeds from `first` on new instances. Returns the number of promotions.
async fn walk_seeds(first: u64, runs: u64) -> u64 {
    let stores = TestStores::new().await;
    let stop = CancellationToken::new();
    let mut skewed = Vec::new();
    if let Some(skew) = ClockSkew::new() {
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
        async move { RandomWalk::new(seed, queues).await.walk().await }
    });
    let walked: Vec<_> =
        futures::stream::iter(walks).buffer_unordered(CONCURRENT_RUNS).collect().await;
    let all: Vec<_> = redis.keys().partitions().all().collect();
    eventually("an empty outbox", async || {
        (redis.outbox_backlogs(&all).await.unwrap().iter().sum::<u64>() == 0).then_some(())
    })
    .await;
    let mut let_in = 0;
    for run in &walked {
        assert_eq!(users_waiting_and_active(&stores, &run.0).await, 0, "seed {}", run.1);
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
