//! A private Redis with the persistence that Usher asks of any Redis: an append-only file synced every second, no
//! snapshots, and no eviction.

use std::ffi::OsString;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::supervised::{ServerLog, SupervisedServer};
use super::{Error, PORT_ATTEMPTS, REDIS_VARIABLE, choose_program, free_port, private_dir};

const SERVER: &str = "Redis";
/// Its users, if this file is in its directory; else there is one, who may do everything.
const USERS: &str = "users.acl";

/// A Redis of this process' own. Dropping it stops the server too, without waiting for it.
pub struct PrivateRedis {
    server: SupervisedServer,
    port: u16,
}

impl PrivateRedis {
    /// Starts Redis on a free port of 127.0.0.1 with its data in `dir`, which is made if need be and whose earlier data
    /// is loaded, and users if a `users.acl` is there. Returns once it answers.
    ///
    /// # Errors
    /// [`Error::Missing`] without a `redis-server` (or `valkey-server`), [`Error::InUse`] while another server runs on
    /// `dir`, [`Error::Ended`] or [`Error::NotReady`] when it doesn't come up.
    pub async fn start(dir: &Path) -> Result<Self, Error> {
        let mut attempt = 1;
        loop {
            match Self::start_on(dir, free_port()?).await {
                Err(Error::PortTaken { .. }) if attempt < PORT_ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    /// Like [`Self::start`], on `port`: brings a server that was killed back under the same URL.
    ///
    /// # Errors
    /// Those of [`Self::start`], and [`Error::PortTaken`].
    pub async fn start_on(dir: &Path, port: u16) -> Result<Self, Error> {
        Self::start_as(dir, port, &[]).await
    }

    /// Like [`Self::start_on`], with further arguments, such as `--cluster-enabled yes`.
    ///
    /// # Errors
    /// Those of [`Self::start_on`].
    pub async fn start_as(dir: &Path, port: u16, more: &[&str]) -> Result<Self, Error> {
        let program = redis_program()?;
        let dir = private_dir(dir)?;
        let log = ServerLog::lock(SERVER, dir.join("redis.log")).await?;
        let mut args = arguments(&dir, port);
        args.extend(more.iter().map(OsString::from));
        let server =
            SupervisedServer::start(&log, &program, &args, port, |pid| answers(port, pid)).await?;
        Ok(Self { server, port })
    }

    /// The server's URL, `redis://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the server itself.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Waits until the server ends without having been asked to, and says how. Safe to cancel.
    pub async fn ended(&mut self) -> Error {
        self.server.ended().await
    }

    /// Stops the server (SIGTERM; it syncs its append-only file) and waits for it, at most about half a minute.
    ///
    /// # Errors
    /// [`Error::NotStopped`] when it had to be killed or ended with an error.
    pub async fn stop(self) -> Result<(), Error> {
        self.server.stop().await
    }
}

/// Where the server is: the one that the environment names, or else `redis-server` or `valkey-server`.
///
/// # Errors
/// [`Error::Missing`] when it is nowhere, [`Error::NoProgram`] when what the environment names can't be run.
pub fn redis_program() -> Result<PathBuf, Error> {
    let chosen = (REDIS_VARIABLE, std::env::var_os(REDIS_VARIABLE));
    choose_program(
        chosen,
        &["redis-server", "valkey-server"],
        "redis-server, or redis with Homebrew",
    )
}

fn arguments(dir: &Path, port: u16) -> Vec<OsString> {
    let port = port.to_string();
    let settings = [
        ["--port", &port],
        ["--bind", "127.0.0.1"],
        ["--daemonize", "no"],
        ["--save", ""],
        ["--appendonly", "yes"],
        ["--appendfsync", "everysec"],
        ["--maxmemory-policy", "noeviction"],
    ];
    let mut args: Vec<OsString> = settings.iter().flatten().map(OsString::from).collect();
    args.extend(["--dir".into(), dir.into()]);
    let users = dir.join(USERS);
    if users.exists() {
        args.extend(["--aclfile".into(), users.into()]);
    }
    args
}

/// Whether the Redis behind `port` is the process `pid`, not a stranger who was quicker to take the port, and has loaded
/// its data.
async fn answers(port: u16, pid: u32) -> bool {
    match timeout(Duration::from_secs(1), info(port)).await {
        Ok(Ok(info)) => {
            info.contains(&format!("\nprocess_id:{pid}\r\n")) && info.contains("\nloading:0\r\n")
        }
        Ok(Err(_)) | Err(_) => false,
    }
}

async fn info(port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(b"INFO server\r\nINFO persistence\r\nQUIT\r\n").await?;
    let mut said = String::new();
    stream.read_to_string(&mut said).await?;
    Ok(said)
}

#[cfg(test)]
mod tests;
