//! Finds the programs of servers.

use std::env;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::error::Error;

/// Directories in which package managers install servers and that a user's `PATH` often lacks.
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

/// The first of `names` that is installed, on the `PATH` or in [`SERVER_DIRS`].
pub(super) fn find_program(
    names: &[&'static str],
    package: &'static str,
) -> Result<PathBuf, Error> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> =
        env::split_paths(&path).chain(SERVER_DIRS.map(PathBuf::from)).collect();
    names
        .iter()
        .flat_map(|name| dirs.iter().map(move |dir| dir.join(name)))
        .find(|file| is_executable(file))
        .ok_or(Error::Missing { program: names[0], package })
}

/// The program that an environment variable names, else the first of `names` that is installed.
pub(super) fn choose_program(
    (variable, value): (&'static str, Option<OsString>),
    names: &[&'static str],
    package: &'static str,
) -> Result<PathBuf, Error> {
    match value.filter(|value| !value.is_empty()).map(PathBuf::from) {
        None => find_program(names, package),
        Some(path) if is_executable(&path) => path.canonicalize().map_err(Error::io("find", &path)),
        Some(path) => Err(Error::NotExecutable { variable, path }),
    }
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_program_is_reported_with_the_way_to_install_it() {
        let error = find_program(&["no-such-server"], "nothing").unwrap_err().to_string();
        assert!(error.contains("`no-such-server`") && error.contains("`make run`"), "{error}");
    }

    #[test]
    fn environment_variable_chooses_another_program() {
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
    fn first_installed_name_wins() {
        let found = find_program(&["no-such-server", "sh", "ls"], "nothing").unwrap();
        assert!(found.ends_with("sh"), "{found:?}");
    }
}
