//! One Redis and one MariaDB for the whole run, which end with the process. Each test has its own
//! key prefix and database.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::mysql::{MySqlPool, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};
use usher::config::args::{HttpArgs, SecretArgs, ServeArgs, StoreArgs};
use usher::dev::{MysqlDurability, PrivateMysql, PrivateRedis, TempDir};
use usher::mysql::migrate::migrate;
use usher::partition::PartitionCount;

use super::resp::RespClient;
use super::skew::{ClockSkew, MovableRedisClock};

/// Partitions of every test's stores. Few, so that no test waits for sixty-four rows, and more than
/// one, so that payments cross partitions.
pub(crate) const PARTITIONS: u16 = 4;

/// The partition of a user's wallet.
pub(crate) fn partition_of_user(user: &str) -> u16 {
    let user: usher::ids::UserId = user.parse().unwrap();
    PartitionCount::new(PARTITIONS).unwrap().of(user.slot()).get()
}
/// The admin key of every test.
pub(crate) const ADMIN_KEY: &str = "0ff1ce-c2b7a9d84e5f6a1b3c8d7e9f0a";
/// The keys that sign queue tokens in every test.
pub(crate) const TOKEN_KEYS: &str = "k1:d41d8cd98f00b204e9800998ecf8427e";

struct SharedServers {
    redis: PrivateRedis,
    mysql: PrivateMysql,
    _dir: TempDir,
}

/// Starts the servers once, in a runtime that outlives those of the tests.
fn servers() -> &'static SharedServers {
    static SERVERS: OnceLock<SharedServers> = OnceLock::new();
    SERVERS.get_or_init(|| {
        let (ready, started) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let dir = TempDir::new("it").unwrap();
                let (redis_dir, mysql_dir) = (dir.path().join("redis"), dir.path().join("mysql"));
                let both = tokio::join!(
                    PrivateRedis::start(with_users(&redis_dir)),
                    PrivateMysql::start(&mysql_dir, MysqlDurability::Test)
                );
                ready
                    .send(SharedServers {
                        redis: both.0.unwrap(),
                        mysql: both.1.unwrap(),
                        _dir: dir,
                    })
                    .unwrap();
                std::future::pending::<()>().await;
            });
        });
        started.recv().expect("the servers must start")
    })
}

/// The stores of one test.
pub(crate) struct TestStores {
    /// The prefix of every key.
    pub(crate) prefix: String,
    pub(crate) redis_port: u16,
    pub(crate) mysql_port: u16,
    /// The test's own database.
    pub(crate) mysql_url: String,
    /// A connection pool of that database.
    pub(crate) mysql: MySqlPool,
    /// A Redis that only this test uses.
    own_redis: Option<(PrivateRedis, TempDir)>,
    /// The nodes, if Redis is a cluster or behind Sentinels.
    pub(crate) several: Option<RedisNodes>,
}

/// Redis nodes that belong together: a cluster, or the data nodes behind Sentinels.
pub(crate) struct RedisNodes {
    pub(crate) url: String,
    /// The ports of all data nodes.
    pub(crate) ports: Vec<u16>,
    pub(crate) cluster: bool,
    /// The replicas of each primary.
    pub(crate) replicas: usize,
}

async fn migrate_schema(mysql: &MySqlPool) {
    let partitions = PartitionCount::new(PARTITIONS).unwrap();
    migrate(mysql, Some(partitions), partitions).await.unwrap();
}

impl TestStores {
    /// On Redis nodes of the caller, and on the MariaDB of the run or one of the caller.
    pub(crate) async fn among(several: RedisNodes, mysql: Option<&PrivateMysql>) -> Self {
        let port = several.ports[0];
        let mut stores = Self::of(port, mysql.unwrap_or_else(|| &servers().mysql)).await;
        stores.several = Some(several);
        migrate_schema(&stores.mysql).await;
        stores
    }

    /// A new database and a new key prefix.
    pub(crate) async fn new() -> Self {
        let stores = Self::empty(None).await;
        migrate_schema(&stores.mysql).await;
        stores
    }

    /// As [`Self::new`], with a Redis that this test may empty or kill.
    pub(crate) async fn with_own_redis() -> Self {
        let dir = TempDir::new("it-redis").unwrap();
        let redis = PrivateRedis::start(with_users(dir.path())).await.unwrap();
        let stores = Self::empty(Some((redis, dir))).await;
        migrate_schema(&stores.mysql).await;
        stores
    }

    /// As [`Self::with_own_redis`], with a clock that the test can move.
    pub(crate) async fn with_movable_clock(skew: &ClockSkew) -> (Self, MovableRedisClock) {
        let dir = TempDir::new("it-redis").unwrap();
        let (clock, port) = (skew.redis(), usher::dev::free_port().unwrap());
        let redis =
            PrivateRedis::start_program(&clock.program, with_users(dir.path()), port, &[]).await;
        let stores = Self::empty(Some((redis.unwrap(), dir))).await;
        migrate_schema(&stores.mysql).await;
        (stores, clock)
    }

    /// A copy of the files of the test's own Redis.
    pub(crate) fn copy_of_redis_files(&self) -> TempDir {
        let (_, dir) = self.own_redis.as_ref().unwrap();
        let copy = TempDir::new("it-saved").unwrap();
        copy_files(&dir.path().join(AOF), copy.path());
        copy
    }

    /// Kills the test's own Redis and restarts it on the same port with an earlier copy of its
    /// files. `meanwhile` runs while it is down.
    pub(crate) async fn roll_back_redis(&mut self, saved: &TempDir, meanwhile: impl AsyncFnOnce()) {
        let (redis, dir) = self.own_redis.take().unwrap();
        redis.stop().await.unwrap();
        meanwhile().await;
        std::fs::remove_dir_all(dir.path().join(AOF)).unwrap();
        std::fs::create_dir(dir.path().join(AOF)).unwrap();
        copy_files(saved.path(), &dir.path().join(AOF));
        let redis = PrivateRedis::start_on(dir.path(), self.redis_port).await.unwrap();
        self.own_redis = Some((redis, dir));
    }

    /// Deletes a partition from Redis.
    pub(crate) async fn lose_partition(&self, partition: u16) {
        let mut redis = self.redis().await;
        // The fence is deleted first, because a partition that is half deleted would never serve.
        redis.ask(&["DEL", &self.key(partition, "epoch")]).await;
        for key in redis.ask(&["KEYS", &self.key(partition, "*")]).await.list() {
            redis.ask(&["DEL", &key.text()]).await;
        }
    }

    /// On servers of the caller, which it may kill.
    pub(crate) async fn at(redis_port: u16, mysql: &PrivateMysql) -> Self {
        let stores = Self::of(redis_port, mysql).await;
        migrate_schema(&stores.mysql).await;
        stores
    }

    /// A database without a schema.
    pub(crate) async fn without_schema() -> Self {
        Self::empty(None).await
    }

    async fn empty(own_redis: Option<(PrivateRedis, TempDir)>) -> Self {
        let servers = servers();
        let redis_port = own_redis.as_ref().map_or(servers.redis.port(), |(redis, _)| redis.port());
        Self { own_redis, ..Self::of(redis_port, &servers.mysql).await }
    }

    async fn of(redis_port: u16, server: &PrivateMysql) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut connection = MySqlConnection::connect(&server.url()).await.unwrap();
        let create = format!("CREATE DATABASE {prefix}");
        sqlx::query(AssertSqlSafe(create)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let mysql_url = server.url_of(&prefix);
        let mysql = MySqlPoolOptions::new().max_connections(4).connect_lazy(&mysql_url).unwrap();
        Self {
            prefix,
            redis_port,
            mysql_port: server.port(),
            mysql_url,
            mysql,
            own_redis: None,
            several: None,
        }
    }

    pub(crate) fn redis_url(&self) -> String {
        self.several
            .as_ref()
            .map_or_else(|| redis_url_at(self.redis_port), |several| several.url.clone())
    }

    /// The URL of the test's database behind another port.
    pub(crate) fn mysql_url_at(&self, port: u16) -> String {
        self.mysql_url.replace(&format!(":{}/", self.mysql_port), &format!(":{port}/"))
    }

    pub(crate) async fn redis(&self) -> RespClient {
        match &self.several {
            None => RespClient::connect(self.redis_port).await,
            Some(several) => RespClient::among(&several.ports, several.cluster).await,
        }
    }

    /// The full name of a key in a partition.
    pub(crate) fn key(&self, partition: u16, name: &str) -> String {
        format!("{}:{{p{partition}}}:{name}", self.prefix)
    }

    /// The partition of a queue.
    pub(crate) fn partition_of(&self, queue: &str) -> u16 {
        let queue: usher::ids::QueueId = queue.parse().unwrap();
        PartitionCount::new(PARTITIONS).unwrap().of(queue.slot()).get()
    }

    /// One number from MySQL.
    pub(crate) async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.mysql).await.unwrap()
    }

    /// The settings of an instance on these stores.
    pub(crate) fn args(&self) -> ServeArgs {
        let text = |text: &str| Some(text.to_owned());
        ServeArgs {
            secrets: SecretArgs {
                auth: text("header"),
                admin_key: text(ADMIN_KEY),
                token_keys: text(TOKEN_KEYS),
                ..SecretArgs::default()
            },
            stores: StoreArgs {
                redis_url: Some(self.redis_url()),
                mysql_url: Some(self.mysql_url.clone()),
                partitions: Some(PARTITIONS.to_string()),
                key_prefix: Some(self.prefix.clone()),
                ..StoreArgs::default()
            },
            // A machine that runs many tests at once is slow, and these tests do not check speed.
            http: HttpArgs { request_timeout_ms: text("30000"), ..HttpArgs::default() },
            ..ServeArgs::default()
        }
    }
}

/// The URL of the Redis on a port of 127.0.0.1.
pub(crate) fn redis_url_at(port: u16) -> String {
    format!("redis://{REDIS_USER}@127.0.0.1:{port}")
}

/// The Redis user of every instance, as in `deploy/redis/users.acl`.
pub(crate) const REDIS_USER: &str = "usher:of-the-tests-and-not-a-secret";

/// Writes the users of a private Redis: the one of Usher as an operator configures it, but for keys
/// of any prefix, and an unrestricted one for the tests.
pub(crate) fn with_users(dir: &Path) -> &Path {
    let (user, password) = REDIS_USER.split_once(':').unwrap();
    let users = include_str!("../../../deploy/redis/users.acl");
    let mut changed = users.to_owned();
    for (from, to) in [
        ("user default off", "user default on nopass ~* &* +@all"),
        (">PASSWORD", &format!(">{password}")),
        ("~usher:{p*", "~t*:{p*"),
    ] {
        assert!(changed.contains(from) && users.contains(&format!("user {user} on ")), "{users}");
        changed = changed.replace(from, to);
    }
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("users.acl"), changed).unwrap();
    dir
}

/// The directory of the append-only file, below the directory of Redis.
const AOF: &str = "appendonlydir";

fn copy_files(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}
