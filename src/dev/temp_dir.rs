//! A directory that goes away with its owner.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use uuid::Uuid;

use super::Error;

/// Waits for the end of its input, then removes the directory; a server that is still stopping may write into it
/// meanwhile, so it tries for ten seconds.
const REMOVE: &str = r#"
while read -r _; do :; done
tries=10
until rm -rf "$1" 2>/dev/null || [ "$tries" -eq 0 ]; do
    sleep 1
    tries=$((tries - 1))
done
"#;

/// A directory in the system's place for temporary files, removed when this is dropped, and also when the process that
/// owns it ends without dropping anything: a test's servers often stand in a static, and tests are killed.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
    keeper: Child,
}

impl TempDir {
    /// Makes an empty directory for this process' user alone, with `purpose` in its name.
    ///
    /// # Errors
    /// [`Error::Io`] when the directory can't be made.
    pub fn new(purpose: &str) -> Result<Self, Error> {
        let unique = Uuid::new_v4().simple().to_string();
        let path = std::env::temp_dir().join(format!("usher-{purpose}-{}", &unique[..12]));
        DirBuilder::new().mode(0o700).create(&path).map_err(Error::io("create", &path))?;
        let keeper = Command::new("/bin/sh")
            .args(["-c", REMOVE, "remove"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(Error::io("watch over", &path))?;
        Ok(Self { path, keeper })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    /// Blocks until the directory is gone. `Child::wait` closes the keeper's input first.
    fn drop(&mut self) {
        let _ended = self.keeper.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_its_contents_along() {
        let dir = TempDir::new("temp").unwrap();
        let path = dir.path().to_owned();
        std::fs::create_dir(path.join("inner")).unwrap();
        std::fs::write(path.join("inner/file"), b"x").unwrap();
        drop(dir);
        assert!(!path.exists());
    }

    #[test]
    fn two_with_one_purpose_are_two() {
        assert_ne!(TempDir::new("twin").unwrap().path(), TempDir::new("twin").unwrap().path());
    }
}
