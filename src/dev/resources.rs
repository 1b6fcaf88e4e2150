//! Ports and directories for private servers.

use std::collections::HashSet;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use uuid::Uuid;

use super::error::Error;

/// Starts of a server before its port counts as unavailable: another process may take the port
/// first.
pub(super) const MAX_PORT_ATTEMPTS: u32 = 5;

/// Ports for servers. They lie below the ports of outgoing connections (Linux from 32,768, macOS
/// from 49,152), so that no connection takes a port while its server restarts.
const SERVER_PORTS: Range<u16> = 10_000..15_000;

/// A port of 127.0.0.1 that is free at this moment. Prefers ports that this process did not get
/// before. Another process can take the port at any time, so callers must handle that race.
///
/// # Errors
/// When all ports are in use.
pub fn free_port() -> Result<u16, Error> {
    static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    // A random first port makes a race with another process unlikely.
    let random = Uuid::new_v4().into_bytes();
    let first = usize::from(u16::from_le_bytes([random[0], random[1]])) % SERVER_PORTS.len();
    let ports = || SERVER_PORTS.skip(first).chain(SERVER_PORTS.take(first));
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let unused = ports().find(|port| is_free(port) && given.insert(*port));
    unused.or_else(|| ports().find(is_free)).ok_or_else(|| {
        Error::io("find a free port of", Path::new("127.0.0.1"))(ErrorKind::AddrInUse.into())
    })
}

/// Creates `dir` with access for its owner only. Returns its absolute path, because servers change
/// their working directory.
pub(super) fn private_dir(dir: &Path) -> Result<PathBuf, Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::io("create", dir))?;
    dir.canonicalize().map_err(Error::io("find", dir))
}
