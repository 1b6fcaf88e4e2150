//! Which program is the server, and what follows from its being MariaDB or MySQL.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::{Error, MYSQL_VARIABLE, choose_program, find_program};

const PACKAGE: &str = "mariadb-server, or mariadb with Homebrew";

/// The server's program.
pub(super) struct MysqlProgram {
    path: PathBuf,
    is_mariadb: bool,
}

impl MysqlProgram {
    /// The one that the environment names, or else the one that is installed; MariaDB before MySQL.
    pub(super) async fn find() -> Result<Self, Error> {
        let chosen = (MYSQL_VARIABLE, std::env::var_os(MYSQL_VARIABLE));
        let path = choose_program(chosen, &["mariadbd", "mysqld"], PACKAGE)?;
        let told =
            Command::new(&path).args(["--no-defaults", "--version"]).stdin(Stdio::null()).output();
        let told = told.await.map_err(Error::io("run", &path))?;
        let is_mariadb = String::from_utf8_lossy(&told.stdout).contains("MariaDB");
        Ok(Self { path, is_mariadb })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The program that makes the system tables, and the arguments that only it needs. MySQL does so itself, and leaves a root without a password, whom
    /// nobody reaches: `root@localhost` may only come through the socket.
    pub(super) fn installer(&self) -> Result<(PathBuf, Vec<OsString>), Error> {
        if self.is_mariadb {
            let program = find_program(&["mariadb-install-db", "mysql_install_db"], PACKAGE)?;
            let arguments = ["--skip-test-db", "--auth-root-authentication-method=socket"];
            Ok((program, arguments.map(OsString::from).to_vec()))
        } else {
            Ok((self.path.clone(), vec!["--initialize-insecure".into()]))
        }
    }

    /// Whether a user's first login since the server's start must be encrypted (`caching_sha2_password`).
    pub(super) fn checks_first_login_by_tls(&self) -> bool {
        !self.is_mariadb
    }
}
