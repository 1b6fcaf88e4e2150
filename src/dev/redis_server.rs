//! A private Redis with the persistence that Usher requires: an append-only file that is synced
//! every second, no snapshots, and no eviction.

use std::ffi::OsString;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::Error;
use super::programs::choose_program;
use super::resources::{MAX_PORT_ATTEMPTS, free_port, private_dir};
use super::supervised::{ServerLog, SupervisedServer};

const SERVER_NAME: &str = "Redis";
/// Names the server program: a `redis-server` or `valkey-server` of another version.
const PROGRAM_VARIABLE: &str = "USHER_DEV_REDIS_SERVER";
/// The file with the ACL users. Without it the only user has all privileges.
const ACL_FILE: &str = "users.acl";

/// A Redis that belongs to this process. Dropping it stops the server without waiting for it.
pub struct PrivateRedis {
    server: SupervisedServer,
    port: u16,
}

impl PrivateRedis {
    /// Starts Redis on a free port of 127.0.0.1 with its data in `dir`, which is created if
    /// missing. Existing data is loaded, and so is a `users.acl`. Returns once the server answers.
    ///
    /// # Errors
    /// [`Error::Missing`] without a `redis-server` or `valkey-server`, [`Error::DirectoryInUse`]
    /// while another server runs on `dir`, [`Error::Ended`] or [`Error::NotReady`] when the server
    /// does not start.
    pub async fn start(dir: &Path) -> Result<Self, Error> {
        let mut attempt = 1;
        loop {
            match Self::start_on(dir, free_port()?).await {
                Err(Error::PortTaken { .. }) if attempt < MAX_PORT_ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    /// Like [`Self::start`], on `port`: restarts a killed server under the same URL.
    ///
    /// # Errors
    /// The errors of [`Self::start`], and [`Error::PortTaken`].
    pub async fn start_on(dir: &Path, port: u16) -> Result<Self, Error> {
        Self::start_with(dir, port, &[]).await
    }

    /// Like [`Self::start_on`], with additional arguments such as `--cluster-enabled yes`.
    ///
    /// # Errors
    /// The errors of [`Self::start_on`].
    pub async fn start_with(
        dir: &Path,
        port: u16,
        extra_arguments: &[&str],
    ) -> Result<Self, Error> {
        Self::start_program(&redis_program()?, dir, port, extra_arguments).await
    }

    /// Like [`Self::start_with`], with a program of the caller, which becomes the server.
    ///
    /// # Errors
    /// The errors of [`Self::start_on`].
    pub async fn start_program(
        program: &Path,
        dir: &Path,
        port: u16,
        extra_arguments: &[&str],
    ) -> Result<Self, Error> {
        let dir = private_dir(dir)?;
        let log = ServerLog::lock(SERVER_NAME, dir.join("redis.log")).await?;
        let mut args = arguments(&dir, port);
        args.extend(extra_arguments.iter().map(OsString::from));
        let server =
            SupervisedServer::start(&log, program, &args, port, |pid| is_ready(port, pid)).await?;
        Ok(Self { server, port })
    }

    /// `redis://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Waits until the server ends unexpectedly. Cancel safe.
    pub async fn ended(&mut self) -> Error {
        self.server.ended().await
    }

    /// Stops the server with SIGTERM, upon which it syncs its append-only file, and waits for it,
    /// about 30 seconds at most.
    ///
    /// # Errors
    /// [`Error::NotStopped`] when the server was killed or ended with an error.
    pub async fn stop(self) -> Result<(), Error> {
        self.server.stop().await
    }
}

/// The server program: the one that the environment names, else `redis-server` or `valkey-server`.
///
/// # Errors
/// [`Error::Missing`] when no program is installed, [`Error::NotExecutable`] when the program that
/// the environment names can't be run.
pub fn redis_program() -> Result<PathBuf, Error> {
    let chosen = (PROGRAM_VARIABLE, std::env::var_os(PROGRAM_VARIABLE));
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
    let users = dir.join(ACL_FILE);
    if users.exists() {
        args.extend(["--aclfile".into(), users.into()]);
    }
    args
}

/// Whether the Redis behind `port` is the process `pid`, not another one that took the port first,
/// and has loaded its data.
async fn is_ready(port: u16, pid: u32) -> bool {
    match timeout(Duration::from_secs(1), read_info(port)).await {
        Ok(Ok(info)) => {
            info.contains(&format!("\nprocess_id:{pid}\r\n")) && info.contains("\nloading:0\r\n")
        }
        Ok(Err(_)) | Err(_) => false,
    }
}

async fn read_info(port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(b"INFO server\r\nINFO persistence\r\nQUIT\r\n").await?;
    let mut info = String::new();
    stream.read_to_string(&mut info).await?;
    Ok(info)
}

#[cfg(test)]
mod tests;
