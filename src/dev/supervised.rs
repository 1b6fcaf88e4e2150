//! A server process that can't outlive its owner.
//!
//! Unix does not end a child when its parent is killed. So the owner starts `supervise.sh`, which
//! starts the server and waits for the end of a pipe that only the owner holds. The shell and the
//! server are in a separate process group: Ctrl-C in the terminal reaches the owner only, and the
//! owner decides in which order things stop.
//!
//! The log of the server is also its lock. The shell and the server inherit the locked file
//! description, so the lock lasts exactly as long as the server, even after the owner ended.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep, timeout};

use super::error::Error;

/// Runs in `/bin/sh`.
const SUPERVISOR_SCRIPT: &str = include_str!("supervise.sh");

/// A server that takes longer to stop is killed.
const STOP_TIMEOUT_SECONDS: u32 = 30;

/// Time for a server to start. A database that recovers after a crash needs some of it.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Time for the server of an earlier, killed owner to stop.
const LOCK_TIMEOUT: Duration = Duration::from_secs(15);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A longer log is truncated when it is opened.
const MAX_LOG_BYTES: u64 = 8 << 20;

/// Lines of the log in an error.
const LOG_TAIL_LINES: usize = 40;

/// The locked log of a server.
pub(super) struct ServerLog {
    server: &'static str,
    path: PathBuf,
    file: File,
}

impl ServerLog {
    /// Opens and locks the log of `server`. Waits [`LOCK_TIMEOUT`] for an earlier server to end.
    pub(super) async fn lock(server: &'static str, path: PathBuf) -> Result<Self, Error> {
        Self::lock_within(LOCK_TIMEOUT, server, path).await
    }

    async fn lock_within(
        limit: Duration,
        server: &'static str,
        path: PathBuf,
    ) -> Result<Self, Error> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        let deadline = Instant::now() + limit;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    sleep(POLL_INTERVAL).await
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::DirectoryInUse { server, log: path });
                }
                Err(TryLockError::Error(cause)) => return Err(Error::io("lock", &path)(cause)),
            }
        }
        if file.metadata().is_ok_and(|m| m.len() > MAX_LOG_BYTES) {
            file.set_len(0).map_err(Error::io("truncate", &path))?;
        }
        Ok(Self { server, path, file })
    }

    /// The log as the output of a child, which then shares the lock.
    pub(super) fn output(&self) -> Result<Stdio, Error> {
        Ok(self.file.try_clone().map_err(Error::io("open", &self.path))?.into())
    }

    /// The length in bytes: the offset at which the output of the next server begins.
    pub(super) fn len(&self) -> Result<u64, Error> {
        Ok(self.file.metadata().map_err(Error::io("read the size of", &self.path))?.len())
    }

    /// The error for a process that ended unexpectedly. Its output begins at the offset `start`.
    pub(super) fn ended(&self, start: u64, status: ExitStatus) -> Error {
        ended(self.server, &self.path, start, status)
    }
}

pub(super) struct SupervisedServer {
    server: &'static str,
    log: PathBuf,
    log_start: u64,
    shell: Child,
    /// Closing this pipe stops the server.
    lifeline: ChildStdin,
    pid: u32,
}

impl SupervisedServer {
    /// Starts `program`, which writes to `log` and listens on `port`, and waits until `is_ready`
    /// returns true for the process id of the server.
    pub(super) async fn start<F: Future<Output = bool>>(
        log: &ServerLog,
        program: &Path,
        args: &[OsString],
        port: u16,
        is_ready: impl Fn(u32) -> F,
    ) -> Result<Self, Error> {
        let mut server = Self::spawn(log, program, args).await?;
        let deadline = Instant::now() + START_TIMEOUT;
        while !is_ready(server.pid).await {
            let status = server.shell.try_wait().map_err(Error::io("wait for", program))?;
            if let Some(status) = status {
                let error = log.ended(server.log_start, status);
                let in_use = "ddress already in use";
                let port_taken =
                    matches!(&error, Error::Ended { tail, .. } if tail.contains(in_use));
                return Err(if port_taken {
                    Error::PortTaken { server: log.server, port }
                } else {
                    error
                });
            }
            if Instant::now() > deadline {
                let (server, log) = (log.server, log.path.clone());
                return Err(Error::NotReady { server, seconds: START_TIMEOUT.as_secs(), log });
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(server)
    }

    async fn spawn(log: &ServerLog, program: &Path, args: &[OsString]) -> Result<Self, Error> {
        let log_start = log.len()?;
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SUPERVISOR_SCRIPT, "supervise", &STOP_TIMEOUT_SECONDS.to_string()])
            .arg(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.output()?)
            .process_group(0)
            .spawn()
            .map_err(Error::io("start", program))?;
        let (Some(lifeline), Some(output)) = (shell.stdin.take(), shell.stdout.take()) else {
            return Err(Error::io("start", program)(io::ErrorKind::BrokenPipe.into()));
        };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).await.map_err(Error::io("start", program))?;
        let pid = line.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into());
        let pid = pid.map_err(Error::io("start", program))?;
        Ok(Self { server: log.server, log: log.path.clone(), log_start, shell, lifeline, pid })
    }

    /// The process id of the server, not of the shell.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until the server ends unexpectedly. Cancel safe.
    pub(super) async fn ended(&mut self) -> Error {
        match self.shell.wait().await {
            Ok(status) => ended(self.server, &self.log, self.log_start, status),
            Err(cause) => Error::io("wait for", Path::new(self.server))(cause),
        }
    }

    /// Stops the server and waits for it. The supervisor kills it after [`STOP_TIMEOUT_SECONDS`].
    pub(super) async fn stop(self) -> Result<(), Error> {
        let Self { server, log, mut shell, lifeline, .. } = self;
        drop(lifeline);
        let limit = Duration::from_secs(u64::from(STOP_TIMEOUT_SECONDS) + 5);
        let ending = match timeout(limit, shell.wait()).await {
            Ok(Ok(status)) if status.success() => return Ok(()),
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(cause)) => cause.to_string(),
            Err(_) => format!("still running after {} s", limit.as_secs()),
        };
        Err(Error::NotStopped { server, ending, log })
    }
}

fn ended(server: &'static str, log: &Path, start: u64, status: ExitStatus) -> Error {
    let written = std::fs::read(log).unwrap_or_default();
    let start = usize::try_from(start).map_or(written.len(), |start| start.min(written.len()));
    let text = String::from_utf8_lossy(&written[start..]);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
    Error::Ended { server, status, log: log.to_owned(), tail }
}

#[cfg(test)]
mod tests {
    use super::super::TempDir;
    use super::*;

    #[tokio::test]
    async fn child_that_writes_the_log_holds_its_lock() {
        let dir = TempDir::new("log").unwrap();
        let path = dir.path().join("server.log");
        let log = ServerLog::lock("server", path.clone()).await.unwrap();
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stderr(log.output().unwrap())
            .spawn()
            .unwrap();
        drop(log);
        let refused =
            ServerLog::lock_within(Duration::from_millis(50), "server", path.clone()).await;
        assert!(matches!(refused, Err(Error::DirectoryInUse { .. })));

        drop(child.stdin.take());
        ServerLog::lock("server", path).await.unwrap();
    }

    #[tokio::test]
    async fn error_of_a_failed_start_contains_the_log() {
        let dir = TempDir::new("log").unwrap();
        let log = ServerLog::lock("server", dir.path().join("server.log")).await.unwrap();
        let args = ["-c", "echo said; exit 7"].map(OsString::from);
        let outcome =
            SupervisedServer::start(&log, Path::new("/bin/sh"), &args, 1, |_| async { false })
                .await;
        let error = outcome.err().unwrap().to_string();
        assert!(error.contains("exit status: 7") && error.contains("said"), "{error}");
    }
}
