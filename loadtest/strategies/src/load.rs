//! The load, equal for all strategies: a closed loop of clients with one request in flight each,
//! spread over all instances.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::BoxError;
use crate::naive_service::NaiveService;
use crate::usher_state::UsherState;
use crate::work_item::{LockStrategy, WorkAnswer, WorkFailure, WorkItem};

const CLIENT_COUNT: usize = 100;
/// Amount of each charge and each use.
const MOVED_AMOUNT: i64 = 100;
/// A strategy that is done earlier gets another round, up to [`MAX_ROUNDS`].
const MIN_MEASURED_TIME: Duration = Duration::from_millis(1_500);
const MAX_ROUNDS: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum WorkloadKind {
    /// 3,000 charges and 3,000 uses of one wallet
    Wallet,
    /// 3,000 charges and 3,000 uses of 100 wallets
    Wallets,
    /// One user requests a token 100 times concurrently
    Token,
    /// 5,000 users request 500 coupons, every tenth user twice concurrently
    Coupon,
}

impl WorkloadKind {
    pub(crate) const ALL: [Self; 4] = [Self::Wallet, Self::Wallets, Self::Token, Self::Coupon];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Wallet => "One wallet: 3,000 charges, 3,000 uses",
            Self::Wallets => "A hundred wallets: 3,000 charges, 3,000 uses",
            Self::Token => "One user requests a token 100 times",
            Self::Coupon => "500 coupons, 5,000 users",
        }
    }

    /// How long one strategy may send new requests.
    fn time_limit(self) -> Duration {
        Duration::from_secs(match self {
            Self::Wallet => 6,
            Self::Wallets | Self::Coupon => 5,
            Self::Token => 2,
        })
    }

    fn round(self) -> LoadRound {
        match self {
            Self::Wallet => LoadRound::wallets(1, 6_000),
            Self::Wallets => LoadRound::wallets(100, 6_000),
            Self::Token => LoadRound::token(100),
            Self::Coupon => LoadRound::coupon(500, 5_000),
        }
    }

    /// A small round that warms up connections and statements.
    fn warmup(self) -> LoadRound {
        match self {
            Self::Wallet | Self::Wallets => LoadRound::wallets(100, 300),
            Self::Token => LoadRound::token(100),
            Self::Coupon => LoadRound::coupon(150, 300),
        }
    }
}

/// Requests, and the users or the coupon that they are about. Each round uses new ones.
#[derive(Debug, Clone)]
pub(crate) struct LoadRound {
    pub(crate) users: Range<u64>,
    /// Coupon and quota.
    pub(crate) coupon: Option<(u64, u64)>,
    /// In the order in which they are sent.
    pub(crate) items: Vec<WorkItem>,
}

/// The first of a million unused numbers.
fn unused_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1_000_000);
    NEXT.fetch_add(1_000_000, Ordering::Relaxed)
}

impl LoadRound {
    /// Alternating charges and uses.
    pub(crate) fn wallets(wallets: u64, moves: u64) -> Self {
        let first = unused_number();
        let item = |number| WorkItem::Move {
            user: first + number / 2 % wallets,
            amount: if number % 2 == 0 { MOVED_AMOUNT } else { -MOVED_AMOUNT },
        };
        Self { users: first..first + wallets, coupon: None, items: (0..moves).map(item).collect() }
    }

    pub(crate) fn token(requests: usize) -> Self {
        let user = unused_number();
        let items = vec![WorkItem::Token { user }; requests];
        Self { users: user..user + 1, coupon: None, items }
    }

    /// Every tenth user requests twice.
    pub(crate) fn coupon(quota: u64, users: u64) -> Self {
        let coupon = unused_number();
        let requests = |user| {
            let count = if user % 10 == 0 { 2 } else { 1 };
            std::iter::repeat_n(WorkItem::Issue { coupon, user }, count)
        };
        let items = (coupon..coupon + users).flat_map(requests).collect();
        Self { users: 0..0, coupon: Some((coupon, quota)), items }
    }

    pub(crate) fn moves_money(&self) -> bool {
        matches!(self.items.first(), Some(WorkItem::Move { .. }))
    }
}

/// What the clients were answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct AnswerTally {
    pub(crate) sent: u64,
    /// Requests that made a change.
    pub(crate) done: u64,
    /// Latencies of all correct answers.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) failures: BTreeMap<WorkFailure, u64>,
}

impl AnswerTally {
    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.done += other.done;
        self.latencies.extend(other.latencies);
        for (failure, count) in other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
    }
}

/// Anomalies found in the stored state after a round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AnomalyCounts {
    /// Confirmed balance changes that are not stored.
    pub(crate) lost: u64,
    /// Coupons issued above the quota.
    pub(crate) above_quota: u64,
    /// Second tokens or coupons of one user.
    pub(crate) duplicates: u64,
    /// Coupons left over. Not an error.
    pub(crate) unsold: u64,
}

impl AnomalyCounts {
    /// By the number of stored issues and of their owners.
    pub(crate) fn of_coupon(rows: u64, owners: u64, quota: u64) -> Self {
        Self {
            above_quota: rows.saturating_sub(quota),
            duplicates: rows - owners,
            unsold: quota.saturating_sub(rows),
            ..Self::default()
        }
    }

    pub(crate) fn errors(&self) -> u64 {
        self.lost + self.above_quota + self.duplicates
    }

    fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.above_quota += other.above_quota;
        self.duplicates += other.duplicates;
        self.unsold += other.unsold;
    }
}

/// Where a strategy stores its state.
#[derive(Clone)]
pub(crate) enum StoredState {
    Naive(NaiveService),
    Usher(Arc<UsherState>),
}

impl StoredState {
    pub(crate) async fn prepare(&self, round: &LoadRound) -> Result<(), BoxError> {
        match self {
            Self::Naive(service) => service.prepare(round).await,
            Self::Usher(state) => state.prepare(round).await,
        }
    }

    /// Waits until MySQL has all confirmed changes.
    pub(crate) async fn wait_until_written(
        &self,
        round: &LoadRound,
        tally: &AnswerTally,
    ) -> Result<(), BoxError> {
        match self {
            Self::Naive(_) => Ok(()),
            Self::Usher(state) => state.wait_until_written(round, tally).await,
        }
    }

    pub(crate) async fn find_anomalies(
        &self,
        round: &LoadRound,
        tally: &AnswerTally,
    ) -> Result<AnomalyCounts, BoxError> {
        match self {
            Self::Naive(service) => service.find_anomalies(round, tally).await,
            Self::Usher(state) => state.find_anomalies(round, tally).await,
        }
    }
}

/// A strategy with all its instances.
pub(crate) struct ComparedStrategy {
    pub(crate) name: &'static str,
    pub(crate) instances: Vec<Arc<dyn LockStrategy>>,
    pub(crate) state: StoredState,
}

/// Result of one strategy under one workload, over all rounds.
#[derive(Debug, Clone)]
pub(crate) struct StrategyOutcome {
    pub(crate) name: &'static str,
    pub(crate) tally: AnswerTally,
    pub(crate) elapsed: Duration,
    /// Time from the last answer until MySQL had all changes.
    pub(crate) write_delay: Duration,
    pub(crate) anomalies: AnomalyCounts,
}

impl StrategyOutcome {
    /// Correct answers per second.
    pub(crate) fn rate(&self) -> f64 {
        self.tally.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// The same, until MySQL had all changes.
    pub(crate) fn written_rate(&self) -> f64 {
        self.tally.latencies.len() as f64 / (self.elapsed + self.write_delay).as_secs_f64()
    }

    /// Share of requests that got a correct answer.
    pub(crate) fn answered_share(&self) -> f64 {
        self.tally.latencies.len() as f64 / self.tally.sent.max(1) as f64
    }

    pub(crate) fn latency_ms(&self, quantile: f64) -> f64 {
        let mut latencies = self.tally.latencies.clone();
        latencies.sort_unstable();
        let rank = (quantile * latencies.len() as f64).ceil().max(1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number from 1 to the number of samples"
        )]
        let index = rank as usize - 1;
        latencies.get(index).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }
}

impl ComparedStrategy {
    pub(crate) async fn measure(&self, kind: WorkloadKind) -> Result<StrategyOutcome, BoxError> {
        let warmup = kind.warmup();
        self.state.prepare(&warmup).await?;
        let (tally, _) = self.run_round(&warmup, Instant::now() + Duration::from_secs(1)).await?;
        self.state.wait_until_written(&warmup, &tally).await?;

        let mut outcome = StrategyOutcome {
            name: self.name,
            tally: AnswerTally::default(),
            elapsed: Duration::ZERO,
            write_delay: Duration::ZERO,
            anomalies: AnomalyCounts::default(),
        };
        for _ in 0..MAX_ROUNDS {
            let round = kind.round();
            self.state.prepare(&round).await?;
            let deadline = Instant::now() + kind.time_limit().saturating_sub(outcome.elapsed);
            let (tally, elapsed) = self.run_round(&round, deadline).await?;
            outcome.elapsed += elapsed;
            let answered = Instant::now();
            self.state.wait_until_written(&round, &tally).await?;
            outcome.write_delay += answered.elapsed();
            outcome.anomalies.add(self.state.find_anomalies(&round, &tally).await?);
            outcome.tally.add(tally);
            if outcome.elapsed >= MIN_MEASURED_TIME {
                break;
            }
        }
        Ok(outcome)
    }

    /// Sends the requests of a round until the last one or the deadline, and waits for all answers.
    pub(crate) async fn run_round(
        &self,
        round: &LoadRound,
        deadline: Instant,
    ) -> Result<(AnswerTally, Duration), BoxError> {
        let items: Arc<[WorkItem]> = round.items.clone().into();
        let next = Arc::new(AtomicUsize::new(0));
        let start = Instant::now();
        let clients: Vec<_> = (0..CLIENT_COUNT)
            .map(|client| {
                let instance = self.instances[client % self.instances.len()].clone();
                tokio::spawn(run_client(instance, items.clone(), next.clone(), deadline))
            })
            .collect();
        let mut tally = AnswerTally::default();
        for client in clients {
            tally.add(client.await?);
        }
        Ok((tally, start.elapsed()))
    }
}

async fn run_client(
    instance: Arc<dyn LockStrategy>,
    items: Arc<[WorkItem]>,
    next: Arc<AtomicUsize>,
    deadline: Instant,
) -> AnswerTally {
    let mut tally = AnswerTally::default();
    while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
        let sent = Instant::now();
        if sent > deadline {
            break;
        }
        tally.sent += 1;
        match instance.execute(item).await {
            Ok(answer) => {
                tally.latencies.push(sent.elapsed());
                tally.done += u64::from(answer == WorkAnswer::Done);
            }
            Err(failure) => *tally.failures.entry(failure).or_default() += 1,
        }
    }
    tally
}
