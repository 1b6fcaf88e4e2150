//! A server process that can't outlive its owner.
//!
//! Nothing in Unix ends a child when its parent is killed, so the owner doesn't start the server itself: it starts
//! `supervise.sh`, which starts the server and waits for the end of a pipe that only the owner holds. Shell and
//! server stand in a process group of their own, so that Ctrl-C in the terminal reaches the owner alone, and the owner
//! decides in which order things stop.
//!
//! The server's log is also its lock. Shell and server inherit the very file description that was locked, so the lock
//! lasts exactly as long as the server, also when its owner is gone already.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep, timeout};

use super::Error;

/// The supervisor, run by `/bin/sh`.
const SUPERVISE: &str = include_str!("supervise.sh");

/// How long a server may take to stop before it is killed, in seconds.
const GRACE_SECONDS: u32 = 30;

/// How long a server may take to answer; a database repairing itself after a crash needs some of it.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How long to wait for a server that an earlier, killed owner has left stopping.
const UNLOCKED_WITHIN: Duration = Duration::from_secs(15);

/// The pause between two looks at something that is awaited.
const POLL: Duration = Duration::from_millis(20);

/// A log that has outgrown this many bytes starts anew.
const LOG_LIMIT: u64 = 8 << 20;

/// Lines of the log that an error repeats.
const TAIL_LINES: usize = 40;

/// A server's log, locked.
pub(super) struct ServerLog {
    server: &'static str,
    path: PathBuf,
    file: File,
}

impl ServerLog {
    /// Opens the log of `server` and locks it, waiting a while for an earlier server to end.
    pub(super) async fn lock(server: &'static str, path: PathBuf) -> Result<Self, Error> {
        Self::lock_within(UNLOCKED_WITHIN, server, path).await
    }

    async fn lock_within(
        bound: Duration,
        server: &'static str,
        path: PathBuf,
    ) -> Result<Self, Error> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        let deadline = Instant::now() + bound;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(POLL).await,
                Err(TryLockError::WouldBlock) => return Err(Error::InUse { server, log: path }),
                Err(TryLockError::Error(cause)) => return Err(Error::io("lock", &path)(cause)),
            }
        }
        if file.metadata().is_ok_and(|m| m.len() > LOG_LIMIT) {
            file.set_len(0).map_err(Error::io("shorten", &path))?;
        }
        Ok(Self { server, path, file })
    }

    /// The log as an output of a child. The child shares the lock.
    pub(super) fn output(&self) -> Result<Stdio, Error> {
        Ok(self.file.try_clone().map_err(Error::io("open", &self.path))?.into())
    }

    /// How long the log is, in bytes: where the words of a server started now will begin.
    pub(super) fn len(&self) -> Result<u64, Error> {
        Ok(self.file.metadata().map_err(Error::io("look at", &self.path))?.len())
    }

    /// The error for a process that ended by itself, having written what follows the first `from` bytes.
    pub(super) fn ended(&self, from: u64, status: ExitStatus) -> Error {
        ended(self.server, &self.path, from, status)
    }
}

/// A running server.
pub(super) struct SupervisedServer {
    server: &'static str,
    log: PathBuf,
    log_from: u64,
    shell: Child,
    /// The pipe whose end ends the server.
    leash: ChildStdin,
    pid: u32,
}

impl SupervisedServer {
    /// Starts `program`, which writes to `log` and is to listen on `port`, and waits until `answers` says yes to the
    /// server's process id.
    pub(super) async fn start<F: Future<Output = bool>>(
        log: &ServerLog,
        program: &Path,
        args: &[OsString],
        port: u16,
        answers: impl Fn(u32) -> F,
    ) -> Result<Self, Error> {
        let mut server = Self::spawn(log, program, args).await?;
        let deadline = Instant::now() + READY_WITHIN;
        while !answers(server.pid).await {
            let status = server.shell.try_wait().map_err(Error::io("wait for", program))?;
            if let Some(status) = status {
                let error = log.ended(server.log_from, status);
                let taken = matches!(&error, Error::Ended { tail, .. } if tail.contains("ddress already in use"));
                return Err(if taken {
                    Error::PortTaken { server: log.server, port }
                } else {
                    error
                });
            }
            if Instant::now() > deadline {
                let (server, log) = (log.server, log.path.clone());
                return Err(Error::NotReady { server, seconds: READY_WITHIN.as_secs(), log });
            }
            sleep(POLL).await;
        }
        Ok(server)
    }

    async fn spawn(log: &ServerLog, program: &Path, args: &[OsString]) -> Result<Self, Error> {
        let log_from = log.len()?;
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SUPERVISE, "supervise", &GRACE_SECONDS.to_string()])
            .arg(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.output()?)
            .process_group(0)
            .spawn()
            .map_err(Error::io("start", program))?;
        let (Some(leash), Some(output)) = (shell.stdin.take(), shell.stdout.take()) else {
            return Err(Error::io("start", program)(io::ErrorKind::BrokenPipe.into()));
        };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).await.map_err(Error::io("start", program))?;
        let pid = line.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into());
        let pid = pid.map_err(Error::io("start", program))?;
        Ok(Self { server: log.server, log: log.path.clone(), log_from, shell, leash, pid })
    }

    /// The server's own process id, not the shell's.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until the server ends without having been asked to, and says how. Safe to cancel.
    pub(super) async fn ended(&mut self) -> Error {
        match self.shell.wait().await {
            Ok(status) => ended(self.server, &self.log, self.log_from, status),
            Err(cause) => Error::io("wait for", Path::new(self.server))(cause),
        }
    }

    /// Asks the server to stop and waits for it. The supervisor kills a server that takes longer than its grace.
    pub(super) async fn stop(self) -> Result<(), Error> {
        let Self { server, log, mut shell, leash, .. } = self;
        drop(leash);
        let bound = Duration::from_secs(u64::from(GRACE_SECONDS) + 5);
        let ending = match timeout(bound, shell.wait()).await {
            Ok(Ok(status)) if status.success() => return Ok(()),
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(cause)) => cause.to_string(),
            Err(_) => format!("still there after {} s", bound.as_secs()),
        };
        Err(Error::NotStopped { server, ending, log })
    }
}

fn ended(server: &'static str, log: &Path, from: u64, status: ExitStatus) -> Error {
    let written = std::fs::read(log).unwrap_or_default();
    let from = usize::try_from(from).map_or(written.len(), |from| from.min(written.len()));
    let text = String::from_utf8_lossy(&written[from..]);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
    Error::Ended { server, status, log: log.to_owned(), tail }
}

#[cfg(test)]
mod tests {
    use super::super::TempDir;
    use super::*;

    #[tokio::test]
    async fn a_child_that_writes_the_log_holds_its_lock() {
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
        assert!(matches!(refused, Err(Error::InUse { .. })));

        drop(child.stdin.take());
        ServerLog::lock("server", path).await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_ends_at_once_says_why() {
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
