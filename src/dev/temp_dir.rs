//! A temporary directory that is removed when its owner ends.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use uuid::Uuid;

use super::error::Error;

/// Waits for the end of its input, then removes the directory. Tries for ten seconds, because a
/// server that is still stopping may write into it.
const REMOVAL_SCRIPT: &str = r#"
while read -r _; do :; done
tries=10
until rm -rf "$1" 2>/dev/null || [ "$tries" -eq 0 ]; do
    sleep 1
    tries=$((tries - 1))
done
"#;

/// A temporary directory that is removed when this value is dropped, and also when the process ends
/// without dropping it: servers of tests are often in a static, and tests may be killed.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
    remover: Child,
}

impl TempDir {
    /// Creates an empty directory with `purpose` in its name and access for its owner only.
    ///
    /// # Errors
    /// [`Error::Io`] when the directory can't be created.
    pub fn new(purpose: &str) -> Result<Self, Error> {
        let unique = Uuid::new_v4().simple().to_string();
        let path = std::env::temp_dir().join(format!("usher-{purpose}-{}", &unique[..12]));
        DirBuilder::new().mode(0o700).create(&path).map_err(Error::io("create", &path))?;
        let remover = Command::new("/bin/sh")
            .args(["-c", REMOVAL_SCRIPT, "remove"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(Error::io("watch over", &path))?;
        Ok(Self { path, remover })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    /// Blocks until the directory is removed. `Child::wait` closes the input of the script first.
    fn drop(&mut self) {
        let _ended = self.remover.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_removed_with_the_directory() {
        let dir = TempDir::new("temp").unwrap();
        let path = dir.path().to_owned();
        std::fs::create_dir(path.join("inner")).unwrap();
        std::fs::write(path.join("inner/file"), b"x").unwrap();
        drop(dir);
        assert!(!path.exists());
    }

    #[test]
    fn directories_with_one_purpose_differ() {
        assert_ne!(TempDir::new("twin").unwrap().path(), TempDir::new("twin").unwrap().path());
    }
}
