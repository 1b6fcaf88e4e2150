//! A private MariaDB or MySQL with one user and the database `usher`.
//!
//! The password is generated at the first start and stored beside the data.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sqlx::{Connection, MySqlConnection};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;
use uuid::Uuid;

use super::error::Error;
use super::mysql_program::MysqlProgram;
use super::resources::{MAX_PORT_ATTEMPTS, free_port, private_dir};
use super::supervised::{ServerLog, SupervisedServer};

const SERVER_NAME: &str = "MariaDB";

/// The server runs it at every start, before it listens.
const INIT_SQL: &str = include_str!("init.sql");

/// The longest path of a Unix socket, in bytes without the closing NUL, that both Linux (108) and
/// macOS (104) accept.
const MAX_SOCKET_PATH_LENGTH: usize = 103;

/// What a power cut may lose. A killed process loses nothing in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MysqlDurability {
    /// Every commit is synced to the disk, as in production.
    Keep,
    /// Nothing is synced and the files are small, for disposable data.
    Test,
}

/// A MariaDB that belongs to this process. Dropping it stops the server without waiting for it.
pub struct PrivateMysql {
    server: SupervisedServer,
    port: u16,
    password: String,
}

impl PrivateMysql {
    /// Starts MariaDB on a free port of 127.0.0.1 with its data in `dir`, which is created if
    /// missing. Returns once the server accepts connections.
    ///
    /// # Errors
    /// [`Error::Missing`] without the server's programs, [`Error::DirectoryInUse`] while another
    /// server runs on `dir`, [`Error::Ended`] or [`Error::NotReady`] when the server does not
    /// start.
    pub async fn start(dir: &Path, durability: MysqlDurability) -> Result<Self, Error> {
        let mut attempt = 1;
        loop {
            match Self::start_on(dir, durability, free_port()?).await {
                Err(Error::PortTaken { .. }) if attempt < MAX_PORT_ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    /// Like [`Self::start`], on `port`: restarts a killed server under the same URL.
    ///
    /// # Errors
    /// The errors of [`Self::start`], and [`Error::PortTaken`].
    pub async fn start_on(
        dir: &Path,
        durability: MysqlDurability,
        port: u16,
    ) -> Result<Self, Error> {
        Self::start_with(dir, durability, port, &[]).await
    }

    /// Like [`Self::start_on`], with additional arguments.
    ///
    /// # Errors
    /// The errors of [`Self::start_on`].
    pub async fn start_with(
        dir: &Path,
        durability: MysqlDurability,
        port: u16,
        extra_arguments: &[OsString],
    ) -> Result<Self, Error> {
        let program = MysqlProgram::find().await?;
        let paths = MysqlPaths::new(private_dir(dir)?, durability, runs_as_root().await?);
        private_dir(&paths.tmp())?;
        let log = ServerLog::lock(SERVER_NAME, paths.dir.join("mysql.log")).await?;
        paths.install(&program, &log).await?;
        let password = paths.password()?;
        write_private(&paths.dir.join("init.sql"), &INIT_SQL.replace("{password}", &password))?;
        let pid_file = paths.pid_file();
        remove_if_exists(&pid_file)?;
        let is_ready = |pid| is_ready(pid_file.clone(), port, pid);
        let arguments = [paths.arguments(port), extra_arguments.to_vec()].concat();
        let server =
            SupervisedServer::start(&log, program.path(), &arguments, port, is_ready).await?;
        let mysql = Self { server, port, password };
        if program.requires_tls_for_first_login() {
            mysql.log_in().await?;
        }
        Ok(mysql)
    }

    /// The URL of the database `usher`, `mysql://usher:<password>@127.0.0.1:<port>/usher`. Its user
    /// has all privileges, so that a test can create a database.
    pub fn url(&self) -> String {
        self.url_of("usher")
    }

    /// The URL of another database on this server. The database need not exist.
    pub fn url_of(&self, database: &str) -> String {
        format!(
            "mysql://usher:{}@127.0.0.1:{}/{database}?ssl-mode=disabled",
            self.password, self.port
        )
    }

    /// Logs in once over TLS. A MySQL server needs the password itself for the first login after
    /// its start. Later it compares digests, and the URLs above, without TLS, are enough.
    async fn log_in(&self) -> Result<(), Error> {
        let url = self.url().replace("ssl-mode=disabled", "ssl-mode=required");
        let failed = |cause: sqlx::Error| Error::LoginFailed {
            server: SERVER_NAME,
            cause: cause.to_string(),
        };
        let connection = MySqlConnection::connect(&url).await.map_err(failed)?;
        connection.close().await.map_err(failed)
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

    /// Stops the server with SIGTERM and waits for it, about 30 seconds at most.
    ///
    /// # Errors
    /// [`Error::NotStopped`] when the server was killed or ended with an error.
    pub async fn stop(self) -> Result<(), Error> {
        self.server.stop().await
    }
}

/// The files of a server, and the arguments that depend on them.
struct MysqlPaths {
    dir: PathBuf,
    durability: MysqlDurability,
    as_root: bool,
    socket: PathBuf,
}

impl MysqlPaths {
    fn new(dir: PathBuf, durability: MysqlDurability, as_root: bool) -> Self {
        let preferred = dir.join("mysql.sock");
        // No client uses the socket, but the server requires one.
        let socket = if preferred.as_os_str().len() <= MAX_SOCKET_PATH_LENGTH {
            preferred
        } else {
            let unique = Uuid::new_v4().simple().to_string();
            std::env::temp_dir().join(format!("usher-{}.sock", &unique[..12]))
        };
        Self { dir, durability, as_root, socket }
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.join("mysql.pid")
    }

    /// For temporary tables. A server deletes all of them when it starts, so two servers must not
    /// share the directory.
    fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// Creates the system tables, once. They are created in another directory and moved, so that an
    /// interrupted attempt leaves nothing that looks complete.
    async fn install(&self, program: &MysqlProgram, log: &ServerLog) -> Result<(), Error> {
        let (data, unfinished) = (self.dir.join("data"), self.dir.join("data.new"));
        if data.exists() {
            return Ok(());
        }
        match fs::remove_dir_all(&unfinished) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &unfinished)(cause));
            }
            _ => {}
        }
        let (installer, own_arguments) = program.installer()?;
        let log_start = log.len()?;
        let status = Command::new(&installer)
            .args(self.common_arguments(&unfinished))
            .args(own_arguments)
            .stdin(Stdio::null())
            .stdout(log.output()?)
            .stderr(log.output()?)
            .process_group(0)
            .kill_on_drop(true)
            .status()
            .await
            .map_err(Error::io("run", &installer))?;
        if !status.success() {
            return Err(log.ended(log_start, status));
        }
        fs::rename(&unfinished, &data).map_err(Error::io("move", &unfinished))
    }

    /// The password, generated at the first start.
    fn password(&self) -> Result<String, Error> {
        let path = self.dir.join("password");
        match fs::read_to_string(&path) {
            Ok(password) if !password.is_empty() => Ok(password),
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("read", &path)(cause))
            }
            Ok(_) | Err(_) => {
                let password = Uuid::new_v4().simple().to_string();
                write_private(&path, &password)?;
                Ok(password)
            }
        }
    }

    /// Arguments of both the server and its installer. `--no-defaults` must come first: it ignores
    /// the configuration of the machine. `--loose-` marks settings that some versions lack.
    fn common_arguments(&self, data: &Path) -> Vec<OsString> {
        let mut args = vec!["--no-defaults".into(), path_argument("--datadir=", data)];
        args.push(path_argument("--tmpdir=", &self.tmp()));
        args.push("--skip-name-resolve".into());
        if self.as_root {
            args.push("--user=root".into());
        }
        let durability: &[&str] = match self.durability {
            MysqlDurability::Keep => &["--innodb-flush-log-at-trx-commit=1"],
            MysqlDurability::Test => &[
                "--innodb-flush-log-at-trx-commit=0",
                "--loose-innodb-log-file-size=32M",
                "--loose-innodb-redo-log-capacity=32M",
                "--innodb-buffer-pool-size=64M",
                "--loose-innodb-doublewrite=0",
                "--loose-innodb-flush-method=nosync",
                "--loose-performance-schema=0",
            ],
        };
        args.extend(durability.iter().map(OsString::from));
        args
    }

    fn arguments(&self, port: u16) -> Vec<OsString> {
        let mut args = self.common_arguments(&self.dir.join("data"));
        args.push(format!("--port={port}").into());
        args.push(path_argument("--socket=", &self.socket));
        args.push(path_argument("--pid-file=", &self.pid_file()));
        args.push(path_argument("--init-file=", &self.dir.join("init.sql")));
        let settings = [
            "--bind-address=127.0.0.1",
            "--skip-networking=0",
            "--character-set-server=utf8mb4",
            "--collation-server=utf8mb4_bin",
            "--default-time-zone=+00:00",
            "--transaction-isolation=READ-COMMITTED",
            "--max-connections=500",
            "--skip-log-bin",
            // MySQL's X protocol would listen on a fixed port, which several servers would share.
            "--loose-mysqlx=0",
        ];
        args.extend(settings.map(OsString::from));
        args
    }
}

fn path_argument(name: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(name);
    argument.push(path);
    argument
}

fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let opened = File::options().create(true).truncate(true).write(true).mode(0o600).open(path);
    opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(Error::io("write", path))
}

fn remove_if_exists(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(cause))
        }
        _ => Ok(()),
    }
}

/// Whether this process runs as root. MariaDB runs as root only when an argument says so.
async fn runs_as_root() -> Result<bool, Error> {
    let id = Command::new("id").arg("-u").stdin(Stdio::null()).output().await;
    Ok(id.map_err(Error::io("run", Path::new("id")))?.stdout.trim_ascii() == b"0")
}

/// Whether process `pid` owns the port, which its pid file shows, and sends a greeting. MariaDB
/// runs the init file before it sends one.
async fn is_ready(pid_file: PathBuf, port: u16, pid: u32) -> bool {
    let owns_port = fs::read_to_string(&pid_file).is_ok_and(|text| text.trim() == pid.to_string());
    owns_port && matches!(timeout(Duration::from_secs(1), sends_greeting(port)).await, Ok(Ok(true)))
}

/// Whether the first packet is a greeting (protocol version 10) and not an error.
async fn sends_greeting(port: u16) -> io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let mut start = [0; 5];
    stream.read_exact(&mut start).await?;
    Ok(start[4] == 10)
}

#[cfg(test)]
mod tests;
