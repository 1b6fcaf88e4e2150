//! The faults: how each one starts and ends.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use tokio::time::{sleep, timeout};
use usher::dev::PrivateRedis;
use usher::redis::scripts;

use super::environment::{ChaosSite, kill_mysql, kill_redis};
use crate::support::resp::RespClient;
use crate::support::{LossTarget, signal};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChaosFault {
    InstanceKilled,
    InstanceFrozen,
    InstanceKilledAtAnEdge,
    RedisKilled,
    RedisFrozen,
    AofTailCut,
    RedisEmptied,
    OlderAof,
    LaggingReplica,
    ScriptsFlushed,
    NoMemory,
    DiskFull,
    NoReplicas,
    RedisCutOff,
    RedisDelayed,
    RedisRepliesSwallowed,
    RedisRepliesLost,
    RedisRequestsLost,
    RedisClockMoved,
    MysqlKilled,
    MysqlFrozen,
    MysqlCutOff,
    MysqlCommitsLost,
    MysqlRowsLocked,
    MysqlTakenBack,
    PaymentsOverdue,
    ConcertMoved,
}

/// Steps of payments, their voids and refunds, and of the writer, at which an instance may die.
const CRASH_POINTS: [&str; 24] = [
    "payment/pay.before",
    "payment/pay.after",
    "payment/begin.before",
    "payment/begin.after",
    "coupons/reserve.before",
    "coupons/reserve.after",
    "wallet/debit.before",
    "wallet/debit.after",
    "payment/confirm.before",
    "payment/confirm.after",
    "coupons/redeem.before",
    "coupons/redeem.after",
    "payment/void.after",
    "wallet/refund.before",
    "wallet/refund.after",
    "payment/finish_void.before",
    "payment/finish_void.after",
    "payment/begin_cancel.after",
    "wallet/refund_cancelled.after",
    "payment/finish_cancel.after",
    "writer.before_transaction",
    "writer.before_commit",
    "writer.after_commit",
    "writer.after_trim",
];

/// Scripts whose request or reply is lost by name: a random loss among thousands would rarely be
/// theirs.
const LOSABLE_SCRIPTS: [&str; 15] = [
    "queue/join",
    "seats/hold",
    "seats/release",
    "coupons/issue",
    "rewards/claim",
    "wallet/charge",
    "wallet/use",
    "payment/pay",
    "payment/begin",
    "coupons/reserve",
    "wallet/debit",
    "payment/confirm",
    "coupons/redeem",
    "payment/begin_cancel",
    "wallet/refund_cancelled",
];

/// Limit for the loss of one of them, because not every step occurs all the time.
const LOSS_TIMEOUT: Duration = Duration::from_millis(600);

fn sha1_of(name: &str) -> &'static str {
    scripts::ALL.iter().find(|script| script.name() == name).unwrap().sha1()
}

impl ChaosFault {
    /// All faults that are drawn at random.
    pub(super) const ANY: &'static [Self] = &[
        Self::InstanceKilled,
        Self::InstanceFrozen,
        Self::InstanceKilledAtAnEdge,
        Self::RedisKilled,
        Self::RedisFrozen,
        Self::AofTailCut,
        Self::RedisEmptied,
        Self::OlderAof,
        Self::LaggingReplica,
        Self::ScriptsFlushed,
        Self::NoMemory,
        Self::DiskFull,
        Self::NoReplicas,
        Self::RedisCutOff,
        Self::RedisDelayed,
        Self::RedisRepliesSwallowed,
        Self::RedisRepliesLost,
        Self::RedisRequestsLost,
        Self::RedisClockMoved,
        Self::MysqlKilled,
        Self::MysqlFrozen,
        Self::MysqlCutOff,
        Self::MysqlCommitsLost,
        Self::MysqlRowsLocked,
        Self::MysqlTakenBack,
        Self::PaymentsOverdue,
        Self::ConcertMoved,
    ];

    /// Whether Redis loses confirmed writes that MySQL does not have yet. A killed process may,
    /// too: with `appendfsync everysec` Redis delays writing for up to two seconds while the disk
    /// is busy with the previous fsync, and still answers.
    pub(super) fn takes_back(self) -> bool {
        matches!(
            self,
            Self::RedisKilled
                | Self::AofTailCut
                | Self::RedisEmptied
                | Self::OlderAof
                | Self::LaggingReplica
        )
    }

    /// Starts the fault, waits, and ends it.
    pub(super) async fn strike(self, site: &ChaosSite<'_>, random: &mut SmallRng) {
        let pause = Duration::from_millis(random.random_range(200..1_500));
        match self {
            Self::InstanceKilled | Self::InstanceFrozen | Self::InstanceKilledAtAnEdge => {
                self.on_an_instance(site, random, pause).await;
            }
            Self::MysqlKilled
            | Self::MysqlFrozen
            | Self::MysqlCutOff
            | Self::MysqlCommitsLost
            | Self::MysqlRowsLocked
            | Self::MysqlTakenBack => {
                self.on_mysql(site, random, pause).await;
            }
            Self::ConcertMoved => super::moving_concert::move_around(site, random, pause * 2).await,
            _ => self.on_redis(site, random, pause).await,
        }
    }

    async fn on_an_instance(self, site: &ChaosSite<'_>, random: &mut SmallRng, pause: Duration) {
        let at = random.random_range(0..site.seats.len());
        let mut process = site.seats[at].process.lock().await;
        if self == Self::InstanceFrozen {
            if let Some(process) = process.as_ref() {
                process.freeze();
                sleep(pause).await;
                process.thaw();
            }
            return;
        }
        site.kill(&mut process).await;
        if self == Self::InstanceKilledAtAnEdge {
            let edge = CRASH_POINTS[random.random_range(0..CRASH_POINTS.len())];
            let point = format!("{edge}={}*off->1*return(kill)", random.random_range(0..3));
            site.start_with_failpoint(at, &mut process, point).await;
            if let Some(doomed) = process.as_mut() {
                // Not every round reaches every fail point.
                let _ = timeout(Duration::from_millis(2_500), doomed.wait()).await;
            }
            site.kill(&mut process).await;
        } else {
            sleep(pause).await;
        }
        site.start(at, &mut process).await;
    }

    async fn on_mysql(self, site: &ChaosSite<'_>, random: &mut SmallRng, pause: Duration) {
        let mut mysql = site.lane.mysql.lock().await;
        let relay = &site.relays.mysql;
        match self {
            Self::MysqlKilled => {
                kill_mysql(&mut mysql).await;
                sleep(pause).await;
                site.lane.start_mysql(&mut mysql).await;
            }
            Self::MysqlFrozen => {
                let pid = mysql.as_ref().unwrap().pid();
                signal("-STOP", pid);
                sleep(pause).await;
                signal("-CONT", pid);
            }
            Self::MysqlCutOff => {
                relay.down();
                sleep(pause).await;
                relay.up();
            }
            Self::MysqlCommitsLost => {
                let lose =
                    if random.random_bool(0.7) { LossTarget::Reply } else { LossTarget::Request };
                relay.strike("COMMIT", lose, random.random_range(1..4));
                sleep(pause).await;
                relay.strike("COMMIT", lose, 0);
            }
            Self::MysqlTakenBack => {
                let copy = site.stores.copy_mysql().await;
                sleep(pause).await;
                site.stores.take_mysql_back(&copy).await;
                if random.random_bool(0.5) {
                    relay.cut();
                }
            }
            _ => {
                // Sometimes longer than the writer waits for a lock.
                let mut tx = site.stores.mysql.begin().await.unwrap();
                // The writer may win a deadlock. Then nothing is locked, and this tries again.
                while sqlx::query("SELECT user_id FROM wallets FOR UPDATE")
                    .execute(&mut *tx)
                    .await
                    .is_err()
                {
                    tx = site.stores.mysql.begin().await.unwrap();
                }
                let long =
                    if random.random_bool(0.2) { Duration::from_secs(5) } else { Duration::ZERO };
                sleep(pause + long).await;
                tx.rollback().await.unwrap();
            }
        }
    }

    async fn on_redis(self, site: &ChaosSite<'_>, random: &mut SmallRng, pause: Duration) {
        let mut redis = site.redis.lock().await;
        let relay = &site.relays.redis;
        match self {
            Self::RedisKilled => {
                kill_redis(&mut redis).await;
                sleep(pause).await;
                site.start_redis(&mut redis).await;
            }
            Self::RedisFrozen => {
                let pid = redis.as_ref().unwrap().pid();
                signal("-STOP", pid);
                sleep(pause).await;
                signal("-CONT", pid);
            }
            Self::AofTailCut => {
                kill_redis(&mut redis).await;
                let aof = site.aof();
                let length = std::fs::metadata(&aof).unwrap().len();
                let cut = random.random_range(1..=20_000).min(length);
                std::fs::File::options()
                    .write(true)
                    .open(&aof)
                    .unwrap()
                    .set_len(length - cut)
                    .unwrap();
                site.start_redis(&mut redis).await;
            }
            Self::RedisEmptied => {
                kill_redis(&mut redis).await;
                remove_data(site);
                site.start_redis(&mut redis).await;
            }
            Self::OlderAof => {
                let aof = site.aof();
                let older = std::fs::read(&aof).unwrap();
                sleep(pause).await;
                kill_redis(&mut redis).await;
                std::fs::write(&aof, older).unwrap();
                site.start_redis(&mut redis).await;
            }
            Self::LaggingReplica => self.fail_over(site, &mut redis, pause).await,
            Self::ScriptsFlushed => {
                for _ in 0..5 {
                    ask(site, &["SCRIPT", "FLUSH"]).await;
                    sleep(pause / 10).await;
                }
            }
            Self::RedisClockMoved => {
                if let Some((clock, _)) = &site.clock {
                    for _ in 0..2 {
                        clock.set(random.random_range(-15..=15));
                        sleep(pause).await;
                    }
                }
            }
            Self::NoMemory => {
                ask(site, &["CONFIG", "SET", "maxmemory", "1mb"]).await;
                sleep(pause).await;
                ask(site, &["CONFIG", "SET", "maxmemory", "0"]).await;
            }
            Self::NoReplicas => {
                ask(site, &["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
                sleep(pause).await;
                ask(site, &["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
            }
            Self::DiskFull => {
                let filler = site.redis_dir.join("filler");
                fill(&filler);
                sleep(pause).await;
                let _ = std::fs::remove_file(filler);
            }
            Self::RedisCutOff => {
                if random.random_bool(0.5) {
                    relay.cut();
                } else {
                    relay.down();
                    sleep(pause).await;
                    relay.up();
                }
            }
            Self::RedisDelayed => {
                relay.delay_replies(Duration::from_millis(random.random_range(5..300)));
                sleep(pause).await;
                relay.delay_replies(Duration::ZERO);
            }
            Self::RedisRepliesSwallowed => {
                relay.swallow_replies(true);
                sleep(pause).await;
                relay.swallow_replies(false);
                // One reply less: a client that counts replies stays one behind, so the connection
                // ends with it.
                relay.cut();
            }
            Self::RedisRepliesLost | Self::RedisRequestsLost => {
                let lose = if self == Self::RedisRepliesLost {
                    LossTarget::Reply
                } else {
                    LossTarget::Request
                };
                // Of any next command, then of each step that moves money or seats, in random
                // order.
                let mut steps: Vec<&str> =
                    LOSABLE_SCRIPTS.iter().map(|name| sha1_of(name)).collect();
                steps.shuffle(random);
                for step in ["EVALSHA"; 4].into_iter().chain(steps) {
                    let struck = relay.struck();
                    relay.strike(step, lose, 1);
                    let _ = timeout(LOSS_TIMEOUT, async {
                        while relay.struck() == struck {
                            sleep(Duration::from_millis(5)).await;
                        }
                    })
                    .await;
                }
                relay.strike("EVALSHA", lose, 0);
            }
            _ => {
                for _ in 0..20 {
                    make_overdue(site).await;
                    sleep(pause / 20).await;
                }
            }
        }
    }

    /// A lagging replica replaces the master: it has a copy, receives nothing for a while, and
    /// starts with the copy.
    async fn fail_over(
        self,
        site: &ChaosSite<'_>,
        redis: &mut Option<PrivateRedis>,
        pause: Duration,
    ) {
        let dir = site.lane.dir.path().join(format!("replica-{}", site.stores.prefix));
        let replica = PrivateRedis::start(&dir).await.unwrap();
        let mut to_replica = RespClient::connect(replica.port()).await;
        to_replica.ask(&["REPLICAOF", "127.0.0.1", &site.stores.redis_port.to_string()]).await;
        crate::support::eventually("the replica has a copy", || async {
            let mut asked = RespClient::connect(replica.port()).await;
            let link = asked.ask(&["INFO", "replication"]).await.text();
            let file = asked.ask(&["INFO", "persistence"]).await.text();
            (link.contains("master_link_status:up")
                && file.contains("aof_rewrite_in_progress:0")
                && file.contains("aof_rewrite_scheduled:0"))
            .then_some(())
        })
        .await;
        to_replica.ask(&["REPLICAOF", "NO", "ONE"]).await;
        sleep(pause).await;
        kill_redis(redis).await;
        replica.stop().await.unwrap();
        remove_data(site);
        std::fs::create_dir(site.redis_dir.join("appendonlydir")).unwrap();
        for file in std::fs::read_dir(dir.join("appendonlydir")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), site.redis_dir.join("appendonlydir").join(file.file_name()))
                .unwrap();
        }
        site.start_redis(redis).await;
    }
}

fn remove_data(site: &ChaosSite<'_>) {
    let _ = std::fs::remove_dir_all(site.redis_dir.join("appendonlydir"));
    let _ = std::fs::remove_file(site.redis_dir.join("appendonly.aof"));
}

/// Bypasses the relay, if Redis runs.
async fn ask(site: &ChaosSite<'_>, words: &[&str]) {
    RespClient::connect(site.stores.redis_port).await.ask(words).await;
}

/// Writes until the disk is full. Does nothing unless the round has its own small disk.
fn fill(path: &std::path::Path) {
    use std::io::Write;
    if !path.parent().unwrap().join("small").exists() {
        return;
    }
    let mut file = std::fs::File::create(path).unwrap();
    let piece = vec![0; 64 * 1024];
    while file.write_all(&piece).is_ok() {}
    while file.write_all(&piece[..512]).is_ok() {}
}

/// Makes every payment without an end due now, as if ten seconds had passed.
pub(super) async fn make_overdue(site: &ChaosSite<'_>) {
    let script = "for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do redis.call('ZADD', \
         KEYS[1], 0, id) end return 1";
    for queue in [super::workload::QUEUE] {
        let key = site.stores.key(site.stores.partition_of(queue), &format!("q:{queue}:due"));
        site.stores.redis().await.try_command(&["EVAL", script, "1", &key]).await;
    }
}
