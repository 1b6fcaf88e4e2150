//! Why a private server could not be started or stopped.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is neither on the `PATH` nor in a usual directory.
    #[error(
        "`{program}` is not installed: `make run` installs it (or install the package {package})"
    )]
    Missing {
        program: &'static str,
        /// The package of Debian, Ubuntu and Homebrew, in words.
        package: &'static str,
    },
    /// The program that an environment variable names can't be run.
    #[error("{variable} is {path}, which is not an executable file")]
    NotExecutable { variable: &'static str, path: PathBuf },
    #[error("{server} runs, but refuses the login of Usher's user: {cause}")]
    LoginFailed { server: &'static str, cause: String },
    #[error("cannot {action} {path}: {cause}")]
    Io {
        /// A verb.
        action: &'static str,
        path: PathBuf,
        cause: io::Error,
    },
    #[error("another process runs {server} in this directory: {log} is locked")]
    DirectoryInUse { server: &'static str, log: PathBuf },
    #[error("{server} could not listen on port {port}: the port is in use")]
    PortTaken { server: &'static str, port: u16 },
    /// The server, or the program that prepares its data, ended without being asked to.
    #[error("{server} ended unexpectedly ({status}); the end of its log {log}:\n{tail}")]
    Ended {
        server: &'static str,
        status: ExitStatus,
        log: PathBuf,
        /// The last lines of the log since the start of the server.
        tail: String,
    },
    #[error("{server} did not answer within {seconds} s; its log is {log}")]
    NotReady { server: &'static str, seconds: u64, log: PathBuf },
    /// The server ended with an error, or was killed, after it was asked to stop.
    #[error("{server} did not stop cleanly ({ending}); its log is {log}")]
    NotStopped { server: &'static str, ending: String, log: PathBuf },
}

impl Error {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Io { action, path: path.to_owned(), cause }
    }
}
