//! Private servers: a Redis and a MariaDB that belong to one process and die with it.
//!
//! `usher dev` and the tests need real servers, and nobody should have to set them up. Each server runs on a free port of
//! 127.0.0.1, keeps everything it writes below one directory that the caller names, and touches nothing that the
//! machine's own servers use. Its process hangs on a pipe that the owner holds (see `supervised.rs`), so that even an
//! owner killed with -9 leaves no server behind. The room knows nothing of Usher: it hands out URLs.
//!
//! `USHER_DEV_REDIS_SERVER` and `USHER_DEV_MYSQLD` name programs to run in place of those that are installed, for instance a Valkey or a
//! MySQL: `make test-engines` runs the tests on several.

pub mod banner;
pub mod crowd;
mod mysql_program;
mod mysql_server;
mod other_server;
mod redis_server;
mod supervised;
mod temp_dir;

use std::collections::HashSet;
use std::env;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{LazyLock, Mutex, PoisonError};

pub use mysql_server::{MysqlDurability, PrivateMysql};
pub use other_server::PrivateServer;
pub use redis_server::{PrivateRedis, redis_program};
pub use temp_dir::TempDir;
use uuid::Uuid;

/// How often a server is started anew when another process was quicker to take its port.
const PORT_ATTEMPTS: u32 = 5;

/// Names the program to run as Redis in place of the one that is installed: a `redis-server` or `valkey-server` of another version.
const REDIS_VARIABLE: &str = "USHER_DEV_REDIS_SERVER";
/// The same for MariaDB: a `mariadbd`, beside which its `mariadb-install-db` is on the `PATH`, or a `mysqld` of MySQL.
const MYSQL_VARIABLE: &str = "USHER_DEV_MYSQLD";

/// Where package managers put servers that a user's `PATH` often lacks.
const SERVER_DIRS: [&str; 8] = [
    "/usr/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/libexec",
    "/opt/homebrew/bin",
    "/opt/homebrew/opt/mariadb/bin",
    "/usr/local/opt/mariadb/bin",
    "/home/linuxbrew/.linuxbrew/bin",
];

/// Why a private server could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is neither on the `PATH` nor in a usual place.
    #[error(
        "`{program}` is not installed: `make run` installs it (or install the package {package})"
    )]
    Missing {
        /// The program that was looked for.
        program: &'static str,
        /// The package of Debian, Ubuntu and Homebrew that brings it, in words.
        package: &'static str,
    },
    /// The program that the environment names in place of the installed one can't be run.
    #[error("{variable} is {path}, which is no program that can be run")]
    NoProgram {
        /// The variable.
        variable: &'static str,
        /// What it says.
        path: PathBuf,
    },
    /// A private server does not answer as it should.
    #[error("{server} runs, but nobody can log in: {cause}")]
    NoLogin {
        /// The server.
        server: &'static str,
        /// What the driver said.
        cause: String,
    },
    /// The file system or the operating system refused.
    #[error("cannot {what} {path}: {cause}")]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// The file, directory or program it was tried on.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Another process runs a server on the same directory.
    #[error("another process is running {server} in this directory: {log} is locked")]
    InUse {
        /// The server.
        server: &'static str,
        /// The log that the other server holds open.
        log: PathBuf,
    },
    /// Another process has the port.
    #[error("{server} could not have port {port}: it is taken")]
    PortTaken {
        /// The server.
        server: &'static str,
        /// The TCP port on 127.0.0.1.
        port: u16,
    },
    /// The server, or the program that prepares its data, ended by itself.
    #[error("{server} ended by itself ({status}); the end of its log {log}:\n{tail}")]
    Ended {
        /// The server.
        server: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The last lines of its log since it was started.
        tail: String,
    },
    /// The server runs but did not answer in time.
    #[error("{server} did not answer within {seconds} s; its log is {log}")]
    NotReady {
        /// The server.
        server: &'static str,
        /// How long it was waited for, in seconds.
        seconds: u64,
        /// Its log.
        log: PathBuf,
    },
    /// The server had to be killed, or ended with an error, when it was asked to stop.
    #[error("{server} did not stop cleanly ({ending}); its log is {log}")]
    NotStopped {
        /// The server.
        server: &'static str,
        /// How it ended instead.
        ending: String,
        /// Its log.
        log: PathBuf,
    },
}

impl Error {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Io { what, path: path.to_owned(), cause }
    }
}

/// The first of `names` that is installed, on the `PATH` or where package managers put servers.
fn find_program(names: &[&'static str], package: &'static str) -> Result<PathBuf, Error> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> =
        env::split_paths(&path).chain(SERVER_DIRS.map(PathBuf::from)).collect();
    names
        .iter()
        .flat_map(|name| dirs.iter().map(move |dir| dir.join(name)))
        .find(|file| is_program(file))
        .ok_or(Error::Missing { program: names[0], package })
}

/// The program that an environment variable of this value names, or else the first of `names` that is installed.
fn choose_program(
    (variable, value): (&'static str, Option<OsString>),
    names: &[&'static str],
    package: &'static str,
) -> Result<PathBuf, Error> {
    match value.filter(|value| !value.is_empty()).map(PathBuf::from) {
        None => find_program(names, package),
        Some(path) if is_program(&path) => path.canonicalize().map_err(Error::io("find", &path)),
        Some(path) => Err(Error::NoProgram { variable, path }),
    }
}

fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Ports for servers: below those that systems deal out to outgoing connections (Linux from 32,768, macOS from 49,152), so that nobody takes one
/// while its server is down for a moment.
const SERVER_PORTS: Range<u16> = 10_000..15_000;

/// A port of 127.0.0.1 that was free a moment ago, and that this process was not given before, while there is such a one. Another process may be quicker: whoever uses it must be ready
/// to lose the race for it.
///
/// # Errors
/// When all of them are taken.
pub fn free_port() -> Result<u16, Error> {
    static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    // Another process begins elsewhere.
    let random = Uuid::new_v4().into_bytes();
    let first = usize::from(u16::from_le_bytes([random[0], random[1]])) % SERVER_PORTS.len();
    let ports = || SERVER_PORTS.skip(first).chain(SERVER_PORTS.take(first));
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let new = ports().find(|port| free(port) && given.insert(*port));
    new.or_else(|| ports().find(free)).ok_or_else(|| {
        Error::io("find a free port of", Path::new("127.0.0.1"))(ErrorKind::AddrInUse.into())
    })
}

/// Makes `dir` for its owner alone and gives its absolute path, because servers change their working directory.
fn private_dir(dir: &Path) -> Result<PathBuf, Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::io("create", dir))?;
    dir.canonicalize().map_err(Error::io("find", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_the_way_to_get_it() {
        let error = find_program(&["no-such-server"], "nothing").unwrap_err().to_string();
        assert!(error.contains("`no-such-server`") && error.contains("`make run`"), "{error}");
    }

    #[test]
    fn the_environment_may_name_another_program() {
        let choose = |value: &str| {
            choose_program(("USHER_DEV_SERVER", Some(value.into())), &["sh"], "nothing")
                .map_err(|e| e.to_string())
        };
        assert_eq!(choose("").unwrap(), find_program(&["sh"], "nothing").unwrap());
        let ls = find_program(&["ls"], "nothing").unwrap();
        assert_eq!(choose(ls.to_str().unwrap()).unwrap(), ls.canonicalize().unwrap());
        for bad in ["no-such-server", "/"] {
            let error = choose(bad).unwrap_err();
            assert!(error.contains(&format!("USHER_DEV_SERVER is {bad}")), "{error}");
        }
    }

    #[test]
    fn the_first_name_that_is_installed_wins() {
        let found = find_program(&["no-such-server", "sh", "ls"], "nothing").unwrap();
        assert!(found.ends_with("sh"), "{found:?}");
    }
}
