//! A private MariaDB, which speaks MySQL's protocol and SQL as far as Usher uses them, or MySQL itself, with one user and the
//! database `usher`. The password is made at the first start and kept beside the data.

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

use super::mysql_program::MysqlProgram;
use super::supervised::{ServerLog, SupervisedServer};
use super::{Error, PORT_ATTEMPTS, free_port, private_dir};

const SERVER: &str = "MariaDB";

/// Run by the server at every start, before it listens.
const INIT_SQL: &str = include_str!("init.sql");

/// The longest path of a Unix socket that both Linux (108 bytes) and macOS (104) take, its closing NUL not counted.
const SOCKET_PATH_MAX: usize = 103;

/// What a power cut may cost. Either way nothing is lost when only the process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MysqlDurability {
    /// Every commit is synced to the disk, as in production.
    Keep,
    /// Nothing is synced and the files are small: for data that is thrown away.
    Test,
}

/// A MariaDB of this process' own. Dropping it stops the server too, without waiting for it.
pub struct PrivateMysql {
    server: SupervisedServer,
    port: u16,
    password: String,
}

impl PrivateMysql {
    /// Starts MariaDB on a free port of 127.0.0.1 with its data in `dir`, which is made and filled if need be. Returns
    /// once it takes connections.
    ///
    /// # Errors
    /// [`Error::Missing`] without the server's programs, [`Error::InUse`] while another server runs on `dir`,
    /// [`Error::Ended`] or [`Error::NotReady`] when it doesn't come up.
    pub async fn start(dir: &Path, durability: MysqlDurability) -> Result<Self, Error> {
        let mut attempt = 1;
        loop {
            match Self::start_on(dir, durability, free_port()?).await {
                Err(Error::PortTaken { .. }) if attempt < PORT_ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    /// Like [`Self::start`], on `port`: brings a server that was killed back under the same URL.
    ///
    /// # Errors
    /// Those of [`Self::start`], and [`Error::PortTaken`].
    pub async fn start_on(
        dir: &Path,
        durability: MysqlDurability,
        port: u16,
    ) -> Result<Self, Error> {
        Self::start_with(dir, durability, port, &[]).await
    }

    /// Like [`Self::start_on`], with `more` arguments after the usual ones.
    ///
    /// # Errors
    /// Those of [`Self::start_on`].
    pub async fn start_with(
        dir: &Path,
        durability: MysqlDurability,
        port: u16,
        more: &[OsString],
    ) -> Result<Self, Error> {
        let program = MysqlProgram::find().await?;
        let place = MysqlPaths::new(private_dir(dir)?, durability, runs_as_root().await?);
        private_dir(&place.tmp())?;
        let log = ServerLog::lock(SERVER, place.dir.join("mysql.log")).await?;
        place.install(&program, &log).await?;
        let password = place.password()?;
        write_private(&place.dir.join("init.sql"), &INIT_SQL.replace("{password}", &password))?;
        let pid_file = place.pid_file();
        remove_if_there(&pid_file)?;
        let answers = |pid| answers(pid_file.clone(), port, pid);
        let arguments = [place.arguments(port), more.to_vec()].concat();
        let server =
            SupervisedServer::start(&log, program.path(), &arguments, port, answers).await?;
        let mysql = Self { server, port, password };
        if program.checks_first_login_by_tls() {
            mysql.log_in().await?;
        }
        Ok(mysql)
    }

    /// The URL of the database `usher`, `mysql://usher:<password>@127.0.0.1:<port>/usher`. Its user may do everything,
    /// so that a test can make a database for itself.
    pub fn url(&self) -> String {
        self.url_of("usher")
    }

    /// The URL of another database on this server, which need not exist yet.
    pub fn url_of(&self, database: &str) -> String {
        format!(
            "mysql://usher:{}@127.0.0.1:{}/{database}?ssl-mode=disabled",
            self.password, self.port
        )
    }

    /// Logs in once, encrypted: a server that was just started wants to see the password itself, from then on it knows the user by its digest, and our
    /// URLs, which are not encrypted, will do.
    async fn log_in(&self) -> Result<(), Error> {
        let url = self.url().replace("ssl-mode=disabled", "ssl-mode=required");
        let no_login =
            |cause: sqlx::Error| Error::NoLogin { server: SERVER, cause: cause.to_string() };
        let connection = MySqlConnection::connect(&url).await.map_err(no_login)?;
        connection.close().await.map_err(no_login)
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

    /// Stops the server (SIGTERM, a clean shutdown) and waits for it, at most about half a minute.
    ///
    /// # Errors
    /// [`Error::NotStopped`] when it had to be killed or ended with an error.
    pub async fn stop(self) -> Result<(), Error> {
        self.server.stop().await
    }
}

/// Where a server keeps its things, and what follows from that for its arguments.
struct MysqlPaths {
    dir: PathBuf,
    durability: MysqlDurability,
    as_root: bool,
    socket: PathBuf,
}

impl MysqlPaths {
    fn new(dir: PathBuf, durability: MysqlDurability, as_root: bool) -> Self {
        let beside = dir.join("mysql.sock");
        // Nobody connects to the socket, but the server insists on one.
        let socket = if beside.as_os_str().len() <= SOCKET_PATH_MAX {
            beside
        } else {
            let unique = Uuid::new_v4().simple().to_string();
            std::env::temp_dir().join(format!("usher-{}.sock", &unique[..12]))
        };
        Self { dir, durability, as_root, socket }
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.join("mysql.pid")
    }

    /// For temporary tables. A server that starts deletes those that it finds, so two servers must not share the place.
    fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// Makes the system tables, once. They are made aside and moved, so that an interrupted try leaves nothing that
    /// looks finished.
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
        let (maker, own_arguments) = program.installer()?;
        let from = log.len()?;
        let status = Command::new(&maker)
            .args(self.common_arguments(&unfinished))
            .args(own_arguments)
            .stdin(Stdio::null())
            .stdout(log.output()?)
            .stderr(log.output()?)
            .process_group(0)
            .kill_on_drop(true)
            .status()
            .await
            .map_err(Error::io("run", &maker))?;
        if !status.success() {
            return Err(log.ended(from, status));
        }
        fs::rename(&unfinished, &data).map_err(Error::io("move", &unfinished))
    }

    /// The password, made at the first start.
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

    /// What the server and the program that makes its system tables both need. `--no-defaults` must come first: the
    /// machine's own configuration is none of ours. `--loose-` marks settings that some version lacks.
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
            // MySQL's second protocol, on a port of its own that would be everybody's.
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

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(cause))
        }
        _ => Ok(()),
    }
}

/// Whether this process is root's, as which MariaDB runs only when told to.
async fn runs_as_root() -> Result<bool, Error> {
    let id = Command::new("id").arg("-u").stdin(Stdio::null()).output().await;
    Ok(id.map_err(Error::io("run", Path::new("id")))?.stdout.trim_ascii() == b"0")
}

/// Whether the server behind `port` greets, and process `pid` says by its pid file that it got its port. MariaDB runs the
/// init file before it greets anybody.
async fn answers(pid_file: PathBuf, port: u16, pid: u32) -> bool {
    let ours = fs::read_to_string(&pid_file).is_ok_and(|text| text.trim() == pid.to_string());
    ours && matches!(timeout(Duration::from_secs(1), greets(port)).await, Ok(Ok(true)))
}

/// Whether a server's first packet is a greeting (protocol version 10) rather than an error.
async fn greets(port: u16) -> io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let mut start = [0; 5];
    stream.read_exact(&mut start).await?;
    Ok(start[4] == 10)
}

#[cfg(test)]
mod tests;
