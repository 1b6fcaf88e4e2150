//! The faults: how each strikes and how it ends.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use tokio::time::{sleep, timeout};
use usher::dev::PrivateRedis;
use usher::redis::scripts;

use super::site::{Site, kill_mysql, kill_redis};
use crate::support::resp::Resp;
use crate::support::{Lose, signal};

/// A thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
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
    MysqlKilled,
    MysqlFrozen,
    MysqlCutOff,
    MysqlCommitsLost,
    MysqlRowsLocked,
    PaymentsOverdue,
}

/// The steps of a payment and of its way back, at whose edges an instance may die, and the writer's.
const EDGES: [&str; 22] = [
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

/// Scripts of which a reply, or a request, is lost by name: a chance one among thousands would seldom be theirs.
const STEPS: [&str; 14] = [
    "queue/join",
    "seats/hold",
    "seats/release",
    "coupons/issue",
    "rewards/claim",
    "wallet/charge",
    "wallet/use",
    "payment/begin",
    "coupons/reserve",
    "wallet/debit",
    "payment/confirm",
    "coupons/redeem",
    "payment/begin_cancel",
    "wallet/refund_cancelled",
];

/// How long is waited for one of them: not every step is taken all the time.
const STRUCK_WITHIN: Duration = Duration::from_millis(600);

fn sha1_of(name: &str) -> &'static str {
    scripts::ALL.iter().find(|script| script.name() == name).unwrap().sha1()
}

impl Fault {
    /// All that is drawn by chance.
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
        Self::MysqlKilled,
        Self::MysqlFrozen,
        Self::MysqlCutOff,
        Self::MysqlCommitsLost,
        Self::MysqlRowsLocked,
        Self::PaymentsOverdue,
    ];

    /// Whether Redis goes back in time: what it had told and MySQL not yet has may be gone. A killed process may, too: with `appendfsync everysec` Redis puts off writing
    /// for up to two seconds while the disk is busy with the fsync before, and answers all the same.
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

    /// Strikes, waits a while, and ends it.
    pub(super) async fn strike(self, site: &Site<'_>, random: &mut SmallRng) {
        let pause = Duration::from_millis(random.random_range(200..1_500));
        match self {
            Self::InstanceKilled | Self::InstanceFrozen | Self::InstanceKilledAtAnEdge => {
                self.on_an_instance(site, random, pause).await;
            }
            Self::MysqlKilled
            | Self::MysqlFrozen
            | Self::MysqlCutOff
            | Self::MysqlCommitsLost
            | Self::MysqlRowsLocked => {
                self.on_mysql(site, random, pause).await;
            }
            _ => self.on_redis(site, random, pause).await,
        }
    }

    async fn on_an_instance(self, site: &Site<'_>, random: &mut SmallRng, pause: Duration) {
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
            let edge = EDGES[random.random_range(0..EDGES.len())];
            let point = format!("{edge}={}*off->1*return(kill)", random.random_range(0..3));
            site.start_doomed(at, &mut process, point).await;
            if let Some(doomed) = process.as_mut() {
                // Not every round comes to every edge.
                let _ = timeout(Duration::from_millis(2_500), doomed.wait()).await;
            }
            site.kill(&mut process).await;
        } else {
            sleep(pause).await;
        }
        site.start(at, &mut process).await;
    }

    async fn on_mysql(self, site: &Site<'_>, random: &mut SmallRng, pause: Duration) {
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
                let lose = if random.random_bool(0.7) { Lose::Reply } else { Lose::Request };
                relay.strike("COMMIT", lose, random.random_range(1..4));
                sleep(pause).await;
                relay.strike("COMMIT", lose, 0);
            }
            _ => {
                // Longer than the writer waits for a lock, now and then.
                let mut tx = site.stores.mysql.begin().await.unwrap();
                // The writer may win a deadlock over it; then nothing is locked, and it tries again.
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

    async fn on_redis(self, site: &Site<'_>, random: &mut SmallRng, pause: Duration) {
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
                // A reply less: whoever counts them is one behind for good, so the connection ends with it.
                relay.cut();
            }
            Self::RedisRepliesLost | Self::RedisRequestsLost => {
                let lose = if self == Self::RedisRepliesLost { Lose::Reply } else { Lose::Request };
                // Of whatever comes next, then of each step that moves something, in any order.
                let mut steps: Vec<&str> = STEPS.iter().map(|name| sha1_of(name)).collect();
                steps.shuffle(random);
                for step in ["EVALSHA"; 4].into_iter().chain(steps) {
                    let struck = relay.struck();
                    relay.strike(step, lose, 1);
                    let _ = timeout(STRUCK_WITHIN, async {
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

    /// A replica that lags takes the master's place: it is copied, hears nothing for a while, and comes up with what it had.
    async fn fail_over(self, site: &Site<'_>, redis: &mut Option<PrivateRedis>, pause: Duration) {
        let dir = site.lane.dir.path().join(format!("replica-{}", site.stores.prefix));
        let replica = PrivateRedis::start(&dir).await.unwrap();
        let mut to_replica = Resp::connect(replica.port()).await;
        to_replica.ask(&["REPLICAOF", "127.0.0.1", &site.stores.redis_port.to_string()]).await;
        crate::support::eventually("the replica has a copy", || async {
            let mut asked = Resp::connect(replica.port()).await;
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

fn remove_data(site: &Site<'_>) {
    let _ = std::fs::remove_dir_all(site.redis_dir.join("appendonlydir"));
    let _ = std::fs::remove_file(site.redis_dir.join("appendonly.aof"));
}

/// Past the relay, to a Redis that runs.
async fn ask(site: &Site<'_>, words: &[&str]) {
    Resp::connect(site.stores.redis_port).await.ask(words).await;
}

/// Writes until the disk is full. Where it is not a small one of the round's own, nothing is written.
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

/// Lets every payment without an end be due now, as if ten seconds had passed.
pub(super) async fn make_overdue(site: &Site<'_>) {
    let script = "for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do redis.call('ZADD', KEYS[1], 0, id) end return 1";
    for queue in [super::workload::SHOW_QUEUE] {
        let key = site.stores.key(site.stores.partition_of(queue), &format!("q:{queue}:due"));
        site.stores.redis().await.try_ask(&["EVAL", script, "1", &key]).await;
    }
}
