//! How much memory Redis uses.

use fred::interfaces::ClientLike;
use fred::types::InfoKind;
use futures::future::join_all;

use super::{Error, RedisClient};

/// The memory that a Redis server uses and may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisMemoryInfo {
    /// Bytes in use.
    pub used: u64,
    /// `maxmemory` in bytes; 0 means no limit.
    pub max: u64,
}

impl RedisMemoryInfo {
    /// Percent in use; 0 without a limit.
    pub fn percent_used(self) -> u64 {
        (self.used * 100).checked_div(self.max).unwrap_or(0)
    }
}

impl RedisClient {
    /// The memory of the server that has the highest percent_used in use.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn memory(&self) -> Result<RedisMemoryInfo, Error> {
        let table = self.topology().table();
        let reports = join_all(table.nodes().iter().map(|node| async move {
            if !self.is_usable(node) {
                return Err(Error::Unavailable(format!("{} is not connected", node.server())));
            }
            let info: String = node.client().info(Some(InfoKind::Memory)).await?;
            let number =
                |name| field(&info, name).and_then(|number| number.parse().ok()).unwrap_or(0);
            Ok(RedisMemoryInfo { used: number("used_memory"), max: number("maxmemory") })
        }))
        .await;
        let mut cause = Error::Unavailable("no server is known".into());
        let mut fullest: Option<RedisMemoryInfo> = None;
        for report in reports {
            match report {
                Ok(memory)
                    if fullest.is_none_or(|known| memory.percent_used() > known.percent_used()) =>
                {
                    fullest = Some(memory)
                }
                Ok(_) => {}
                Err(error) => cause = error,
            }
        }
        fullest.ok_or(cause)
    }
}

/// The value of one line of INFO.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
