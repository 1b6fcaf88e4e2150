//! Runs one instance of the service as a child process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use uuid::Uuid;

use crate::BoxError;

const STARTUP_TIMEOUT: Duration = Duration::from_secs(60);

/// Where a service listens, and how to authorize admin requests.
#[derive(Debug, Clone)]
pub(crate) struct ServiceAddresses {
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Value of the `Authorization` header on the admin listener.
    pub(crate) admin_authorization: String,
}

impl ServiceAddresses {
    pub(crate) fn new(public: SocketAddr, admin: SocketAddr, admin_key: &str) -> Self {
        Self { public, admin, admin_authorization: format!("Bearer {admin_key}") }
    }
}

/// Stores and secrets that all instances of one installation share.
pub(crate) struct UsherInstallation {
    program: PathBuf,
    redis_url: String,
    mysql_url: String,
    admin_key: String,
    token_keys: String,
}

impl UsherInstallation {
    /// Creates the tables. `program` defaults to `usher` in the directory of this binary.
    pub(crate) async fn migrate(
        program: Option<PathBuf>,
        redis_url: String,
        mysql_url: String,
    ) -> Result<Self, BoxError> {
        let program = match program {
            Some(program) => program,
            None => std::env::current_exe()?.with_file_name("usher"),
        };
        if !program.is_file() {
            let missing = program.display();
            return Err(format!("{missing} does not exist: build the whole workspace").into());
        }
        let random = || Uuid::new_v4().simple().to_string();
        let installation = Self {
            program,
            redis_url,
            mysql_url,
            admin_key: random(),
            token_keys: format!("k1:{}", random()),
        };
        if !installation.command("migrate").status().await?.success() {
            return Err("`usher migrate` failed".into());
        }
        Ok(installation)
    }

    /// Starts an instance on free ports and waits until it serves.
    pub(crate) async fn start_instance(&self) -> Result<UsherProcess, BoxError> {
        let mut child = self
            .command("serve")
            .env("USHER_REDIS_URL", &self.redis_url)
            .env("USHER_LISTEN", "127.0.0.1:0")
            .env("USHER_ADMIN_LISTEN", "127.0.0.1:0")
            .env("USHER_AUTH", "header")
            .env("USHER_ADMIN_KEY", &self.admin_key)
            .env("USHER_TOKEN_KEYS", &self.token_keys)
            .env("USHER_LIMIT_USER_PER_SECOND", "0")
            .env("USHER_LOG", "json")
            .env("RUST_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()?;
        let log = child.stderr.take().ok_or("the service has no log")?;
        let (public, admin) = timeout(STARTUP_TIMEOUT, read_addresses(log)).await??;
        let pid = child.id().ok_or("the service has exited")?;
        let addresses = ServiceAddresses::new(public, admin, &self.admin_key);
        Ok(UsherProcess { child, pid, addresses })
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(Path::new(&self.program));
        command.arg(subcommand).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null());
        command.env("USHER_MYSQL_URL", &self.mysql_url);
        command
    }
}

/// A running instance. Dropping it kills the process.
pub(crate) struct UsherProcess {
    child: Child,
    pub(crate) pid: u32,
    pub(crate) addresses: ServiceAddresses,
}

impl UsherProcess {
    /// Kills the instance. The data is discarded, so no graceful shutdown is needed.
    pub(crate) async fn kill(mut self) -> Result<(), BoxError> {
        Ok(self.child.kill().await?)
    }
}

/// Reads the log up to the line that names both listeners. Later warnings go to standard error.
async fn read_addresses(
    log: impl AsyncRead + Unpin + Send + 'static,
) -> Result<(SocketAddr, SocketAddr), BoxError> {
    let mut lines = BufReader::new(log).lines();
    while let Some(line) = lines.next_line().await? {
        let Some(addresses) = addresses_of(&line) else {
            eprintln!("{line}");
            continue;
        };
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if !line.contains("\"INFO\"") {
                    eprintln!("{line}");
                }
            }
        });
        return Ok(addresses);
    }
    Err("the service exited before it was ready".into())
}

/// Public and admin address, if the log line has both as fields.
fn addresses_of(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let address = |field: &str| line[field].as_str()?.parse().ok();
    Some((address("public")?, address("admin")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_the_log() {
        let line = r#"{"message":"serving","public":"127.0.0.1:1","admin":"127.0.0.1:2"}"#;
        let (public, admin) = addresses_of(line).unwrap();
        assert_eq!((public.port(), admin.port()), (1, 2));
        assert_eq!(addresses_of(r#"{"message":"stopped"}"#), None);
        assert_eq!(addresses_of("text"), None);
    }
}
