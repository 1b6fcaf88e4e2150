//! Servers and instances that may be killed, frozen and cut off: a Redis and a MariaDB of the round's own, a relay in front of each, and real processes.

use std::path::PathBuf;
use std::sync::RwLock;

use tokio::sync::Mutex;
use usher::dev::{MysqlDurability, PrivateMysql, PrivateRedis, TempDir};

use crate::support::servers::Several;
use crate::support::{Process, Relays, Stores, signal};

/// A MariaDB that many rounds share, one after the other. Every commit is on disk, so that a kill takes nothing back.
pub(super) struct Lane {
    pub(super) dir: TempDir,
    pub(super) mysql: Mutex<Option<PrivateMysql>>,
    mysql_port: u16,
}

impl Lane {
    pub(super) async fn open() -> Self {
        let dir = TempDir::new("it-faults").unwrap();
        let mysql =
            PrivateMysql::start(&dir.path().join("mysql"), MysqlDurability::Keep).await.unwrap();
        Self { mysql_port: mysql.port(), mysql: Mutex::new(Some(mysql)), dir }
    }

    /// Starts it again where it was.
    pub(super) async fn start_mysql(&self, mysql: &mut Option<PrivateMysql>) {
        let dir = self.dir.path().join("mysql");
        *mysql = Some(
            PrivateMysql::start_on(&dir, MysqlDurability::Keep, self.mysql_port).await.unwrap(),
        );
    }
}

/// Whether an instance answers only what is durable.
pub(super) fn is_durable(at: usize) -> bool {
    at % 2 == 1
}

/// Where an instance is, and the process that runs there, if one does.
pub(super) struct Seat {
    pub(super) process: Mutex<Option<Process>>,
    pub(super) address: RwLock<[String; 2]>,
}

/// What one round plays on.
pub(super) struct Site<'a> {
    pub(super) lane: &'a Lane,
    pub(super) redis: Mutex<Option<PrivateRedis>>,
    pub(super) redis_dir: PathBuf,
    pub(super) stores: Stores,
    pub(super) relays: Relays,
    pub(super) seats: Vec<Seat>,
    /// Settings that win over the usual ones.
    more: Vec<(&'static str, String)>,
    /// What instances that are gone have said.
    pub(super) last_words: std::sync::Mutex<Vec<String>>,
}

impl<'a> Site<'a> {
    /// So many instances on an empty Redis in `redis_dir` and a new database of the lane's.
    pub(super) async fn open(lane: &'a Lane, redis_dir: PathBuf, instances: usize) -> Self {
        let redis =
            PrivateRedis::start(crate::support::servers::with_users(&redis_dir)).await.unwrap();
        let stores = Stores::at(redis.port(), lane.mysql.lock().await.as_ref().unwrap()).await;
        Self::furnished(lane, Some(redis), redis_dir, stores, Vec::new(), instances).await
    }

    /// So many instances on Redis servers that somebody else looks after, each of which has a replica, and a new database of the lane's.
    pub(super) async fn among(lane: &'a Lane, several: Several, instances: usize) -> Self {
        let more = vec![
            ("USHER_REDIS_URL", several.url.clone()),
            ("USHER_REDIS_WAIT_REPLICAS", "1".to_owned()),
        ];
        let stores = Stores::among(several, lane.mysql.lock().await.as_ref()).await;
        Self::furnished(lane, None, PathBuf::new(), stores, more, instances).await
    }

    async fn furnished(
        lane: &'a Lane,
        redis: Option<PrivateRedis>,
        redis_dir: PathBuf,
        stores: Stores,
        more: Vec<(&'static str, String)>,
        instances: usize,
    ) -> Self {
        let relays = Relays::before(&stores).await;
        let mut site = Self {
            lane,
            redis: Mutex::new(redis),
            redis_dir,
            stores,
            relays,
            seats: Vec::new(),
            more,
            last_words: std::sync::Mutex::default(),
        };
        let started = (0..instances)
            .map(async |at| Process::start_with(&site.stores, &site.settings(at)).await);
        for process in futures::future::join_all(started.collect::<Vec<_>>()).await {
            let address = RwLock::new([process.public.clone(), process.admin.clone()]);
            site.seats.push(Seat { process: Mutex::new(Some(process)), address });
        }
        site
    }

    /// Through the relays; every second instance answers only what is durable.
    fn settings(&self, at: usize) -> Vec<(&'static str, String)> {
        let ack = if is_durable(at) { "durable" } else { "accepted" };
        [self.relays.env(), vec![("USHER_ACK", ack.to_owned())], self.more.clone()].concat()
    }

    /// Kills an instance with -9, if it runs.
    pub(super) async fn kill(&self, process: &mut Option<Process>) {
        if let Some(process) = process.take() {
            self.last_words.lock().unwrap().push(process.log());
            process.kill().await;
        }
    }

    /// Starts an instance in a seat that is empty.
    pub(super) async fn start(&self, at: usize, process: &mut Option<Process>) {
        // A store may be away: then it gives up, and is started again as by a supervisor.
        loop {
            let mut started = Process::spawn(&self.stores, &self.settings(at)).await;
            if started.comes_up().await {
                *process = Some(started);
                self.moved(at, process);
                return;
            }
        }
    }

    /// Starts one that is to die at a fail point, perhaps before it is ready.
    pub(super) async fn start_doomed(
        &self,
        at: usize,
        process: &mut Option<Process>,
        point: String,
    ) {
        let settings = [self.settings(at), vec![("FAILPOINTS", point)]].concat();
        *process = Some(Process::spawn(&self.stores, &settings).await);
        self.moved(at, process);
    }

    fn moved(&self, at: usize, process: &Option<Process>) {
        if let Some(process) = process {
            *self.seats[at].address.write().unwrap() =
                [process.public.clone(), process.admin.clone()];
        }
    }

    /// Starts it again where it was, with whatever is in its directory now.
    pub(super) async fn start_redis(&self, redis: &mut Option<PrivateRedis>) {
        *redis =
            Some(PrivateRedis::start_on(&self.redis_dir, self.stores.redis_port).await.unwrap());
    }

    /// The append-only file that Redis writes to now.
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

    /// Everything is as it should be again: nothing is frozen, cut off or dead.
    pub(super) async fn heal(&self) {
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

    /// What all instances have said, the end of it.
    pub(super) async fn words(&self) -> String {
        let mut words = self.last_words.lock().unwrap().clone();
        for seat in &self.seats {
            words.extend(seat.process.lock().await.as_ref().map(Process::log));
        }
        let tail = |log: &String| {
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(60)..].join("\n")
        };
        words.iter().map(tail).collect::<Vec<_>>().join("\n-- another instance --\n")
    }

    /// Ends the round.
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
