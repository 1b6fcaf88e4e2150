//! The program of the MySQL server, and the differences between MariaDB and MySQL.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::error::Error;
use super::programs::{choose_program, find_program};

/// Names the server program: a `mariadbd` whose `mariadb-install-db` is on the `PATH`, or a
/// `mysqld` of MySQL.
const PROGRAM_VARIABLE: &str = "USHER_DEV_MYSQLD";

const PACKAGE: &str = "mariadb-server, or mariadb with Homebrew";

pub(super) struct MysqlProgram {
    path: PathBuf,
    is_mariadb: bool,
}

impl MysqlProgram {
    /// The program that the environment names, else the installed one. Prefers MariaDB to MySQL.
    pub(super) async fn find() -> Result<Self, Error> {
        let chosen = (PROGRAM_VARIABLE, std::env::var_os(PROGRAM_VARIABLE));
        let path = choose_program(chosen, &["mariadbd", "mysqld"], PACKAGE)?;
        let version =
            Command::new(&path).args(["--no-defaults", "--version"]).stdin(Stdio::null()).output();
        let version = version.await.map_err(Error::io("run", &path))?;
        let is_mariadb = String::from_utf8_lossy(&version.stdout).contains("MariaDB");
        Ok(Self { path, is_mariadb })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The program that creates the system tables, and the arguments that only it takes. MySQL
    /// creates them itself, with a root that has no password. That is safe: `root@localhost` can
    /// log in through the socket only.
    pub(super) fn installer(&self) -> Result<(PathBuf, Vec<OsString>), Error> {
        if self.is_mariadb {
            let program = find_program(&["mariadb-install-db", "mysql_install_db"], PACKAGE)?;
            let arguments = ["--skip-test-db", "--auth-root-authentication-method=socket"];
            Ok((program, arguments.map(OsString::from).to_vec()))
        } else {
            Ok((self.path.clone(), vec!["--initialize-insecure".into()]))
        }
    }

    /// Whether the first login of a user since the start of the server must be encrypted
    /// (`caching_sha2_password`).
    pub(super) fn requires_tls_for_first_login(&self) -> bool {
        !self.is_mariadb
    }
}
