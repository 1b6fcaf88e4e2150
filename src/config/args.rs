//! Flags and environment variables, as text: what they mean is checked afterwards, so that all mistakes are told at once.
//!
//! The structs have no `Debug`: some fields are secrets.

use clap::Args;

/// Redis and MySQL.
#[derive(Args, Clone, Default)]
pub struct StoreArgs {
    /// redis://, redis-sentinel:// or redis-cluster://; with TLS rediss://, rediss-sentinel:// or rediss-cluster://
    #[arg(long, env = "USHER_REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: Option<String>,
    /// mysql:// or mariadb://, with the name of the database
    #[arg(long, env = "USHER_MYSQL_URL", hide_env_values = true, value_name = "URL")]
    pub mysql_url: Option<String>,
    /// Authorities (PEM) that vouch for a Redis behind TLS [default: Mozilla's]
    #[arg(long, env = "USHER_REDIS_CA_FILE", hide_env_values = true, value_name = "FILE")]
    pub redis_ca_file: Option<String>,
    /// Authorities (PEM) that vouch for MySQL: with them it must speak TLS under its own name [default: as ssl-mode of the URL says]
    #[arg(long, env = "USHER_MYSQL_CA_FILE", hide_env_values = true, value_name = "FILE")]
    pub mysql_ca_file: Option<String>,
    /// Partitions, 1 to 4096; as at the first migration [default: 64]
    #[arg(long, env = "USHER_PARTITIONS", hide_env_values = true, value_name = "COUNT")]
    pub partitions: Option<String>,
    /// What every key in Redis begins with [default: usher]
    #[arg(long, env = "USHER_KEY_PREFIX", hide_env_values = true, value_name = "PREFIX")]
    pub key_prefix: Option<String>,
    /// When a change is answered: accepted (Redis has it) or durable (MySQL has it) [default: accepted]
    #[arg(long, env = "USHER_ACK", hide_env_values = true, value_name = "WHEN")]
    pub ack: Option<String>,
    /// How long durable waits before it answers 202, 10 to 60000 [default: 3000]
    #[arg(long, env = "USHER_ACK_TIMEOUT_MS", hide_env_values = true, value_name = "MILLISECONDS")]
    pub ack_timeout_ms: Option<String>,
    /// Entries that may wait for MySQL before somebody is warned, from 1 [default: 100000]
    #[arg(long, env = "USHER_BACKLOG_WARN", hide_env_values = true, value_name = "COUNT")]
    pub backlog_warn: Option<String>,
    /// Entries that may wait for MySQL before nobody is let in and nothing is held; joins stop halfway [default: 500000]
    #[arg(long, env = "USHER_BACKLOG_LIMIT", hide_env_values = true, value_name = "COUNT")]
    pub backlog_limit: Option<String>,
    /// The same in percent of Redis' maxmemory: the warning, 1 to 100 [default: 70]
    #[arg(
        long,
        env = "USHER_REDIS_MEMORY_WARN_PERCENT",
        hide_env_values = true,
        value_name = "PERCENT"
    )]
    pub redis_memory_warn_percent: Option<String>,
    /// The same in percent of Redis' maxmemory: the limit, 1 to 100 [default: 85]
    #[arg(
        long,
        env = "USHER_REDIS_MEMORY_LIMIT_PERCENT",
        hide_env_values = true,
        value_name = "PERCENT"
    )]
    pub redis_memory_limit_percent: Option<String>,
    /// Replicas that must have a change before it is answered or brought to MySQL, 0 to 16 [default: 0]
    #[arg(long, env = "USHER_REDIS_WAIT_REPLICAS", hide_env_values = true, value_name = "COUNT")]
    pub redis_wait_replicas: Option<String>,
    /// Whether their append-only files must have it on disk too, and the primary's: true or false; Redis 7.2 [default: false]
    #[arg(long, env = "USHER_REDIS_WAIT_AOF", hide_env_values = true, value_name = "BOOL")]
    pub redis_wait_aof: Option<String>,
    /// Serve on a Redis that evicts or keeps no append-only file: true or false [default: false]
    #[arg(long, env = "USHER_REDIS_MAY_FORGET", hide_env_values = true, value_name = "BOOL")]
    pub redis_may_forget: Option<String>,
}

/// What `usher migrate` needs.
#[derive(Args, Clone, Default)]
pub struct MigrateArgs {
    /// mysql:// or mariadb://, with the name of the database
    #[arg(long, env = "USHER_MYSQL_URL", hide_env_values = true, value_name = "URL")]
    pub mysql_url: Option<String>,
    /// Authorities (PEM) that vouch for MySQL: with them it must speak TLS under its own name [default: as ssl-mode of the URL says]
    #[arg(long, env = "USHER_MYSQL_CA_FILE", hide_env_values = true, value_name = "FILE")]
    pub mysql_ca_file: Option<String>,
    /// Partitions, 1 to 4096; recorded at the first migration [default: 64]
    #[arg(long, env = "USHER_PARTITIONS", hide_env_values = true, value_name = "COUNT")]
    pub partitions: Option<String>,
}

/// What `usher top` takes.
#[derive(Args, Clone, Default)]
pub struct TopArgs {
    /// Where an admin listener is [default: http://127.0.0.1:8081]
    #[arg(long, env = "USHER_ADMIN_URL", hide_env_values = true, value_name = "URL")]
    pub admin_url: Option<String>,
    /// Its key; without one modes, bounds and estimates are not shown
    #[arg(long, env = "USHER_ADMIN_KEY", hide_env_values = true, value_name = "KEY")]
    pub admin_key: Option<String>,
    /// One screen of the last second, for scripts
    #[arg(long)]
    pub once: bool,
}

/// Where to listen.
#[derive(Args, Clone, Default)]
pub struct ListenArgs {
    /// Address of the public listener [default: 127.0.0.1:8080]
    #[arg(long, env = "USHER_LISTEN", hide_env_values = true, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Address of the admin listener [default: 127.0.0.1:8081]
    #[arg(long, env = "USHER_ADMIN_LISTEN", hide_env_values = true, value_name = "ADDRESS")]
    pub admin_listen: Option<String>,
    /// Certificate chain (PEM) of the public listener, which then speaks TLS alone; read again when it changes [default: no TLS]
    #[arg(long, env = "USHER_TLS_CERT_FILE", hide_env_values = true, value_name = "FILE")]
    pub tls_cert_file: Option<String>,
    /// Its key (PEM)
    #[arg(long, env = "USHER_TLS_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    pub tls_key_file: Option<String>,
}

/// Who may call, and with what.
#[derive(Args, Clone, Default)]
pub struct SecretArgs {
    /// How users are known, comma-separated: header, service-key, jwt
    #[arg(long, env = "USHER_AUTH", hide_env_values = true, value_name = "MODES")]
    pub auth: Option<String>,
    /// Keys of trusted backends, comma-separated, 32 characters or more each
    #[arg(long, env = "USHER_SERVICE_KEYS", hide_env_values = true, value_name = "KEYS")]
    pub service_keys: Option<String>,
    /// What signs users' JWTs: a path of a JWKS file that exists, else an HS256 secret of 32 characters or more
    #[arg(long, env = "USHER_JWT_KEY", hide_env_values = true, value_name = "FILE|SECRET")]
    pub jwt_key: Option<String>,
    /// What the `aud` of a JWT must contain [default: not looked at]
    #[arg(long, env = "USHER_JWT_AUDIENCE", hide_env_values = true, value_name = "AUDIENCE")]
    pub jwt_audience: Option<String>,
    /// What the `iss` of a JWT must be [default: not looked at]
    #[arg(long, env = "USHER_JWT_ISSUER", hide_env_values = true, value_name = "ISSUER")]
    pub jwt_issuer: Option<String>,
    /// Key of the admin listener, 32 characters or more
    #[arg(long, env = "USHER_ADMIN_KEY", hide_env_values = true, value_name = "KEY")]
    pub admin_key: Option<String>,
    /// What signs queue tokens: kid:secret, comma-separated, the newest first
    #[arg(long, env = "USHER_TOKEN_KEYS", hide_env_values = true, value_name = "KEYS")]
    pub token_keys: Option<String>,
}

/// Bounds on requests.
#[derive(Args, Clone, Default)]
pub struct HttpArgs {
    /// How many proxies of your own stand in front, 0 to 16: so many entries of X-Forwarded-For are believed [default: 0]
    #[arg(long, env = "USHER_TRUSTED_PROXIES", hide_env_values = true, value_name = "COUNT")]
    pub trusted_proxies: Option<String>,
    /// Requests per second of one user; 0 is off [default: 100]
    #[arg(long, env = "USHER_LIMIT_USER_PER_SECOND", hide_env_values = true, value_name = "COUNT")]
    pub limit_user_per_second: Option<String>,
    /// Requests a quiet user may make at once [default: 400]
    #[arg(long, env = "USHER_LIMIT_USER_BURST", hide_env_values = true, value_name = "COUNT")]
    pub limit_user_burst: Option<String>,
    /// Requests per second of one address; 0 is off [default: 0]
    #[arg(
        long,
        env = "USHER_LIMIT_ADDRESS_PER_SECOND",
        hide_env_values = true,
        value_name = "COUNT"
    )]
    pub limit_address_per_second: Option<String>,
    /// Requests per second in all; 0 is off [default: 0]
    #[arg(
        long,
        env = "USHER_LIMIT_GLOBAL_PER_SECOND",
        hide_env_values = true,
        value_name = "COUNT"
    )]
    pub limit_global_per_second: Option<String>,
    /// Joins per second of one user, with a burst of four seconds' worth; 0 is off [default: as USHER_LIMIT_USER_PER_SECOND]
    #[arg(long, env = "USHER_LIMIT_JOIN_PER_SECOND", hide_env_values = true, value_name = "COUNT")]
    pub limit_join_per_second: Option<String>,
    /// The same of polls
    #[arg(long, env = "USHER_LIMIT_POLL_PER_SECOND", hide_env_values = true, value_name = "COUNT")]
    pub limit_poll_per_second: Option<String>,
    /// The same of looking for seats and holding them
    #[arg(long, env = "USHER_LIMIT_BOOK_PER_SECOND", hide_env_values = true, value_name = "COUNT")]
    pub limit_book_per_second: Option<String>,
    /// The same of payments and cancellations
    #[arg(long, env = "USHER_LIMIT_PAY_PER_SECOND", hide_env_values = true, value_name = "COUNT")]
    pub limit_pay_per_second: Option<String>,
    /// Joins per second in all; 0 is off [default: 0]
    #[arg(
        long,
        env = "USHER_LIMIT_GLOBAL_JOINS_PER_SECOND",
        hide_env_values = true,
        value_name = "COUNT"
    )]
    pub limit_global_joins_per_second: Option<String>,
    /// Requests that are answered at once before all but payments are refused, joins from half of it on; 0 is off [default: 20000]
    #[arg(long, env = "USHER_SHED_IN_FLIGHT", hide_env_values = true, value_name = "COUNT")]
    pub shed_in_flight: Option<String>,
    /// Origins whose pages may call the API from a browser, comma-separated, such as https://shop.example [default: none]
    #[arg(long, env = "USHER_CORS_ORIGINS", hide_env_values = true, value_name = "ORIGINS")]
    pub cors_origins: Option<String>,
    /// Where the proof in Usher-Challenge is checked at joins, such as https://challenges.cloudflare.com/turnstile/v0/siteverify [default: not asked for]
    #[arg(long, env = "USHER_CHALLENGE_URL", hide_env_values = true, value_name = "URL")]
    pub challenge_url: Option<String>,
    /// What that service knows this one by
    #[arg(long, env = "USHER_CHALLENGE_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub challenge_secret: Option<String>,
    /// How long that service may take, 100 to 30000 [default: 2000]
    #[arg(
        long,
        env = "USHER_CHALLENGE_TIMEOUT_MS",
        hide_env_values = true,
        value_name = "MILLISECONDS"
    )]
    pub challenge_timeout_ms: Option<String>,
    /// Whether joins go on when that service does not answer: true or false [default: false]
    #[arg(long, env = "USHER_CHALLENGE_FAIL_OPEN", hide_env_values = true, value_name = "BOOL")]
    pub challenge_fail_open: Option<String>,
    /// Connections of the public listener that stand at once, 1 to 1000000; a stream is one. The limit of open files is raised to fit, as far as it may be [default: 25000]
    #[arg(long, env = "USHER_MAX_CONNECTIONS", hide_env_values = true, value_name = "COUNT")]
    pub max_connections: Option<String>,
    /// The same from one address (of IPv6: one /64), 0 to 1000000; 0 is off. Not behind a proxy, which is one address for all [default: 0]
    #[arg(
        long,
        env = "USHER_MAX_CONNECTIONS_PER_ADDRESS",
        hide_env_values = true,
        value_name = "COUNT"
    )]
    pub max_connections_per_address: Option<String>,
    /// From the first byte of a request to its last header, for a TLS handshake, and for a write that moves nothing, 100 to 600000 [default: 10000]
    #[arg(
        long,
        env = "USHER_HEADER_TIMEOUT_MS",
        hide_env_values = true,
        value_name = "MILLISECONDS"
    )]
    pub header_timeout_ms: Option<String>,
    /// How long a connection may stand without a request, 1 to 3600; longer than the load balancer in front keeps its own [default: 75]
    #[arg(
        long,
        env = "USHER_IDLE_TIMEOUT_SECONDS",
        hide_env_values = true,
        value_name = "SECONDS"
    )]
    pub idle_timeout_seconds: Option<String>,
    /// From the signal to the end of a shutdown, 0 to 3600 [default: 20]
    #[arg(long, env = "USHER_DRAIN_SECONDS", hide_env_values = true, value_name = "SECONDS")]
    pub drain_seconds: Option<String>,
    /// The longest a request may take, 100 to 600000 [default: 10000]
    #[arg(
        long,
        env = "USHER_REQUEST_TIMEOUT_MS",
        hide_env_values = true,
        value_name = "MILLISECONDS"
    )]
    pub request_timeout_ms: Option<String>,
    /// The longest body, 1024 to 16777216 [default: 65536]
    #[arg(long, env = "USHER_BODY_LIMIT_BYTES", hide_env_values = true, value_name = "BYTES")]
    pub body_limit_bytes: Option<String>,
}

/// What `usher serve` takes.
#[derive(Args, Clone, Default)]
pub struct ServeArgs {
    /// Where to listen.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Redis and MySQL.
    #[command(flatten)]
    pub stores: StoreArgs,
    /// Who may call.
    #[command(flatten)]
    pub secrets: SecretArgs,
    /// Bounds on requests.
    #[command(flatten)]
    pub http: HttpArgs,
}

/// What `usher dev` takes; servers and secrets it makes itself.
#[derive(Args, Clone, Default)]
pub struct DevArgs {
    /// Where to listen.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Bounds on requests.
    #[command(flatten)]
    pub http: HttpArgs,
    /// Where its servers keep their data [default: .usher]
    #[arg(long, env = "USHER_DATA_DIR", hide_env_values = true, value_name = "DIRECTORY")]
    pub data_dir: Option<String>,
    /// People of the demo crowd, 0 to 5000; they go home after a quarter of an hour, and the console calls them back [default: 0]
    #[arg(long, env = "USHER_CROWD", hide_env_values = true, value_name = "COUNT")]
    pub crowd: Option<String>,
}
