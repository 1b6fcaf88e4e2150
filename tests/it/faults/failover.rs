//! The same people on a Redis Cluster and behind Sentinels, while slots move and primaries die, fall asleep and come back.
//!
//! Every write waits for a replica (`USHER_REDIS_WAIT_REPLICAS=1`), so nothing that was told as done may be missing, whatever `USHER_ACK` says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::{sleep, timeout};

use super::site::{Lane, Site};
use super::strike::Fault;
use super::workload::{self, Log, SHOW_QUEUE};
use super::{SETTLED_WITHIN, check, furnish, settle, unsettled};
use crate::faults::histories::{Call, Op, Ret};
use crate::support::servers::PARTITIONS;
use crate::support::{Cluster, Sentinels, test_seed};

/// What people have heard by a moment.
#[derive(Debug, Clone, Copy)]
struct Heard {
    ok: usize,
    unknown: usize,
}

fn heard(log: &Log) -> Heard {
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    Heard { ok: count(&log.ok), unknown: count(&log.unknown) }
}

/// Whether a call changed something, or may have. What was read or refused may rest on a write that no replica had yet and that goes with its primary.
fn changes(call: &Call) -> bool {
    call.op != Op::Read && !matches!(call.end, Some((_, Ret::Refused)))
}

/// People book before, while and after `strike` does what it does; then everything must hold. Gives what was heard meanwhile.
async fn play(
    name: &str,
    seed: u64,
    site: Site<'_>,
    strike: impl AsyncFnOnce(&Site<'_>, &Log, &mut SmallRng),
) {
    let mut random = SmallRng::seed_from_u64(seed ^ 1);
    Box::pin(furnish(&site)).await;
    let log = Arc::new(Log::default());
    let (stop, done) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
    let round = async {
        sleep(Duration::from_millis(800)).await;
        let (before, began) = (heard(&log), Instant::now());
        strike(&site, &log, &mut random).await;
        let (after, took) = (heard(&log), began.elapsed());
        // Some more of ordinary life, so that what was held up is asked for again.
        sleep(Duration::from_millis(800)).await;
        stop.store(true, Ordering::Relaxed);
        (after.ok - before.ok, after.unknown - before.unknown, took)
    };
    let people = workload::live(&site, log.clone(), stop.clone(), seed);
    let settled = async {
        let (told, ()) = tokio::join!(round, people);
        let settled = timeout(SETTLED_WITHIN * 2, settle(&site)).await.is_ok();
        done.store(true, Ordering::Relaxed);
        (told, settled)
    };
    let watched = check::watch(&site, &done, &log.wrong);
    let (((ok, unknown, took), settled), looks) = tokio::join!(settled, watched);
    let mut wrong = log.wrong.lock().unwrap().clone();
    if settled {
        let facts = log.facts.lock().unwrap().clone();
        let lost = check::lost(&site, &facts).await;
        wrong.extend(lost.iter().map(|told| format!("told as done and lost: {told:?}")));
        wrong.extend(check::limits(&site, true).await);
        let report = site.stores.audit_command(Duration::from_secs(20)).await;
        let faults = report.checks.iter().filter(|found| !found.ok);
        wrong.extend(faults.map(|found| format!("{}: {}", found.name, found.detail)));
        wrong.extend(check::shared_seats(&log));
        wrong.extend(check::histories(&log, changes).0);
    } else {
        wrong.push(format!("nothing had settled: {}", unsettled(&site).await));
    }
    let all = heard(&log);
    let report = format!(
        "USHER_TEST_SEED={seed} {name}: {} ok, {} unknown in all; in the {:.1} s of it {ok} ok and {unknown} unknown; {} facts",
        all.ok,
        all.unknown,
        took.as_secs_f64(),
        log.facts.lock().unwrap().len()
    );
    assert!(wrong.is_empty(), "{report}\n{}\n{}", wrong.join("\n"), site.words().await);
    assert!(all.ok > 50 && looks > 0, "{report}: hardly anything went on");
    site.stores.audit().await;
    Box::pin(site.close()).await;
    eprintln!("{report}");
}

/// Waits until people are served again: so many answers more than at a moment. Gives how long the first took.
async fn served_again(log: &Log, since: Instant) -> Duration {
    let before = heard(log).ok;
    let mut first = None;
    crate::support::within(crate::support::ELECTED, "people are served again", || {
        let ok = heard(log).ok;
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
    let (lane, cluster) = tokio::join!(Lane::open(), Cluster::start());
    let site = Box::pin(Site::among(&lane, cluster.several(), 2)).await;
    let strike = async |site: &Site<'_>, log: &Log, random: &mut SmallRng| {
        // Every partition moves, one of them twice, in the middle of everything.
        for at in 0..=PARTITIONS {
            let key = site.stores.key(at % PARTITIONS, "epoch");
            cluster.move_slot(&key, Duration::from_millis(random.random_range(0..30))).await;
        }
        let moved = heard(log);
        served_again(log, Instant::now()).await;
        // Whoever holds the line dies, and is replaced by its replica; then it comes back as the replica of that one.
        let key = site.stores.key(site.stores.partition_of(SHOW_QUEUE), "epoch");
        let primary = cluster.owner_of(&key).await;
        let before = heard(log);
        let struck = Instant::now();
        cluster.kill(primary.port).await;
        cluster.replaced(&primary, &key).await;
        let elected = struck.elapsed();
        cluster.start_again(primary.port).await;
        let first = served_again(log, struck).await;
        cluster.is_whole().await;
        eprintln!(
            "after {} unknown by moves: killed, replaced in {elected:?}, first success {first:?}, {} unknown",
            moved.unknown,
            heard(log).unknown - before.unknown
        );
    };
    play("a cluster", test_seed(), site, strike).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_replace_a_primary_that_dies_and_one_that_sleeps_under_load() {
    let (lane, sentinels) = tokio::join!(Lane::open(), Sentinels::start("0"));
    let site = Box::pin(Site::among(&lane, sentinels.several(), 2)).await;
    let strike = async |_: &Site<'_>, log: &Log, random: &mut SmallRng| {
        let primary = sentinels.primary().await.unwrap();
        let struck = Instant::now();
        sentinels.kill(primary).await;
        sentinels.replaced(primary).await;
        let elected = struck.elapsed();
        sentinels.start_again(primary).await;
        let first = served_again(log, struck).await;
        eprintln!("killed: replaced in {elected:?}, first success {first:?}");
        sentinels.are_whole().await;
        // The stale one: it wakes up after it was replaced, with what stood in its buffers.
        let primary = sentinels.primary().await.unwrap();
        sentinels.freeze(primary, true).await;
        sentinels.replaced(primary).await;
        sleep(Duration::from_millis(random.random_range(0..300))).await;
        sentinels.freeze(primary, false).await;
        sentinels.are_whole().await;
        served_again(log, Instant::now()).await;
    };
    play("Sentinels", test_seed(), site, strike).await;
}

/// What may happen beside a failover, to instances and to MySQL. Nothing that asks Redis itself: nobody may be the primary then.
const BESIDE: [Fault; 6] = [
    Fault::InstanceKilled,
    Fault::InstanceFrozen,
    Fault::MysqlKilled,
    Fault::MysqlFrozen,
    Fault::MysqlCutOff,
    Fault::MysqlCommitsLost,
];

/// Rounds drawn by chance, in turn on a cluster and behind Sentinels: a tenth of `CHAOS_ROUNDS`, as each takes ten times as long; none in the suite.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_among_several() {
    let rounds = std::env::var("CHAOS_ROUNDS").map_or(0, |text| text.parse::<u64>().unwrap() / 10);
    let first = test_seed();
    for round in 0..rounds {
        let seed = first.wrapping_add(round);
        let lane = Lane::open().await;
        if round % 2 == 0 {
            let cluster = Cluster::start().await;
            let site = Box::pin(Site::among(&lane, cluster.several(), 2)).await;
            play(
                "chaos on a cluster",
                seed,
                site,
                async |site: &Site<'_>, log: &Log, random: &mut SmallRng| {
                    strike_a_cluster(&cluster, site, log, random).await;
                },
            )
            .await;
        } else {
            let sentinels = Sentinels::start(if seed % 4 == 1 { "0" } else { "1" }).await;
            let site = Box::pin(Site::among(&lane, sentinels.several(), 2)).await;
            play(
                "chaos behind Sentinels",
                seed,
                site,
                async |site: &Site<'_>, log: &Log, random: &mut SmallRng| {
                    strike_behind_sentinels(&sentinels, site, log, random).await;
                },
            )
            .await;
        }
    }
}

/// One of [`BESIDE`], some time from now.
async fn beside(site: &Site<'_>, random: &mut SmallRng) {
    let mut random = SmallRng::seed_from_u64(random.random());
    let fault = BESIDE[random.random_range(0..BESIDE.len())];
    sleep(Duration::from_millis(random.random_range(0..4_000))).await;
    eprintln!("beside it: {fault:?}");
    Box::pin(fault.strike(site, &mut random)).await;
}

async fn strike_a_cluster(cluster: &Cluster, site: &Site<'_>, log: &Log, random: &mut SmallRng) {
    let mut draws = SmallRng::seed_from_u64(random.random());
    let blows = async {
        for _ in 0..draws.random_range(1..=3) {
            let key = site.stores.key(draws.random_range(0..PARTITIONS), "epoch");
            let primary = cluster.owner_of(&key).await;
            let blow = draws.random_range(0..3);
            eprintln!("{}", ["slots move", "a primary dies", "a primary sleeps"][blow]);
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
                    cluster.replaced(&primary, &key).await;
                    cluster.start_again(primary.port).await;
                }
                _ => {
                    cluster.freeze(primary.port, true).await;
                    cluster.replaced(&primary, &key).await;
                    cluster.freeze(primary.port, false).await;
                }
            }
            cluster.is_whole().await;
        }
    };
    tokio::join!(blows, beside(site, random));
    served_again(log, Instant::now()).await;
}

async fn strike_behind_sentinels(
    sentinels: &Sentinels,
    site: &Site<'_>,
    log: &Log,
    random: &mut SmallRng,
) {
    let mut draws = SmallRng::seed_from_u64(random.random());
    let blows = async {
        for _ in 0..draws.random_range(1..=2) {
            let primary = sentinels.primary().await.unwrap();
            if draws.random_bool(0.5) {
                eprintln!("the primary dies");
                sentinels.kill(primary).await;
                sentinels.replaced(primary).await;
                sentinels.start_again(primary).await;
            } else {
                eprintln!("the primary sleeps");
                sentinels.freeze(primary, true).await;
                sentinels.replaced(primary).await;
                sentinels.freeze(primary, false).await;
            }
            sentinels.are_whole().await;
        }
    };
    tokio::join!(blows, beside(site, random));
    served_again(log, Instant::now()).await;
}
