//! The client: one pool of pipelined connections, set so that nothing is ever sent twice or waits for ever.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::clients::Pool;
use fred::interfaces::{ClientLike, EventInterface, LuaInterface};
use fred::types::config::{
    Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, TcpConfig, TlsConfig, TlsConnector,
    TlsHostMapping, UnresponsiveConfig,
};
use fred::types::{Builder, Value};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::broadcast::error::RecvError;

use super::args::Sealed;
use super::trust::Trust;
use super::{Args, Error, Generations, Keys, Place, Pressure, Reach, Reply, Script};
use crate::failpoint::failpoint;
use crate::telemetry::Metric;
use crate::tls;

/// Pipelining is automatic, so two connections keep Redis' one core busy; a third only adds wake-ups.
const CONNECTIONS: usize = 2;
/// Commands that may wait in one connection's buffer. The coalescers bound the load long before; this bounds everything else.
const BUFFERED_COMMANDS: usize = 20_000;

/// How Redis is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `redis://`, `redis-sentinel://` or `redis-cluster://`; with TLS `rediss…`.
    pub url: SecretString,
    /// The authorities (PEM) that vouch for a Redis behind TLS; without a file Mozilla's.
    pub ca_file: Option<PathBuf>,
    /// How long a command may take before its caller is told that Redis is unavailable.
    pub command_timeout: Duration,
    /// Serves on a Redis that may forget, too.
    pub may_forget: bool,
    /// What a write must have reached before it is answered.
    pub reach: Reach,
}

/// The client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Redis(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: Pool,
    keys: Keys,
    generations: Generations,
    trust: Trust,
    pressure: Pressure,
    reach: Reach,
}

impl Redis {
    /// Connects, and refuses a Redis that may forget, unless that is allowed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the address is wrong, nobody answers, or Redis is not as it must be.
    pub async fn connect(settings: &Settings, keys: Keys) -> Result<Self, Error> {
        let mut config = config(settings)?;
        config.fail_fast = true;
        let mut builder = Builder::from_config(config);
        builder.set_performance_config(PerformanceConfig {
            default_command_timeout: settings.command_timeout,
            ..PerformanceConfig::default()
        });
        builder.set_connection_config(ConnectionConfig {
            connection_timeout: Duration::from_secs(5),
            internal_command_timeout: Duration::from_secs(5),
            // With more than one attempt the driver repeats a command whose reply was lost, and its effect is there twice.
            max_command_attempts: 1,
            max_command_buffer_len: BUFFERED_COMMANDS,
            unresponsive: UnresponsiveConfig {
                max_timeout: Some(settings.command_timeout * 2),
                interval: Duration::from_millis(500),
            },
            tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
            ..ConnectionConfig::default()
        });
        builder.set_policy(ReconnectPolicy::new_exponential(0, 50, 2_000, 2));
        let pool = builder.build_pool(CONNECTIONS)?;
        pool.init().await?;
        let generations = Generations::new(keys.partitions());
        let redis = Self(Arc::new(Inner {
            pool,
            keys,
            generations,
            trust: Trust::default(),
            pressure: Pressure::default(),
            reach: settings.reach,
        }));
        redis.refuse_unsafe(settings.may_forget, settings.reach).await?;
        redis.doubt_reconnections();
        Ok(redis)
    }

    /// Calls a script once and gives its answer.
    ///
    /// # Errors
    /// [`Error::Recovering`] when the partition does not serve, [`Error::NotLaid`] when the script misses settings, [`Error::NoRoom`] when it is refused
    /// for now; else as in [`Error`].
    pub async fn call(&self, script: &'static Script, place: Place<'_>, args: Args) -> Result<Reply, Error> {
        self.0.trust.wait(place.partition).await?;
        let generation = self.0.generations.get(place.partition).ok_or(Error::Recovering(place.partition))?;
        if self.0.pressure.refuses(script) {
            return Err(Error::NoRoom("too much waits for MySQL"));
        }
        let labels = [("script", script.name())];
        let started = Instant::now();
        failpoint!("{}.before", script.name());
        let answer = self.run(script, place, generation, &args.seal(&generation.to_string())).await;
        failpoint!("{}.after", script.name());
        Metric::ScriptSeconds.histogram(&labels).record(started.elapsed());
        let answer = match answer.and_then(Reply::try_from) {
            Ok(Reply::Int(-1)) => {
                tracing::error!(partition = %place.partition, "another generation stands in Redis; the partition stops serving");
                self.0.generations.close(place.partition);
                self.ask_for_verification();
                Err(Error::Recovering(place.partition))
            }
            Ok(Reply::Int(-2)) => Err(Error::NotLaid),
            other => other,
        };
        let outcome = if answer.is_ok() { "ok" } else { "error" };
        Metric::ScriptCallsTotal.counter(&[labels[0], ("outcome", outcome)]).increment(1);
        answer
    }

    /// By the script's SHA-1. A Redis that does not know it was restarted, replaced or flushed: it is verified anew before it gets the text, which it loads and
    /// runs by one command, so that no second flush can come between. What the script wrote has reached what it must when this returns.
    async fn run(
        &self,
        script: &'static Script,
        place: Place<'_>,
        generation: u64,
        args: &Sealed,
    ) -> Result<Value, Error> {
        let (client, mut session) = (self.client(), self.session());
        let keys = || self.0.keys.build_all(place, script);
        let answer = match client.evalsha(script.sha1(), keys(), args.values()).await {
            Err(error) if is_unknown_script(&error) => {
                self.doubt();
                self.0.trust.wait(place.partition).await?;
                if self.0.generations.get(place.partition) != Some(generation) {
                    return Err(Error::Recovering(place.partition));
                }
                session = self.session();
                client.eval(script.body(), keys(), args.values()).await
            }
            answer => answer,
        }?;
        if self.waits() && script.writes() {
            self.reached(client, session).await?;
        }
        Ok(answer)
    }

    /// Calls a script of recovery under a fence that the caller names, whatever is verified; `more` keys follow those of its header. `None`: another fence
    /// stands there, nothing was changed.
    ///
    /// # Errors
    /// As in [`Error`].
    pub async fn call_fenced(
        &self,
        script: &'static Script,
        place: Place<'_>,
        fence: &str,
        args: Args,
        more: Vec<String>,
    ) -> Result<Option<Reply>, Error> {
        let mut keys = self.0.keys.build_all(place, script);
        keys.extend(more);
        let args = args.seal(fence);
        failpoint!("{}.before", script.name());
        let answer: Value = match self.client().evalsha(script.sha1(), keys.clone(), args.values()).await {
            Err(error) if is_unknown_script(&error) => {
                self.client().eval(script.body(), keys, args.values()).await?
            }
            answer => answer?,
        };
        failpoint!("{}.after", script.name());
        match Reply::try_from(answer)? {
            Reply::Int(-1) => Ok(None),
            reply => Ok(Some(reply)),
        }
    }

    /// The names of keys and partitions.
    pub fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// What is refused while the stores can't keep up.
    pub fn pressure(&self) -> &Pressure {
        &self.0.pressure
    }

    pub(super) fn reach(&self) -> Reach {
        self.0.reach
    }

    /// Which partitions serve, and under which generation.
    pub fn generations(&self) -> &Generations {
        &self.0.generations
    }

    /// Whether Redis answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.client().ping::<Value>(None).await?;
        Ok(())
    }

    /// Raises a doubt whenever a connection was made again, until the client is dropped.
    fn doubt_reconnections(&self) {
        let mut reconnections: Vec<_> =
            self.0.pool.clients().iter().map(EventInterface::reconnect_rx).collect();
        let inner = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                let waits = reconnections.iter_mut().map(|events| Box::pin(events.recv()));
                // Missed ones count as one.
                let (event, ..) = futures::future::select_all(waits).await;
                match inner.upgrade() {
                    Some(inner) if event != Err(RecvError::Closed) => {
                        Metric::RedisReconnectsTotal.counter(&[]).increment(1);
                        Self(inner).doubt();
                    }
                    _ => return,
                }
            }
        });
    }

    /// Which session with Redis this is: another number after every reconnection, `None` while a connection is down. What was read in one session
    /// may be unknown to the Redis of the next.
    pub fn session(&self) -> Option<u64> {
        let up = self.0.pool.clients().iter().all(ClientLike::is_connected);
        up.then(|| self.doubts())
    }

    /// Closes the connections.
    pub async fn close(&self) {
        if let Err(error) = self.0.pool.quit().await {
            tracing::debug!(%error, "closing the connections to Redis");
        }
    }

    pub(super) fn trust_in(&self) -> &Trust {
        &self.0.trust
    }

    pub(super) fn client(&self) -> &fred::clients::Client {
        self.0.pool.next()
    }
}

/// The driver's settings. TLS is ours: left to itself the driver takes the system's authorities and no others.
fn config(settings: &Settings) -> Result<Config, Error> {
    let url = settings.url.expose_secret();
    let Some(rest) = url.strip_prefix("rediss") else { return Ok(Config::from_url(url)?) };
    let mut config = Config::from_url(&format!("redis{rest}"))?;
    let trusted = tls::client(settings.ca_file.as_deref())
        .map_err(|wrong| Error::Unavailable(format!("USHER_REDIS_CA_FILE: {wrong}")))?;
    let connector = TlsConnector::from(tokio_rustls::TlsConnector::from(Arc::new(trusted)));
    // The nodes of a cluster name themselves by address, and their certificates mostly do not.
    let hostnames = TlsHostMapping::DefaultHost;
    config.tls = Some(TlsConfig { connector, hostnames });
    Ok(config)
}

/// Whether Redis does not know a script that is called by its SHA-1.
fn is_unknown_script(error: &fred::error::Error) -> bool {
    error.details().starts_with("NOSCRIPT")
}
