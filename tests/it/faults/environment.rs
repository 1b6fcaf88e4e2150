//! Servers and instances that may be killed, frozen and cut off: a Redis and a MariaDB per lane, a
//! relay in front of each, and real processes.

use std::path::PathBuf;
use std::sync::RwLock;

use tokio::sync::Mutex;
use usher::dev::{MysqlDurability, PrivateMysql, PrivateRedis, TempDir};

use crate::support::servers::RedisNodes;
use crate::support::skew::{ClockSkew, MovableRedisClock};
use crate::support::{StoreRelays, TestStores, UsherProcess, signal};

/// A MariaDB for consecutive rounds. Every commit is on disk, so a kill loses nothing.
pub(super) struct ChaosLane {
    pub(super) dir: TempDir,
    pub(super) mysql: Mutex<Option<PrivateMysql>>,
    mysql_port: u16,
}

impl ChaosLane {
    pub(super) async fn open() -> Self {
        let dir = TempDir::new("it-faults").unwrap();
        let mysql =
            PrivateMysql::start(&dir.path().join("mysql"), MysqlDurability::Keep).await.unwrap();
        Self { mysql_port: mysql.port(), mysql: Mutex::new(Some(mysql)), dir }
    }

    /// Restarts it on its port with its data.
    pub(super) async fn start_mysql(&self, mysql: &mut Option<PrivateMysql>) {
        let dir = self.dir.path().join("mysql");
        *mysql = Some(
            PrivateMysql::start_on(&dir, MysqlDurability::Keep, self.mysql_port).await.unwrap(),
        );
    }
}

/// Whether an instance confirms only durable effects.
pub(super) fn is_durable(at: usize) -> bool {
    at % 2 == 1
}

/// The address of an instance, and its process while one runs.
pub(super) struct InstanceSlot {
    pub(super) process: Mutex<Option<UsherProcess>>,
    pub(super) address: RwLock<[String; 2]>,
}

/// The servers and instances of one round.
pub(super) struct ChaosSite<'a> {
    pub(super) lane: &'a ChaosLane,
    pub(super) redis: Mutex<Option<PrivateRedis>>,
    pub(super) redis_dir: PathBuf,
    pub(super) stores: TestStores,
    pub(super) relays: StoreRelays,
    pub(super) seats: Vec<InstanceSlot>,
    /// The clock of Redis, if it can be moved.
    pub(super) clock: Option<(MovableRedisClock, ClockSkew)>,
    /// Settings that override the usual ones.
    more: Vec<(&'static str, String)>,
    /// The logs of former instances.
    pub(super) last_words: std::sync::Mutex<Vec<String>>,
}

impl<'a> ChaosSite<'a> {
    /// A number of instances on an empty Redis in `redis_dir` and a new database of the lane. The
    /// clock of Redis can be moved if `skew` is given.
    pub(super) async fn open(
        lane: &'a ChaosLane,
        redis_dir: PathBuf,
        instances: usize,
        skew: Option<ClockSkew>,
    ) -> Self {
        let mut redis =
            PrivateRedis::start(crate::support::servers::with_users(&redis_dir)).await.unwrap();
        let clock = skew.map(|skew| (skew.redis(), skew));
        if let Some((clock, _)) = &clock {
            let port = redis.port();
            redis.stop().await.unwrap();
            redis =
                PrivateRedis::start_program(&clock.program, &redis_dir, port, &[]).await.unwrap();
        }
        let stores = TestStores::at(redis.port(), lane.mysql.lock().await.as_ref().unwrap()).await;
        let mut site =
            Self::with_sale(lane, Some(redis), redis_dir, stores, Vec::new(), instances).await;
        site.clock = clock;
        site
    }

    /// A number of instances on Redis nodes of the caller, and a new database of the lane. Writes
    /// wait for all replicas.
    pub(super) async fn among(lane: &'a ChaosLane, several: RedisNodes, instances: usize) -> Self {
        let more = vec![
            ("USHER_REDIS_URL", several.url.clone()),
            ("USHER_REDIS_WAIT_REPLICAS", several.replicas.to_string()),
        ];
        let stores = TestStores::among(several, lane.mysql.lock().await.as_ref()).await;
        Self::with_sale(lane, None, PathBuf::new(), stores, more, instances).await
    }

    async fn with_sale(
        lane: &'a ChaosLane,
        redis: Option<PrivateRedis>,
        redis_dir: PathBuf,
        stores: TestStores,
        more: Vec<(&'static str, String)>,
        instances: usize,
    ) -> Self {
        let relays = StoreRelays::before(&stores).await;
        let mut site = Self {
            lane,
            redis: Mutex::new(redis),
            redis_dir,
            stores,
            relays,
            seats: Vec::new(),
            clock: None,
            more,
            last_words: std::sync::Mutex::default(),
        };
        let started = (0..instances)
            .map(async |at| UsherProcess::start_with(&site.stores, &site.settings(at)).await);
        for process in futures::future::join_all(started.collect::<Vec<_>>()).await {
            let address = RwLock::new([process.public.clone(), process.admin.clone()]);
            site.seats.push(InstanceSlot { process: Mutex::new(Some(process)), address });
        }
        site
    }

    /// Through the relays. Every second instance confirms only durable effects.
    fn settings(&self, at: usize) -> Vec<(&'static str, String)> {
        let ack = if is_durable(at) { "durable" } else { "accepted" };
        [self.relays.env(), vec![("USHER_ACK", ack.to_owned())], self.more.clone()].concat()
    }

    /// Kills an instance with -9, if it runs.
    pub(super) async fn kill(&self, process: &mut Option<UsherProcess>) {
        if let Some(process) = process.take() {
            self.last_words.lock().unwrap().push(process.log());
            process.kill().await;
        }
    }

    /// Starts an instance in an empty slot.
    pub(super) async fn start(&self, at: usize, process: &mut Option<UsherProcess>) {
        // Without a store the instance exits and is restarted, as by a supervisor.
        loop {
            let mut started = UsherProcess::spawn(&self.stores, &self.settings(at)).await;
            if started.becomes_ready().await {
                *process = Some(started);
                self.moved(at, process);
                return;
            }
        }
    }

    /// Starts an instance that dies at a fail point, perhaps before it is ready.
    pub(super) async fn start_with_failpoint(
        &self,
        at: usize,
        process: &mut Option<UsherProcess>,
        point: String,
    ) {
        let settings = [self.settings(at), vec![("FAILPOINTS", point)]].concat();
        *process = Some(UsherProcess::spawn(&self.stores, &settings).await);
        self.moved(at, process);
    }

    fn moved(&self, at: usize, process: &Option<UsherProcess>) {
        if let Some(process) = process {
            *self.seats[at].address.write().unwrap() =
                [process.public.clone(), process.admin.clone()];
        }
    }

    /// Restarts it on its port with the current content of its directory.
    pub(super) async fn start_redis(&self, redis: &mut Option<PrivateRedis>) {
        let (dir, port) = (&self.redis_dir, self.stores.redis_port);
        let started = match &self.clock {
            Some((clock, _)) => PrivateRedis::start_program(&clock.program, dir, port, &[]).await,
            None => PrivateRedis::start_on(dir, port).await,
        };
        *redis = Some(started.unwrap());
    }

    /// The current append-only file of Redis.
    pub(super) fn aof(&self) -> PathBuf {
        let dir = self.redis_dir.join("appendonlydir");
        let files =
            std::fs::read_dir(&dir).map(|files| files.map(|file| file.unwrap().path()).collect());
        let mut files: Vec<PathBuf> =
            files.unwrap_or_else(|_| vec![self.redis_dir.join("appendonly.aof")]);
        files.retain(|file| {
            file.to_string_lossy().ends_with(".incr.aof") || file.ends_with("appendonly.aof")
        });
        files.sort();
        files.pop().unwrap()
    }

    /// Ends all faults: nothing is frozen, cut off or dead.
    pub(super) async fn repair(&self) {
        for relay in [&self.relays.redis, &self.relays.mysql] {
            relay.freeze(false);
            relay.swallow_replies(false);
            relay.delay_replies(std::time::Duration::ZERO);
            relay.up();
        }
        for (at, seat) in self.seats.iter().enumerate() {
            let mut process = seat.process.lock().await;
            if process.is_none() {
                self.start(at, &mut process).await;
            }
        }
    }

    /// The end of the logs of all instances.
    pub(super) async fn logs(&self) -> String {
        let mut words = self.last_words.lock().unwrap().clone();
        for seat in &self.seats {
            words.extend(seat.process.lock().await.as_ref().map(UsherProcess::log));
        }
        let tail = |log: &String| {
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(60)..].join("\n")
        };
        words.iter().map(tail).collect::<Vec<_>>().join("\n-- another instance --\n")
    }

    pub(super) async fn close(self) {
        for seat in &self.seats {
            let mut process = seat.process.lock().await;
            self.kill(&mut process).await;
        }
        if let Some(redis) = self.redis.into_inner() {
            redis.stop().await.unwrap();
        }
        self.stores.mysql.close().await;
    }
}

/// Kills Redis with -9, if it runs.
pub(super) async fn kill_redis(redis: &mut Option<PrivateRedis>) {
    if let Some(mut server) = redis.take() {
        signal("-KILL", server.pid());
        server.ended().await;
    }
}

/// Kills MySQL with -9, if it runs.
pub(super) async fn kill_mysql(mysql: &mut Option<PrivateMysql>) {
    if let Some(mut server) = mysql.take() {
        signal("-KILL", server.pid());
        server.ended().await;
    }
}
