//! The load, the same for every strategy: closed loop, so many clients with one request under way each, in turn on all instances.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::Failure;
use crate::shop::Shop;
use crate::usher_books::UsherBooks;
use crate::work::{Answer, Failed, Strategy, Work};

/// Requests under way.
pub(crate) const CLIENTS: usize = 100;
/// What a charge puts in and a use takes out.
const AMOUNT: i64 = 100;

/// What the table compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Workload {
    /// 3,000 charges and 3,000 uses of one wallet
    Wallet,
    /// 3,000 charges and 3,000 uses over 100 wallets
    Wallets,
    /// One user asks 100 times at once for their token
    Token,
    /// 5,000 users ask for 500 coupons, every tenth of them twice at once
    Coupon,
}

impl Workload {
    /// Its title.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Wallet => "One wallet: 3,000 charges, 3,000 uses",
            Self::Wallets => "A hundred wallets: 3,000 charges, 3,000 uses",
            Self::Token => "Token × 100 of one user",
            Self::Coupon => "500 coupons, 5,000 users",
        }
    }

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wallet => "wallet",
            Self::Wallets => "wallets",
            Self::Token => "token",
            Self::Coupon => "coupon",
        }
    }

    /// How long new requests are sent, at most, for one strategy.
    fn within(self) -> Duration {
        Duration::from_secs(match self {
            Self::Wallet => 6,
            Self::Wallets | Self::Coupon => 5,
            Self::Token => 2,
        })
    }

    /// A round of it.
    pub(crate) fn round(self) -> Round {
        match self {
            Self::Wallet => Round::wallets(1, 6_000),
            Self::Wallets => Round::wallets(100, 6_000),
            Self::Token => Round::token(100),
            Self::Coupon => Round::coupon(500, 5_000),
        }
    }

    /// What warms connections and statements up: the same work on a few things of its own, too little to wait for.
    fn warming(self) -> Round {
        match self {
            Self::Wallet | Self::Wallets => Round::wallets(100, 300),
            Self::Token => Round::token(100),
            Self::Coupon => Round::coupon(150, 300),
        }
    }
}

/// Requests with what they are about: nothing of it was there before.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    /// Users with a wallet.
    pub(crate) accounts: Range<u64>,
    /// A coupon and how many there are.
    pub(crate) coupon: Option<(u64, u64)>,
    /// In the order in which they are sent.
    pub(crate) works: Vec<Work>,
}

/// The first of a million numbers that no round has used: a multiple of ten.
fn fresh() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1_000_000);
    NEXT.fetch_add(1_000_000, Ordering::Relaxed)
}

impl Round {
    /// Charges and uses in turn, over so many wallets.
    pub(crate) fn wallets(wallets: u64, moves: u64) -> Self {
        let first = fresh();
        let work = |n| Work::Move {
            // Charge and use go to the same wallet one after the other.
            user: first + n / 2 % wallets,
            amount: if n % 2 == 0 { AMOUNT } else { -AMOUNT },
        };
        Self { accounts: first..first + wallets, coupon: None, works: (0..moves).map(work).collect() }
    }

    /// One user who asks so often.
    pub(crate) fn token(times: usize) -> Self {
        let user = fresh();
        Self { accounts: user..user + 1, coupon: None, works: vec![Work::Token { user }; times] }
    }

    /// So many coupons for so many users, of whom every tenth asks twice.
    pub(crate) fn coupon(quota: u64, users: u64) -> Self {
        let coupon = fresh();
        let asks =
            |user| std::iter::repeat_n(Work::Issue { coupon, user }, if user % 10 == 0 { 2 } else { 1 });
        let works = (coupon..coupon + users).flat_map(asks).collect();
        Self { accounts: 0..0, coupon: Some((coupon, quota)), works }
    }

    /// Whether it is about money.
    pub(crate) fn moves_money(&self) -> bool {
        matches!(self.works.first(), Some(Work::Move { .. }))
    }
}

/// What clients were told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// Requests sent.
    pub(crate) asked: u64,
    /// Those whose effect is new.
    pub(crate) done: u64,
    /// How long right answers took, whatever they said.
    pub(crate) took: Vec<Duration>,
    /// Requests without an answer.
    pub(crate) failed: BTreeMap<Failed, u64>,
}

impl Tally {
    /// Adds another.
    pub(crate) fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.done += other.done;
        self.took.extend(other.took);
        for (why, count) in other.failed {
            *self.failed.entry(why).or_default() += count;
        }
    }
}

/// What was found wrong afterwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Changes of a balance that clients were told of and that are not in it.
    pub(crate) lost: u64,
    /// Coupons above the quota.
    pub(crate) above: u64,
    /// Second tokens or coupons of one user.
    pub(crate) doubled: u64,
    /// Coupons that nobody got.
    pub(crate) unsold: u64,
}

impl Verdict {
    /// By so many rows of so many users.
    pub(crate) fn of_coupons(rows: u64, owners: u64, quota: u64) -> Self {
        Self {
            above: rows.saturating_sub(quota),
            doubled: rows - owners,
            unsold: quota.saturating_sub(rows),
            ..Self::default()
        }
    }

    /// What breaks a promise. An unsold coupon is a pity.
    pub(crate) fn anomalies(&self) -> u64 {
        self.lost + self.above + self.doubled
    }

    fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.above += other.above;
        self.doubled += other.doubled;
        self.unsold += other.unsold;
    }
}

/// Where the truth about a strategy's work is found.
#[derive(Clone)]
pub(crate) enum Books {
    /// In the tables that the strategies write.
    Shop(Shop),
    /// In Usher's.
    Usher(Arc<UsherBooks>),
}

impl Books {
    /// Lays what a round needs.
    pub(crate) async fn lay(&self, round: &Round) -> Result<(), Failure> {
        match self {
            Self::Shop(shop) => shop.lay(round).await,
            Self::Usher(books) => books.lay(round).await,
        }
    }

    /// Waits until MySQL has what clients were told.
    pub(crate) async fn settle(&self, round: &Round, tally: &Tally) -> Result<(), Failure> {
        match self {
            Self::Shop(_) => Ok(()),
            Self::Usher(books) => books.settle(round, tally).await,
        }
    }

    /// Looks at what a round has left behind.
    pub(crate) async fn audit(&self, round: &Round, tally: &Tally) -> Result<Verdict, Failure> {
        match self {
            Self::Shop(shop) => shop.audit(round, tally).await,
            Self::Usher(books) => books.audit(round, tally).await,
        }
    }
}

/// A strategy in all its instances.
pub(crate) struct Contender {
    /// What it is called.
    pub(crate) name: &'static str,
    /// Each as one process would have it.
    pub(crate) instances: Vec<Arc<dyn Strategy>>,
    /// What tells whether it was right.
    pub(crate) books: Books,
}

/// What came of one strategy under one load.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// Whose it is.
    pub(crate) name: &'static str,
    /// What clients were told, over all rounds.
    pub(crate) tally: Tally,
    /// The time of all rounds.
    pub(crate) elapsed: Duration,
    /// How long after the last answer MySQL had everything, over all rounds.
    pub(crate) settling: Duration,
    /// What was found wrong, over all rounds.
    pub(crate) verdict: Verdict,
}

impl Outcome {
    /// Right answers a second.
    pub(crate) fn rate(&self) -> f64 {
        self.tally.took.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// The same until the last of them was in MySQL.
    pub(crate) fn settled_rate(&self) -> f64 {
        self.tally.took.len() as f64 / (self.elapsed + self.settling).as_secs_f64()
    }

    /// The share of requests that were answered.
    pub(crate) fn success(&self) -> f64 {
        self.tally.took.len() as f64 / self.tally.asked.max(1) as f64
    }

    /// The time within which this share of the right answers came, in milliseconds.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let mut took = self.tally.took.clone();
        took.sort_unstable();
        let rank = (share * took.len() as f64).ceil().max(1.0);
        // The rank of a sample is a whole number that fits.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        took.get(rank as usize - 1).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
    }
}

/// The least time to measure: what is done before begins anew with fresh things, at most [`ROUNDS`] times.
const AT_LEAST: Duration = Duration::from_millis(1_500);
const ROUNDS: usize = 10;

impl Contender {
    /// Puts one load on it.
    pub(crate) async fn face(&self, workload: Workload) -> Result<Outcome, Failure> {
        let warming = workload.warming();
        self.books.lay(&warming).await?;
        let (tally, _) = self.drive(&warming, Instant::now() + Duration::from_secs(1)).await?;
        self.books.settle(&warming, &tally).await?;

        let mut outcome = Outcome {
            name: self.name,
            tally: Tally::default(),
            elapsed: Duration::ZERO,
            settling: Duration::ZERO,
            verdict: Verdict::default(),
        };
        for _ in 0..ROUNDS {
            let round = workload.round();
            self.books.lay(&round).await?;
            let deadline = Instant::now() + workload.within().saturating_sub(outcome.elapsed);
            let (tally, elapsed) = self.drive(&round, deadline).await?;
            outcome.elapsed += elapsed;
            let answered = Instant::now();
            self.books.settle(&round, &tally).await?;
            outcome.settling += answered.elapsed();
            outcome.verdict.add(self.books.audit(&round, &tally).await?);
            outcome.tally.add(tally);
            if outcome.elapsed >= AT_LEAST {
                break;
            }
        }
        Ok(outcome)
    }

    /// Sends a round's requests until they are through or it is late, and waits for all answers.
    pub(crate) async fn drive(&self, round: &Round, deadline: Instant) -> Result<(Tally, Duration), Failure> {
        let works: Arc<[Work]> = round.works.clone().into();
        let next = Arc::new(AtomicUsize::new(0));
        let start = Instant::now();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let instance = self.instances[client % self.instances.len()].clone();
                tokio::spawn(one_client(instance, works.clone(), next.clone(), deadline))
            })
            .collect();
        let mut tally = Tally::default();
        for client in clients {
            tally.add(client.await?);
        }
        Ok((tally, start.elapsed()))
    }
}

async fn one_client(
    instance: Arc<dyn Strategy>,
    works: Arc<[Work]>,
    next: Arc<AtomicUsize>,
    deadline: Instant,
) -> Tally {
    let mut tally = Tally::default();
    while let Some(work) = works.get(next.fetch_add(1, Ordering::Relaxed)) {
        let sent = Instant::now();
        if sent > deadline {
            break;
        }
        tally.asked += 1;
        match instance.work(work).await {
            Ok(answer) => {
                tally.took.push(sent.elapsed());
                tally.done += u64::from(answer == Answer::Done);
            }
            Err(why) => *tally.failed.entry(why).or_default() += 1,
        }
    }
    tally
}
