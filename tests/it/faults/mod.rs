//! Faults on real processes: users book, pay and collect coupons on two instances while servers are
//! killed, frozen, cut off, filled up and rolled back. Afterwards all invariants must hold.
//!
//! A round takes everything from its seed except the timing of the machine. `make chaos` runs many
//! rounds: `CHAOS_ROUNDS` from `USHER_TEST_SEED` on, `CHAOS_LANES` at once, each lane with its own
//! servers. A round that fails prints its seed.

mod clock_skew;
mod cluster_moves;
mod environment;
mod failover;
mod failpoints;
pub(crate) mod histories;
mod injection;
mod invariants;
mod moving_concert;
mod promotions_failpoints;
mod promotions_kill;
mod relay;
mod sentinel;
mod two_replicas;
mod workload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::coupons::payments::coupon;
use crate::support::skew::ClockSkew;
use crate::support::{ApiClient, CONCERT, SCHEDULE, eventually, test_seed};
use environment::{ChaosLane, ChaosSite};
use injection::ChaosFault;
use workload::{COUPON, REWARD, SHORT_CONCERT, SHORT_SCHEDULE, WorkloadLog};

/// Time for everything to settle once the faults are over.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Successful calls that a round needs to prove anything.
const MIN_SUCCESSES: usize = 50;

/// A round: its faults, drawn or given. Everything else comes from the seed.
struct ChaosRound {
    seed: u64,
    faults: Vec<ChaosFault>,
    /// Time of the workload before the faults end.
    long: Duration,
}

impl ChaosRound {
    /// One to three random faults.
    fn drawn(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let many = random.random_range(1..=3);
        let mut faults: Vec<ChaosFault> =
            (0..many).map(|_| *ChaosFault::ANY.choose(&mut random).unwrap()).collect();
        if faults.contains(&ChaosFault::MysqlTakenBack) {
            // What both stores lose is lost, and a Redis without memory keeps no entries with which
            // MySQL could be healed.
            faults.retain(|fault| !fault.takes_back() && *fault != ChaosFault::NoMemory);
        }
        Self { seed, faults, long: Duration::from_millis(random.random_range(2_000..4_000)) }
    }

    async fn play(&self, lane: &ChaosLane) -> String {
        let mut random = SmallRng::seed_from_u64(self.seed ^ 1);
        let dir =
            lane.dir.path().join(format!("redis-{}-{}", self.seed, uuid::Uuid::new_v4().simple()));
        let small =
            self.faults.contains(&ChaosFault::DiskFull).then(|| SmallDisk::mount(&dir)).flatten();
        let moves_clock = self.faults.contains(&ChaosFault::RedisClockMoved);
        let skew = moves_clock.then(ClockSkew::new).flatten();
        let site = Box::pin(ChaosSite::open(lane, dir.clone(), 2, skew)).await;
        // A step back across the opening would make users entrants again.
        let steady = !self.faults.contains(&ChaosFault::RedisClockMoved);
        let draw_in = TimeDelta::seconds(if steady { 2 } else { -3_600 });
        Box::pin(set_up_sale(&site, draw_in)).await;
        let log = Arc::new(WorkloadLog::default());
        let (stop, done) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
        let began = Instant::now();
        let struck = async {
            let strikes = self.faults.iter().map(|fault| {
                let mut random = SmallRng::seed_from_u64(random.random());
                let site = &site;
                async move {
                    sleep(Duration::from_millis(random.random_range(400..1_200))).await;
                    Box::pin(fault.strike(site, &mut random)).await;
                    Instant::now()
                }
            });
            let strikes = strikes.collect::<Vec<_>>();
            let (ended, ()) = tokio::join!(futures::future::join_all(strikes), sleep(self.long));
            Box::pin(site.repair()).await;
            ended
        };
        let watched = invariants::watch(&site, &done, &log.wrong);
        let people = workload::live(&site, log.clone(), stop.clone(), self.seed);
        let round = async {
            let ended = struck.await;
            // A little more workload, so that delayed operations are repeated. Longer on a slow
            // machine.
            sleep(Duration::from_millis(500)).await;
            let deadline = Instant::now() + SETTLE_TIMEOUT;
            while log.ok.load(Ordering::Relaxed) <= MIN_SUCCESSES && Instant::now() < deadline {
                sleep(Duration::from_millis(100)).await;
            }
            stop.store(true, Ordering::Relaxed);
            ended
        };
        let settle = async {
            let (ended, ()) = tokio::join!(round, people);
            let settled = timeout(SETTLE_TIMEOUT, settle(&site)).await.is_ok();
            done.store(true, Ordering::Relaxed);
            (ended, settled)
        };
        let ((ended, settled), looks) = tokio::join!(settle, watched);
        let mut wrong = log.wrong.lock().unwrap().clone();
        wrong.dedup();
        if settled {
            Box::pin(self.check(&site, &log, &ended, &mut wrong)).await;
        } else {
            wrong.push(format!("not settled after {SETTLE_TIMEOUT:?}: {}", unsettled(&site).await));
        }
        if looks == 0 {
            wrong.push("the queue was not watched".to_owned());
        }
        let count = |counter: &std::sync::atomic::AtomicUsize| counter.load(Ordering::Relaxed);
        let report = format!(
            "USHER_TEST_SEED={} {:?}: {} ok, {} refused, {} unknown, {} facts in {:.1} s",
            self.seed,
            self.faults,
            count(&log.ok),
            count(&log.refused),
            count(&log.unknown),
            log.facts.lock().unwrap().len(),
            began.elapsed().as_secs_f64()
        );
        assert!(count(&log.ok) > MIN_SUCCESSES, "{report}: too few calls succeeded");
        if !wrong.is_empty() {
            panic!("{report}\n{}\n{}", wrong.join("\n"), site.logs().await);
        }
        Box::pin(site.close()).await;
        drop(small);
        let _ = std::fs::remove_dir_all(&dir);
        report
    }

    /// `ended` is when each fault was over.
    async fn check(
        &self,
        site: &ChaosSite<'_>,
        log: &WorkloadLog,
        ended: &[Instant],
        wrong: &mut Vec<String>,
    ) {
        let taken_back: Vec<Instant> = self
            .faults
            .iter()
            .zip(ended)
            .filter(|(fault, _)| fault.takes_back())
            .map(|(_, ended)| *ended)
            .collect();
        let facts = log.facts.lock().unwrap().clone();
        for reported in invariants::lost(site, &facts).await {
            // Effects that were requested from the restored Redis must exist, and durable ones must
            // exist in any case.
            if reported.durable || !taken_back.iter().any(|back| reported.asked < *back) {
                wrong.push(format!("confirmed and lost: {reported:?}"));
            }
        }
        // Slots, holds and the rate are judged by the clock of Redis.
        let clock_is_steady = !self.faults.contains(&ChaosFault::RedisClockMoved);
        if !clock_is_steady {
            wrong.retain(|found| !found.contains("users were active, of at most"));
        }
        // What happened before the last loss may be lost, and places are given again.
        let last_loss = taken_back.iter().max().copied();
        wrong.extend(invariants::limits(site, last_loss.is_none(), clock_is_steady).await);
        wrong.extend(invariants::liveness(site).await);
        if last_loss.is_none() && clock_is_steady {
            wrong.extend(invariants::draws(site).await);
        }
        let report = site.stores.audit_command(Duration::from_secs(20)).await;
        for found in report.checks.iter().filter(|found| !found.ok) {
            wrong.push(format!("{}: {}", found.name, found.detail));
        }
        if clock_is_steady {
            wrong.extend(invariants::shared_seats(log, last_loss));
            wrong.extend(invariants::histories(log, last_loss, |_| true).0);
        }
        if wrong.is_empty() {
            site.stores.audit().await;
        }
    }
}

/// A disk of a few megabytes for Redis, if mounting is allowed. Otherwise its fault does nothing.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(dir: &std::path::Path) -> Option<Self> {
        std::fs::create_dir_all(dir).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=12m,mode=700", "tmpfs"])
            .arg(dir)
            .output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        if mounted {
            std::fs::write(dir.join("small"), "").unwrap();
        } else {
            eprintln!("no small disk can be mounted here: DiskFull does nothing");
        }
        mounted.then(|| Self(dir.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A concert with a narrow queue, one whose holds expire at once, a coupon and a reward.
async fn set_up_sale(site: &ChaosSite<'_>, draw_in: TimeDelta) {
    let api = ApiClient::new(
        site.seats.iter().map(|seat| seat.address.read().unwrap().clone()).collect(),
    );
    let queue = json!({"promote_per_interval": workload::PER_INTERVAL,
        "interval_ms": workload::INTERVAL_MS, "max_active": workload::MAX_ACTIVE,
        "active_seconds": 4, "claim_seconds": 2, "restore_seconds": 1});
    api.put(&format!("/admin/queues/{CONCERT}"), &queue).await.expect(200);
    let raffle = workload::draw_settings(Utc::now() + draw_in);
    api.put(&format!("/admin/queues/{}", workload::RAFFLE), &raffle).await.expect(200);
    let date = |id: &str| {
        json!({"id": id, "starts_at": "2100-01-01T19:00:00.000Z", "sections": [
        {"name": "A", "from": 1, "to": workload::SEATS, "price": workload::PRICE}]})
    };
    let show = json!({"title": "The show", "queue_id": CONCERT, "max_seats_per_user": 100,
        "schedules": [date(SCHEDULE)]});
    api.put(&format!("/admin/concerts/{CONCERT}"), &show).await.expect(200);
    let brief = json!({"title": "Brief", "queue_id": CONCERT, "max_seats_per_user": 100,
        "hold_seconds": 1, "schedules": [date(SHORT_SCHEDULE)]});
    api.put(&format!("/admin/concerts/{SHORT_CONCERT}"), &brief).await.expect(200);
    let mut off = coupon(300, workload::PRICE);
    off["total_quantity"] = json!(workload::QUOTA);
    api.put(&format!("/admin/coupons/{COUPON}"), &off).await.expect(200);
    let reward = json!({"title": "Hello", "starts_at": "2020-01-01T00:00:00Z",
        "ends_at": "2100-01-01T00:00:00Z", "active": true,
        "conditions": [], "reward": {"kind": "points", "amount": 2_000}});
    api.put(&format!("/admin/rewards/{REWARD}"), &reward).await.expect(200);
    for at in 0..api.instances() {
        for path in [
            format!("/v1/queues/{CONCERT}"),
            format!("/v1/concerts/{SHORT_CONCERT}"),
            format!("/v1/coupons/{COUPON}"),
            format!("/v1/rewards/{REWARD}"),
        ] {
            let api = api.for_instance(at);
            eventually(&path, || async {
                (api.get(&path).send().await.status == 200).then_some(())
            })
            .await;
        }
    }
}

/// Every instance is ready, no payment is under way, and MySQL has everything.
async fn settle(site: &ChaosSite<'_>) {
    while !unsettled(site).await.is_empty() {
        injection::make_overdue(site).await;
        sleep(Duration::from_millis(100)).await;
    }
}

async fn unsettled(site: &ChaosSite<'_>) -> String {
    let http = reqwest::Client::new();
    for seat in &site.seats {
        let url = format!("{}/readyz?strict=true", seat.address.read().unwrap()[0]);
        match http.get(url).timeout(Duration::from_secs(3)).send().await {
            Ok(answer) if answer.status() == 200 => {}
            Ok(answer) => {
                return format!(
                    "an instance is not ready: {}",
                    answer.text().await.unwrap_or_default()
                );
            }
            Err(error) => return format!("an instance does not respond: {error}"),
        }
    }
    let mut redis = site.stores.redis().await;
    let due = site.stores.key(site.stores.partition_of(CONCERT), &format!("q:{CONCERT}:due"));
    if redis.ask(&["ZCARD", &due]).await.int() > 0 {
        return "a payment has no end".to_owned();
    }
    for partition in 0..crate::support::servers::PARTITIONS {
        if site.stores.backlog(&mut redis, partition).await > 0 {
            return format!("the outbox of {partition} is not written");
        }
    }
    let settling =
        "SELECT COUNT(*) FROM recoveries WHERE laid_at IS NOT NULL AND settled_at IS NULL";
    match site.stores.count(settling).await {
        0 => String::new(),
        more => format!("partitions are not reconciled after {more} recoveries"),
    }
}

/// Each fault in its own round, under the name of its row in docs/failure-modes.md.
macro_rules! one_fault_each {
    ($($name:ident: $fault:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let seed = test_seed();
            let long = Duration::from_millis(2_500);
            let round = ChaosRound { seed, faults: vec![ChaosFault::$fault], long };
            let lane = ChaosLane::open().await;
            eprintln!("{}", Box::pin(round.play(&lane)).await);
        }
    )*};
}

one_fault_each! {
    an_instance_is_killed: InstanceKilled,
    an_instance_is_frozen: InstanceFrozen,
    an_instance_dies_at_an_edge_of_a_payment: InstanceKilledAtAnEdge,
    redis_is_killed: RedisKilled,
    redis_is_frozen: RedisFrozen,
    the_end_of_redis_file_is_cut_off: AofTailCut,
    redis_comes_back_empty: RedisEmptied,
    redis_comes_back_stale: OlderAof,
    a_lagging_replica_takes_over: LaggingReplica,
    redis_forgets_its_scripts: ScriptsFlushed,
    redis_has_no_memory_left: NoMemory,
    the_disk_of_redis_is_full: DiskFull,
    redis_lacks_its_replicas: NoReplicas,
    redis_is_cut_off: RedisCutOff,
    redis_answers_late: RedisDelayed,
    redis_replies_are_swallowed: RedisRepliesSwallowed,
    replies_of_redis_are_lost: RedisRepliesLost,
    requests_to_redis_are_lost: RedisRequestsLost,
    redis_clock_is_moved: RedisClockMoved,
    mysql_is_killed: MysqlKilled,
    mysql_is_frozen: MysqlFrozen,
    mysql_is_cut_off: MysqlCutOff,
    commits_of_mysql_are_lost: MysqlCommitsLost,
    rows_of_mysql_are_locked: MysqlRowsLocked,
    mysql_is_taken_back: MysqlTakenBack,
    every_payment_is_overdue: PaymentsOverdue,
    a_concert_moves_between_queues: ConcertMoved,
}

/// Random rounds: one in `make test`, many in `make chaos`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos() {
    let number =
        |name: &str, usual: u64| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (first, rounds, lanes) = (test_seed(), number("CHAOS_ROUNDS", 1), number("CHAOS_LANES", 1));
    let play = async |nth: u64| {
        let lane = ChaosLane::open().await;
        for round in (nth..rounds).step_by(usize::try_from(lanes).unwrap()) {
            let round = ChaosRound::drawn(first.wrapping_add(round));
            eprintln!("{}", Box::pin(round.play(&lane)).await);
        }
    };
    futures::future::join_all((0..lanes).map(play)).await;
}
