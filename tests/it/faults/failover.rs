//! The workload on a Redis Cluster and behind Sentinels, while slots move and primaries die, freeze
//! and resume.
//!
//! Every write waits for all replicas of its primary (`USHER_REDIS_WAIT_REPLICAS`), so no confirmed
//! effect may be missing, whatever `USHER_ACK` is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::{sleep, timeout};

use super::environment::{ChaosLane, ChaosSite};
use super::injection::ChaosFault;
use super::workload::{self, QUEUE, WorkloadLog};
use super::{SETTLE_TIMEOUT, invariants, set_up_sale, settle, unsettled};
use crate::faults::histories::{CallKind, CallResult, RecordedCall};
use crate::support::servers::PARTITIONS;
use crate::support::{RedisCluster, SentinelGroup, test_seed};

/// Responses so far.
#[derive(Debug, Clone, Copy)]
struct ResponseCounts {
    ok: usize,
    unknown: usize,
}

fn response_counts(log: &WorkloadLog) -> ResponseCounts {
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    ResponseCounts { ok: count(&log.ok), unknown: count(&log.unknown) }
}

/// Whether a call changed something, or may have. A read or a refusal may depend on a write that no
/// replica had yet and that is lost with its primary.
fn changes(call: &RecordedCall) -> bool {
    call.op != CallKind::Read && !matches!(call.end, Some((_, CallResult::Refused)))
}

/// Runs the workload before, during and after `strike`, then checks all invariants. Returns the
/// responses meanwhile.
async fn play(
    name: &str,
    seed: u64,
    site: ChaosSite<'_>,
    strike: impl AsyncFnOnce(&ChaosSite<'_>, &WorkloadLog, &mut SmallRng),
) {
    let mut random = SmallRng::seed_from_u64(seed ^ 1);
    Box::pin(set_up_sale(&site, chrono::TimeDelta::seconds(2))).await;
    let log = Arc::new(WorkloadLog::default());
    let (stop, done) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
    let round = async {
        sleep(Duration::from_millis(800)).await;
        let (before, began) = (response_counts(&log), Instant::now());
        strike(&site, &log, &mut random).await;
        let (after, took) = (response_counts(&log), began.elapsed());
        // A little more workload, so that delayed operations are repeated.
        sleep(Duration::from_millis(800)).await;
        stop.store(true, Ordering::Relaxed);
        (after.ok - before.ok, after.unknown - before.unknown, took)
    };
    let people = workload::live(&site, log.clone(), stop.clone(), seed);
    let settled = async {
        let (reported, ()) = tokio::join!(round, people);
        let settled = timeout(SETTLE_TIMEOUT * 2, settle(&site)).await.is_ok();
        done.store(true, Ordering::Relaxed);
        (reported, settled)
    };
    let watched = invariants::watch(&site, &done, &log.wrong);
    let (((ok, unknown, took), settled), looks) = tokio::join!(settled, watched);
    let mut wrong = log.wrong.lock().unwrap().clone();
    if settled {
        let facts = log.facts.lock().unwrap().clone();
        let lost = invariants::lost(&site, &facts).await;
        wrong.extend(lost.iter().map(|reported| format!("confirmed and lost: {reported:?}")));
        wrong.extend(invariants::limits(&site, true, true).await);
        let report = site.stores.audit_command(Duration::from_secs(20)).await;
        let faults = report.checks.iter().filter(|found| !found.ok);
        wrong.extend(faults.map(|found| format!("{}: {}", found.name, found.detail)));
        wrong.extend(invariants::shared_seats(&log, None));
        wrong.extend(invariants::histories(&log, None, changes).0);
    } else {
        wrong.push(format!("not settled: {}", unsettled(&site).await));
    }
    let all = response_counts(&log);
    let report = format!(
        "USHER_TEST_SEED={seed} {name}: {} ok, {} unknown in all; in the {:.1} s of it {ok} ok \
             and {unknown} unknown; {} facts",
        all.ok,
        all.unknown,
        took.as_secs_f64(),
        log.facts.lock().unwrap().len()
    );
    assert!(wrong.is_empty(), "{report}\n{}\n{}", wrong.join("\n"), site.logs().await);
    assert!(all.ok > 50 && looks > 0, "{report}: too few calls succeeded");
    site.stores.audit().await;
    Box::pin(site.close()).await;
    eprintln!("{report}");
}

/// Waits until a number of further requests succeed. Returns the time of the first one.
async fn served_again(log: &WorkloadLog, since: Instant) -> Duration {
    let before = response_counts(log).ok;
    let mut first = None;
    crate::support::within(crate::support::ELECTION_TIMEOUT, "users are served again", || {
        let ok = response_counts(log).ok;
        if ok > before && first.is_none() {
            first = Some(since.elapsed());
        }
        async move { (ok > before + 40).then_some(()) }
    })
    .await;
    first.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_and_a_primary_dies_under_load() {
    let (lane, cluster) = tokio::join!(ChaosLane::open(), RedisCluster::start());
    let site = Box::pin(ChaosSite::among(&lane, cluster.redis_nodes(), 2)).await;
    let strike = async |site: &ChaosSite<'_>, log: &WorkloadLog, random: &mut SmallRng| {
        // Every partition moves, one of them twice, under load.
        for at in 0..=PARTITIONS {
            let key = site.stores.key(at % PARTITIONS, "epoch");
            cluster.move_slot(&key, Duration::from_millis(random.random_range(0..30))).await;
        }
        let moved = response_counts(log);
        served_again(log, Instant::now()).await;
        // The primary with the queue dies and its replica takes over. Then it returns as a replica.
        let key = site.stores.key(site.stores.partition_of(QUEUE), "epoch");
        let primary = cluster.owner_of(&key).await;
        let before = response_counts(log);
        let struck = Instant::now();
        cluster.kill(primary.port).await;
        cluster.wait_until_replaced(&primary, &key).await;
        let elected = struck.elapsed();
        cluster.restart(primary.port).await;
        let first = served_again(log, struck).await;
        cluster.wait_until_healthy().await;
        eprintln!(
            "after {} unknown by moves: killed, replaced in {elected:?}, first success {first:?}, \
                 {} unknown",
            moved.unknown,
            response_counts(log).unknown - before.unknown
        );
    };
    play("a cluster", test_seed(), site, strike).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_replace_a_dead_and_a_frozen_primary_under_load() {
    let (lane, sentinels) = tokio::join!(ChaosLane::open(), SentinelGroup::start("0"));
    let site = Box::pin(ChaosSite::among(&lane, sentinels.redis_nodes(), 2)).await;
    let strike = async |_: &ChaosSite<'_>, log: &WorkloadLog, random: &mut SmallRng| {
        let primary = sentinels.primary().await.unwrap();
        let struck = Instant::now();
        sentinels.kill(primary).await;
        sentinels.wait_until_replaced(primary).await;
        let elected = struck.elapsed();
        sentinels.restart(primary).await;
        let first = served_again(log, struck).await;
        eprintln!("killed: replaced in {elected:?}, first success {first:?}");
        sentinels.wait_until_healthy().await;
        // The stale primary: it resumes after it was replaced, with commands in its buffers.
        let primary = sentinels.primary().await.unwrap();
        sentinels.freeze(primary, true).await;
        sentinels.wait_until_replaced(primary).await;
        sleep(Duration::from_millis(random.random_range(0..300))).await;
        sentinels.freeze(primary, false).await;
        sentinels.wait_until_healthy().await;
        served_again(log, Instant::now()).await;
    };
    play("Sentinels", test_seed(), site, strike).await;
}

/// Faults of instances and of MySQL that may coincide with a failover. None that needs Redis,
/// because there may be no primary.
const SIDE_FAULTS: [ChaosFault; 6] = [
    ChaosFault::InstanceKilled,
    ChaosFault::InstanceFrozen,
    ChaosFault::MysqlKilled,
    ChaosFault::MysqlFrozen,
    ChaosFault::MysqlCutOff,
    ChaosFault::MysqlCommitsLost,
];

/// Random rounds, in turn on a cluster and behind Sentinels with one and with two replicas: a tenth of `CHAOS_ROUNDS`, because
/// each takes ten times as long, and none in the suite.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_among_several() {
    let rounds = std::env::var("CHAOS_ROUNDS").map_or(0, |text| text.parse::<u64>().unwrap() / 10);
    let first = test_seed();
    for round in 0..rounds {
        let seed = first.wrapping_add(round);
        let lane = ChaosLane::open().await;
        if round % 3 == 0 {
            let cluster = RedisCluster::start().await;
            let site = Box::pin(ChaosSite::among(&lane, cluster.redis_nodes(), 2)).await;
            play(
                "chaos on a cluster",
                seed,
                site,
                async |site: &ChaosSite<'_>, log: &WorkloadLog, random: &mut SmallRng| {
                    strike_a_cluster(&cluster, site, log, random).await;
                },
            )
            .await;
        } else {
            let replicas = if round % 3 == 1 { 1 } else { 2 };
            let min_replicas = if seed % 4 == 1 { "0" } else { "1" };
            let sentinels = SentinelGroup::start_with(min_replicas, replicas).await;
            let site = Box::pin(ChaosSite::among(&lane, sentinels.redis_nodes(), 2)).await;
            play(
                "chaos behind Sentinels",
                seed,
                site,
                async |site: &ChaosSite<'_>, log: &WorkloadLog, random: &mut SmallRng| {
                    strike_behind_sentinels(&sentinels, site, log, random).await;
                },
            )
            .await;
        }
    }
}

/// Injects one of [`SIDE_FAULTS`] after a random time.
async fn inject_side_fault(site: &ChaosSite<'_>, random: &mut SmallRng) {
    let mut random = SmallRng::seed_from_u64(random.random());
    let fault = SIDE_FAULTS[random.random_range(0..SIDE_FAULTS.len())];
    sleep(Duration::from_millis(random.random_range(0..4_000))).await;
    eprintln!("side fault: {fault:?}");
    Box::pin(fault.strike(site, &mut random)).await;
}

async fn strike_a_cluster(
    cluster: &RedisCluster,
    site: &ChaosSite<'_>,
    log: &WorkloadLog,
    random: &mut SmallRng,
) {
    let mut draws = SmallRng::seed_from_u64(random.random());
    let blows = async {
        for _ in 0..draws.random_range(1..=3) {
            let key = site.stores.key(draws.random_range(0..PARTITIONS), "epoch");
            let primary = cluster.owner_of(&key).await;
            let blow = draws.random_range(0..3);
            eprintln!("{}", ["slots move", "a primary dies", "a primary freezes"][blow]);
            match blow {
                0 => {
                    for at in 0..PARTITIONS {
                        let key = site.stores.key(at, "epoch");
                        cluster
                            .move_slot(&key, Duration::from_millis(draws.random_range(0..60)))
                            .await;
                    }
                }
                1 => {
                    cluster.kill(primary.port).await;
                    cluster.wait_until_replaced(&primary, &key).await;
                    cluster.restart(primary.port).await;
                }
                _ => {
                    cluster.freeze(primary.port, true).await;
                    cluster.wait_until_replaced(&primary, &key).await;
                    cluster.freeze(primary.port, false).await;
                }
            }
            cluster.wait_until_healthy().await;
        }
    };
    tokio::join!(blows, inject_side_fault(site, random));
    served_again(log, Instant::now()).await;
}

async fn strike_behind_sentinels(
    sentinels: &SentinelGroup,
    site: &ChaosSite<'_>,
    log: &WorkloadLog,
    random: &mut SmallRng,
) {
    let mut draws = SmallRng::seed_from_u64(random.random());
    let blows = async {
        for _ in 0..draws.random_range(1..=2) {
            let primary = sentinels.primary().await.unwrap();
            if draws.random_bool(0.5) {
                eprintln!("the primary dies");
                sentinels.kill(primary).await;
                sentinels.wait_until_replaced(primary).await;
                sentinels.restart(primary).await;
            } else {
                eprintln!("the primary freezes");
                sentinels.freeze(primary, true).await;
                sentinels.wait_until_replaced(primary).await;
                sentinels.freeze(primary, false).await;
            }
            sentinels.wait_until_healthy().await;
        }
    };
    tokio::join!(blows, inject_side_fault(site, random));
    served_again(log, Instant::now()).await;
}
