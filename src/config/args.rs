//! Flags and environment variables, as text. They are parsed later, so that all errors are reported
//! together.
//!
//! The structs have no `Debug`, because some fields are secrets. Each help text ends with
//! `[default: …]` if the setting has a default: docs/reference/settings.md and `usher config check`
//! read it from there.

use clap::Args;

use super::events::EventArgs;

/// Settings of wallets.
#[derive(Args, Clone, Default)]
pub struct WalletArgs {
    /// What charges and rewards may bring a balance to, 1 to 9007199254740991; a refund may exceed
    /// it [default: 9007199254740991]
    #[arg(long, env = "USHER_WALLET_LIMIT", hide_env_values = true, value_name = "AMOUNT")]
    pub wallet_limit: Option<String>,
}

/// Settings of both stores.
#[derive(Args, Clone, Default)]
pub struct StoreArgs {
    /// Currency of all amounts, an ISO 4217 code; the same on all instances [default: KRW]
    #[arg(long, env = "USHER_CURRENCY", hide_env_values = true, value_name = "CODE")]
    pub currency: Option<String>,
    /// URL of Redis: redis://, redis-sentinel:// or redis-cluster://; with TLS rediss://,
    /// rediss-sentinel:// or rediss-cluster://
    #[arg(long, env = "USHER_REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: Option<String>,
    /// URL of MySQL or MariaDB: mysql://user:password@host/database, or mariadb://…
    #[arg(long, env = "USHER_MYSQL_URL", hide_env_values = true, value_name = "URL")]
    pub mysql_url: Option<String>,
    /// PEM file of certificate authorities for Redis over TLS [default: Mozilla's list]
    #[arg(long, env = "USHER_REDIS_CA_FILE", hide_env_values = true, value_name = "FILE")]
    pub redis_ca_file: Option<String>,
    /// PEM file of certificate authorities for MySQL; requires TLS and checks the host name
    /// [default: ssl-mode of the URL]
    #[arg(long, env = "USHER_MYSQL_CA_FILE", hide_env_values = true, value_name = "FILE")]
    pub mysql_ca_file: Option<String>,
    /// Number of partitions, 1 to 4096; must match the database [default: as in the database]
    #[arg(long, env = "USHER_PARTITIONS", hide_env_values = true, value_name = "COUNT")]
    pub partitions: Option<String>,
    /// Prefix of all keys in Redis, [a-z0-9_-]{1,32} [default: usher]
    #[arg(long, env = "USHER_KEY_PREFIX", hide_env_values = true, value_name = "PREFIX")]
    pub key_prefix: Option<String>,
    /// When to respond to a change: accepted (Redis has it) or durable (MySQL has it) [default:
    /// accepted]
    #[arg(long, env = "USHER_ACK", hide_env_values = true, value_name = "WHEN")]
    pub ack: Option<String>,
    /// How long durable waits for MySQL before it responds with 202, 10 to 60000 [default: 3000]
    #[arg(long, env = "USHER_ACK_TIMEOUT_MS", hide_env_values = true, value_name = "MILLISECONDS")]
    pub ack_timeout_ms: Option<String>,
    /// Outbox entries waiting for MySQL before a warning is logged, from 1 [default: 100000]
    #[arg(long, env = "USHER_BACKLOG_WARN", hide_env_values = true, value_name = "COUNT")]
    pub backlog_warn: Option<String>,
    /// Outbox entries waiting for MySQL before everything but payments, releases, cancellations and
    /// refunds is refused; joins are refused halfway between the warning and this limit [default:
    /// 500000]
    #[arg(long, env = "USHER_BACKLOG_LIMIT", hide_env_values = true, value_name = "COUNT")]
    pub backlog_limit: Option<String>,
    /// How long Redis keeps outbox entries that MySQL has, so that they can be written again to a
    /// MySQL that lost its last transactions, 0 to 604800 [default: 3600]
    #[arg(long, env = "USHER_OUTBOX_KEEP_SECONDS", hide_env_values = true, value_name = "SECONDS")]
    pub outbox_keep_seconds: Option<String>,
    /// Memory for these entries in megabytes, of all partitions together, 0 to 1000000; nothing is
    /// kept from USHER_REDIS_MEMORY_WARN_PERCENT on [default: 256]
    #[arg(
        long,
        env = "USHER_OUTBOX_KEEP_MEGABYTES",
        hide_env_values = true,
        value_name = "MEGABYTES"
    )]
    pub outbox_keep_megabytes: Option<String>,
    #[command(flatten)]
    pub events: EventArgs,
    /// Like USHER_BACKLOG_WARN, for memory of Redis in percent of maxmemory, 1 to 100 [default: 70]
    #[arg(
        long,
        env = "USHER_REDIS_MEMORY_WARN_PERCENT",
        hide_env_values = true,
        value_name = "PERCENT"
    )]
    pub redis_memory_warn_percent: Option<String>,
    /// Like USHER_BACKLOG_LIMIT, for memory of Redis in percent of maxmemory, 1 to 100 [default:
    /// 85]
    #[arg(
        long,
        env = "USHER_REDIS_MEMORY_LIMIT_PERCENT",
        hide_env_values = true,
        value_name = "PERCENT"
    )]
    pub redis_memory_limit_percent: Option<String>,
    /// Replicas that must acknowledge a change before the response and before the write to MySQL, 0
    /// to 16 [default: 0]
    #[arg(long, env = "USHER_REDIS_WAIT_REPLICAS", hide_env_values = true, value_name = "COUNT")]
    pub redis_wait_replicas: Option<String>,
    /// Also wait until the append-only files of the primary and these replicas are on disk; needs
    /// Redis 7.2: true or false [default: false]
    #[arg(long, env = "USHER_REDIS_WAIT_AOF", hide_env_values = true, value_name = "BOOL")]
    pub redis_wait_aof: Option<String>,
    /// Accept a Redis that may evict keys or has no append-only file: true or false [default:
    /// false]
    #[arg(long, env = "USHER_REDIS_MAY_FORGET", hide_env_values = true, value_name = "BOOL")]
    pub redis_may_forget: Option<String>,
    #[command(flatten)]
    pub wallet: WalletArgs,
}

/// Settings of commands that use MySQL only.
#[derive(Args, Clone, Default)]
pub struct MysqlArgs {
    /// URL of MySQL or MariaDB: mysql://user:password@host/database, or mariadb://…
    #[arg(long, env = "USHER_MYSQL_URL", hide_env_values = true, value_name = "URL")]
    pub mysql_url: Option<String>,
    /// PEM file of certificate authorities for MySQL; requires TLS and checks the host name
    /// [default: ssl-mode of the URL]
    #[arg(long, env = "USHER_MYSQL_CA_FILE", hide_env_values = true, value_name = "FILE")]
    pub mysql_ca_file: Option<String>,
}

/// Settings of `usher migrate`.
#[derive(Args, Clone, Default)]
pub struct MigrateArgs {
    #[command(flatten)]
    pub mysql: MysqlArgs,
    /// URL of Redis, which is not contacted: for a redis-cluster:// URL the default number of
    /// partitions is 64
    #[arg(long, env = "USHER_REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: Option<String>,
    /// Number of partitions, 1 to 4096; the first migration stores it [default: 8, or 64 with Redis
    /// Cluster]
    #[arg(long, env = "USHER_PARTITIONS", hide_env_values = true, value_name = "COUNT")]
    pub partitions: Option<String>,
}

/// Settings of `usher top`.
#[derive(Args, Clone, Default)]
pub struct TopArgs {
    /// URL of the admin listener [default: http://127.0.0.1:8081]
    #[arg(long, env = "USHER_ADMIN_URL", hide_env_values = true, value_name = "URL")]
    pub admin_url: Option<String>,
    /// Admin key of the instance; without it modes, limits and estimated waits are not shown
    #[arg(long, env = "USHER_ADMIN_KEY", hide_env_values = true, value_name = "KEY")]
    pub admin_key: Option<String>,
    /// Print one screen and exit, for scripts
    #[arg(long)]
    pub once: bool,
}

/// Settings of the commands for incidents.
#[derive(Args, Clone, Default)]
pub struct OperatorArgs {
    /// URL of the admin listener [default: http://127.0.0.1:8081]
    #[arg(long, env = "USHER_ADMIN_URL", hide_env_values = true, value_name = "URL")]
    pub admin_url: Option<String>,
    /// Admin key whose role permits the command
    #[arg(long, env = "USHER_ADMIN_KEY", hide_env_values = true, value_name = "KEY")]
    pub admin_key: Option<String>,
    /// Do not ask before what can't be undone
    #[arg(long)]
    pub yes: bool,
}

/// Settings of the listeners.
#[derive(Args, Clone, Default)]
pub struct ListenArgs {
    /// Address of the public listener [default: 127.0.0.1:8080]
    #[arg(long, env = "USHER_LISTEN", hide_env_values = true, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Address of the admin listener [default: 127.0.0.1:8081]
    #[arg(long, env = "USHER_ADMIN_LISTEN", hide_env_values = true, value_name = "ADDRESS")]
    pub admin_listen: Option<String>,
    /// PEM file of the certificate chain of the public listener, which then accepts only TLS;
    /// reloaded when it changes [default: no TLS]
    #[arg(long, env = "USHER_TLS_CERT_FILE", hide_env_values = true, value_name = "FILE")]
    pub tls_cert_file: Option<String>,
    /// PEM file of the private key for USHER_TLS_CERT_FILE
    #[arg(long, env = "USHER_TLS_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    pub tls_key_file: Option<String>,
}

/// Identity modes, keys and secrets.
#[derive(Args, Clone, Default)]
pub struct SecretArgs {
    /// How users are identified, comma-separated: header, service-key, jwt, and guest, which lets
    /// visitors without identity wait in queues
    #[arg(long, env = "USHER_AUTH", hide_env_values = true, value_name = "MODES")]
    pub auth: Option<String>,
    /// Keys of trusted backends for service-key, comma-separated, at least 32 characters each
    #[arg(long, env = "USHER_SERVICE_KEYS", hide_env_values = true, value_name = "KEYS")]
    pub service_keys: Option<String>,
    /// Key that verifies JWTs for jwt: the path of a JWKS file, or an HS256 secret of at least 32
    /// characters
    #[arg(long, env = "USHER_JWT_KEY", hide_env_values = true, value_name = "FILE|SECRET")]
    pub jwt_key: Option<String>,
    /// Required audience (`aud`) of JWTs [default: not checked]
    #[arg(long, env = "USHER_JWT_AUDIENCE", hide_env_values = true, value_name = "AUDIENCE")]
    pub jwt_audience: Option<String>,
    /// Required issuer (`iss`) of JWTs [default: not checked]
    #[arg(long, env = "USHER_JWT_ISSUER", hide_env_values = true, value_name = "ISSUER")]
    pub jwt_issuer: Option<String>,
    /// Key for the admin API, at least 32 characters
    #[arg(long, env = "USHER_ADMIN_KEY", hide_env_values = true, value_name = "KEY")]
    pub admin_key: Option<String>,
    /// Further keys for the admin API: name:role:secret, comma-separated, with the role viewer
    /// (reads), operator (queues, holds, users, facts, jobs) or admin (everything). USHER_ADMIN_KEY
    /// is the key named admin with the role admin, and optional if this is given
    #[arg(long, env = "USHER_ADMIN_KEYS", hide_env_values = true, value_name = "KEYS")]
    pub admin_keys: Option<String>,
    /// Keys that sign queue tokens: kid:secret, comma-separated; the first signs, all verify
    #[arg(long, env = "USHER_TOKEN_KEYS", hide_env_values = true, value_name = "KEYS")]
    pub token_keys: Option<String>,
}

/// Limits and timeouts.
#[derive(Args, Clone, Default)]
pub struct HttpArgs {
    /// Trusted proxies in front of the service, 0 to 16: the number of trusted entries in
    /// X-Forwarded-For [default: 0]
    #[arg(long, env = "USHER_TRUSTED_PROXIES", hide_env_values = true, value_name = "COUNT")]
    pub trusted_proxies: Option<String>,
    /// Requests per second per user; 0 disables [default: 100]
    #[arg(long, env = "USHER_LIMIT_USER_PER_SECOND", hide_env_values = true, value_name = "COUNT")]
    pub limit_user_per_second: Option<String>,
    /// Requests that an idle user may send at once [default: 400]
    #[arg(long, env = "USHER_LIMIT_USER_BURST", hide_env_values = true, value_name = "COUNT")]
    pub limit_user_burst: Option<String>,
    /// Requests per second per client address; 0 disables [default: 0]
    #[arg(
        long,
        env = "USHER_LIMIT_ADDRESS_PER_SECOND",
        hide_env_values = true,
        value_name = "COUNT"
    )]
    pub limit_address_per_second: Option<String>,
    /// Requests per second in total; 0 disables [default: 0]
    #[arg(
        long,
        env = "USHER_LIMIT_GLOBAL_PER_SECOND",
        hide_env_values = true,
        value_name = "COUNT"
    )]
    pub limit_global_per_second: Option<String>,
    /// Joins per second per user, with a burst of four seconds; 0 disables [default: as
    /// USHER_LIMIT_USER_PER_SECOND]
    #[arg(long, env = "USHER_LIMIT_JOIN_PER_SECOND", hide_env_values = true, value_name = "COUNT")]
    pub limit_join_per_second: Option<String>,
    /// Polls per second per user, with a burst of four seconds; 0 disables [default: as
    /// USHER_LIMIT_USER_PER_SECOND]
    #[arg(long, env = "USHER_LIMIT_POLL_PER_SECOND", hide_env_values = true, value_name = "COUNT")]
    pub limit_poll_per_second: Option<String>,
    /// Reads of seat maps and holds per second per user, with a burst of four seconds; 0 disables
    /// [default: as USHER_LIMIT_USER_PER_SECOND]
    #[arg(long, env = "USHER_LIMIT_BOOK_PER_SECOND", hide_env_values = true, value_name = "COUNT")]
    pub limit_book_per_second: Option<String>,
    /// Payments and cancellations per second per user, with a burst of four seconds; 0 disables
    /// [default: as USHER_LIMIT_USER_PER_SECOND]
    #[arg(long, env = "USHER_LIMIT_PAY_PER_SECOND", hide_env_values = true, value_name = "COUNT")]
    pub limit_pay_per_second: Option<String>,
    /// Joins per second in total; 0 disables [default: 0]
    #[arg(
        long,
        env = "USHER_LIMIT_GLOBAL_JOINS_PER_SECOND",
        hide_env_values = true,
        value_name = "COUNT"
    )]
    pub limit_global_joins_per_second: Option<String>,
    /// Requests in flight before all requests are refused; joins are refused from 1/2 of it on,
    /// polls from 3/4, holds from 7/8; 0 disables [default: 20000]
    #[arg(long, env = "USHER_SHED_IN_FLIGHT", hide_env_values = true, value_name = "COUNT")]
    pub shed_in_flight: Option<String>,
    /// Origins of web pages that may call the API (CORS), comma-separated, such as
    /// https://shop.example [default: none]
    #[arg(long, env = "USHER_CORS_ORIGINS", hide_env_values = true, value_name = "ORIGINS")]
    pub cors_origins: Option<String>,
    /// URL that verifies the bot challenge of joins, such as
    /// https://challenges.cloudflare.com/turnstile/v0/siteverify [default: no challenge]
    #[arg(long, env = "USHER_CHALLENGE_URL", hide_env_values = true, value_name = "URL")]
    pub challenge_url: Option<String>,
    /// Secret key of the challenge provider
    #[arg(long, env = "USHER_CHALLENGE_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub challenge_secret: Option<String>,
    /// Timeout of one verification by the challenge provider, 100 to 30000 [default: 2000]
    #[arg(
        long,
        env = "USHER_CHALLENGE_TIMEOUT_MS",
        hide_env_values = true,
        value_name = "MILLISECONDS"
    )]
    pub challenge_timeout_ms: Option<String>,
    /// Accept joins while the challenge provider does not answer: true or false [default: false]
    #[arg(long, env = "USHER_CHALLENGE_FAIL_OPEN", hide_env_values = true, value_name = "BOOL")]
    pub challenge_fail_open: Option<String>,
    /// Widget of the challenge on the built-in waiting page: `turnstile:SITE_KEY` or
    /// `hcaptcha:SITE_KEY` [default: none]
    #[arg(long, env = "USHER_CHALLENGE_WIDGET", hide_env_values = true, value_name = "WIDGET")]
    pub challenge_widget: Option<String>,
    /// Sign-in page of the site, http:// or https://; the built-in waiting page has a link to it
    /// where users must be signed in [default: none]
    #[arg(long, env = "USHER_LOGIN_URL", hide_env_values = true, value_name = "URL")]
    pub login_url: Option<String>,
    /// Concurrent connections of the public listener, 1 to 1000000; each event stream needs one.
    /// The limit of open files is raised if possible [default: 25000]
    #[arg(long, env = "USHER_MAX_CONNECTIONS", hide_env_values = true, value_name = "COUNT")]
    pub max_connections: Option<String>,
    /// Concurrent connections from one address (IPv6: one /64), 0 to 1000000; 0 disables. Do not
    /// use it behind a proxy, which has one address for all clients [default: 0]
    #[arg(
        long,
        env = "USHER_MAX_CONNECTIONS_PER_ADDRESS",
        hide_env_values = true,
        value_name = "COUNT"
    )]
    pub max_connections_per_address: Option<String>,
    /// Concurrent event streams, 1 to 1000000; must be less than the connections, so that other
    /// requests get one [default: 80 % of USHER_MAX_CONNECTIONS]
    #[arg(long, env = "USHER_MAX_STREAMS", hide_env_values = true, value_name = "COUNT")]
    pub max_streams: Option<String>,
    /// Concurrent event streams of one user, 0 to 1000000; 0 disables [default: 3]
    #[arg(long, env = "USHER_MAX_STREAMS_PER_USER", hide_env_values = true, value_name = "COUNT")]
    pub max_streams_per_user: Option<String>,
    /// Timeout for the headers of a request, for a TLS handshake, and for a write without progress,
    /// 100 to 600000 [default: 10000]
    #[arg(
        long,
        env = "USHER_HEADER_TIMEOUT_MS",
        hide_env_values = true,
        value_name = "MILLISECONDS"
    )]
    pub header_timeout_ms: Option<String>,
    /// How long a connection may be idle, 1 to 3600; must be longer than the idle timeout of the
    /// load balancer [default: 75]
    #[arg(
        long,
        env = "USHER_IDLE_TIMEOUT_SECONDS",
        hide_env_values = true,
        value_name = "SECONDS"
    )]
    pub idle_timeout_seconds: Option<String>,
    /// Time from the signal to the forced end of a shutdown, 0 to 3600 [default: 20]
    #[arg(long, env = "USHER_DRAIN_SECONDS", hide_env_values = true, value_name = "SECONDS")]
    pub drain_seconds: Option<String>,
    /// Timeout of a request, 100 to 600000; 30 seconds more on the admin listener, where a request
    /// may wait for events [default: 10000]
    #[arg(
        long,
        env = "USHER_REQUEST_TIMEOUT_MS",
        hide_env_values = true,
        value_name = "MILLISECONDS"
    )]
    pub request_timeout_ms: Option<String>,
    /// Maximum length of a request body, 1024 to 16777216 [default: 65536]
    #[arg(long, env = "USHER_BODY_LIMIT_BYTES", hide_env_values = true, value_name = "BYTES")]
    pub body_limit_bytes: Option<String>,
    /// Maximum length of a request body on the admin listener, 1024 to 67108864. The default fits
    /// the largest concert [default: 8388608]
    #[arg(
        long,
        env = "USHER_ADMIN_BODY_LIMIT_BYTES",
        hide_env_values = true,
        value_name = "BYTES"
    )]
    pub admin_body_limit_bytes: Option<String>,
}

/// Settings of `usher serve`.
#[derive(Args, Clone, Default)]
pub struct ServeArgs {
    #[command(flatten)]
    pub listen: ListenArgs,
    #[command(flatten)]
    pub stores: StoreArgs,
    #[command(flatten)]
    pub secrets: SecretArgs,
    #[command(flatten)]
    pub http: HttpArgs,
}

/// Settings of `usher dev`, which generates its servers and secrets.
#[derive(Args, Clone, Default)]
pub struct DevArgs {
    #[command(flatten)]
    pub listen: ListenArgs,
    #[command(flatten)]
    pub wallet: WalletArgs,
    #[command(flatten)]
    pub http: HttpArgs,
    /// Directory for the data of the private servers [default: .usher]
    #[arg(long, env = "USHER_DATA_DIR", hide_env_values = true, value_name = "DIRECTORY")]
    pub data_dir: Option<String>,
    /// Simulated users at the start, 0 to 5000; they stop after 15 minutes, and the console starts
    /// them again [default: 0]
    #[arg(long, env = "USHER_CROWD", hide_env_values = true, value_name = "COUNT")]
    pub crowd: Option<String>,
}
