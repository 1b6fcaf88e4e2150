//! One Redis and one MariaDB for the whole run, which end with the process; each test has a key prefix and a database of its own.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::mysql::{MySqlPool, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};
use usher::config::args::{HttpArgs, SecretArgs, ServeArgs, StoreArgs};
use usher::dev::{MysqlDurability, PrivateMysql, PrivateRedis, TempDir};
use usher::mysql::migrate::migrate;
use usher::partition::PartitionCount;

use super::resp::Resp;

/// Partitions of every test's stores: few, so that nobody waits for sixty-four rows, and more than one, so that payments cross.
pub(crate) const PARTITIONS: u16 = 4;
/// The key of the admin listener in every test.
pub(crate) const ADMIN_KEY: &str = "0ff1ce-c2b7a9d84e5f6a1b3c8d7e9f0a";
/// The keys that sign queue tokens in every test.
pub(crate) const TOKEN_KEYS: &str = "k1:d41d8cd98f00b204e9800998ecf8427e";

struct Servers {
    redis: PrivateRedis,
    mysql: PrivateMysql,
    _dir: TempDir,
}

/// Starts the servers once, in a runtime that outlives every test's.
fn servers() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
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
                    .send(Servers { redis: both.0.unwrap(), mysql: both.1.unwrap(), _dir: dir })
                    .unwrap();
                std::future::pending::<()>().await;
            });
        });
        started.recv().expect("the servers start")
    })
}

/// The stores of one test.
pub(crate) struct Stores {
    /// What every key begins with.
    pub(crate) prefix: String,
    /// Where Redis is.
    pub(crate) redis_port: u16,
    /// Where MySQL is.
    pub(crate) mysql_port: u16,
    /// The test's own database.
    pub(crate) mysql_url: String,
    /// A way into it.
    pub(crate) mysql: MySqlPool,
    /// A Redis that only this test has.
    own_redis: Option<(PrivateRedis, TempDir)>,
    /// Several that stand together, where it is not one.
    pub(crate) several: Option<Several>,
}

/// Redis servers that stand together: a cluster, or what Sentinels watch.
pub(crate) struct Several {
    pub(crate) url: String,
    /// Of all that hold data.
    pub(crate) ports: Vec<u16>,
    pub(crate) cluster: bool,
}

impl Stores {
    /// On several Redis servers of the caller's own, and the run's MariaDB or one of the caller's own.
    pub(crate) async fn among(several: Several, mysql: Option<&PrivateMysql>) -> Self {
        let port = several.ports[0];
        let mut stores = Self::of(port, mysql.unwrap_or_else(|| &servers().mysql)).await;
        stores.several = Some(several);
        migrate(&stores.mysql, PartitionCount::new(PARTITIONS).unwrap()).await.unwrap();
        stores
    }

    /// A database and a prefix that nothing else uses.
    pub(crate) async fn new() -> Self {
        let stores = Self::empty(None).await;
        migrate(&stores.mysql, PartitionCount::new(PARTITIONS).unwrap()).await.unwrap();
        stores
    }

    /// The same with a Redis that this test may empty or kill.
    pub(crate) async fn with_own_redis() -> Self {
        let dir = TempDir::new("it-redis").unwrap();
        let redis = PrivateRedis::start(with_users(dir.path())).await.unwrap();
        let stores = Self::empty(Some((redis, dir))).await;
        migrate(&stores.mysql, PartitionCount::new(PARTITIONS).unwrap()).await.unwrap();
        stores
    }

    /// What the test's own Redis has on disk now.
    pub(crate) fn saved(&self) -> TempDir {
        let (_, dir) = self.own_redis.as_ref().unwrap();
        let copy = TempDir::new("it-saved").unwrap();
        copy_files(&dir.path().join(AOF), copy.path());
        copy
    }

    /// Kills the test's own Redis and brings it back on the same port with what it had on disk at another time. `meanwhile` runs while it is away.
    pub(crate) async fn rolled_back(&mut self, saved: &TempDir, meanwhile: impl AsyncFnOnce()) {
        let (redis, dir) = self.own_redis.take().unwrap();
        redis.stop().await.unwrap();
        meanwhile().await;
        std::fs::remove_dir_all(dir.path().join(AOF)).unwrap();
        std::fs::create_dir(dir.path().join(AOF)).unwrap();
        copy_files(saved.path(), &dir.path().join(AOF));
        let redis = PrivateRedis::start_on(dir.path(), self.redis_port).await.unwrap();
        self.own_redis = Some((redis, dir));
    }

    /// The partition of a user.
    pub(crate) fn partition_of_user(&self, user: &str) -> u16 {
        let user: usher::ids::UserId = user.parse().unwrap();
        PartitionCount::new(PARTITIONS).unwrap().of(user.slot()).get()
    }

    /// Takes a partition out of Redis.
    pub(crate) async fn lose(&self, partition: u16) {
        let mut redis = self.redis().await;
        // The fence first, as a partition that is half gone would never serve.
        redis.ask(&["DEL", &self.key(partition, "epoch")]).await;
        for key in redis.ask(&["KEYS", &self.key(partition, "*")]).await.list() {
            redis.ask(&["DEL", &key.text()]).await;
        }
    }

    /// On servers of the caller's own, which it may kill.
    pub(crate) async fn at(redis_port: u16, mysql: &PrivateMysql) -> Self {
        let stores = Self::of(redis_port, mysql).await;
        migrate(&stores.mysql, PartitionCount::new(PARTITIONS).unwrap()).await.unwrap();
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

    /// Where Redis is, as a URL.
    pub(crate) fn redis_url(&self) -> String {
        self.several
            .as_ref()
            .map_or_else(|| redis_url_at(self.redis_port), |several| several.url.clone())
    }

    /// The test's own database behind another port.
    pub(crate) fn mysql_url_at(&self, port: u16) -> String {
        self.mysql_url.replace(&format!(":{}/", self.mysql_port), &format!(":{port}/"))
    }

    /// A connection to Redis that knows nothing of Usher.
    pub(crate) async fn redis(&self) -> Resp {
        match &self.several {
            None => Resp::connect(self.redis_port).await,
            Some(several) => Resp::among(&several.ports, several.cluster).await,
        }
    }

    /// The name of a partition's key.
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
            // A machine that runs many tests at once is slow, and slowness is not what they look for.
            http: HttpArgs { request_timeout_ms: text("30000"), ..HttpArgs::default() },
            ..ServeArgs::default()
        }
    }
}

/// A port of 127.0.0.1 as the URL of a Redis.
pub(crate) fn redis_url_at(port: u16) -> String {
    format!("redis://{REDIS_USER}@127.0.0.1:{port}")
}

/// The user that every instance is in Redis: the one that `deploy/redis/users.acl` describes.
pub(crate) const REDIS_USER: &str = "usher:of-the-tests-and-not-a-secret";

/// Gives a private Redis its users: Usher's as an operator would have it, but for keys of any prefix, and one for the tests themselves, who may do everything.
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

/// Where Redis keeps its append-only file, in its directory.
const AOF: &str = "appendonlydir";

fn copy_files(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}
