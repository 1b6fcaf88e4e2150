//! How much memory Redis uses.

use fred::interfaces::ClientLike;
use fred::types::InfoKind;
use futures::future::join_all;

use super::{Error, RedisClient};

/// What a Redis says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisMemoryInfo {
    /// Bytes in use.
    pub used: u64,
    /// The most that it may use; 0 is no bound.
    pub max: u64,
}

impl RedisMemoryInfo {
    /// Percent in use; 0 without a bound.
    pub fn share(self) -> u64 {
        (self.used * 100).checked_div(self.max).unwrap_or(0)
    }
}

impl RedisClient {
    /// How much memory Redis uses, and may use; of several servers the fullest.
    ///
    /// # Errors
    /// When none of them tells.
    pub async fn memory(&self) -> Result<RedisMemoryInfo, Error> {
        let map = self.servers().map();
        let told = join_all(map.nodes().iter().map(|node| async move {
            if !self.is_worth_asking(node) {
                return Err(Error::Unavailable(format!("{} is away", node.server())));
            }
            let info: String = node.client().info(Some(InfoKind::Memory)).await?;
            let number =
                |name| field(&info, name).and_then(|number| number.parse().ok()).unwrap_or(0);
            Ok(RedisMemoryInfo { used: number("used_memory"), max: number("maxmemory") })
        }))
        .await;
        let mut why = Error::Unavailable("no server is known".into());
        let mut fullest: Option<RedisMemoryInfo> = None;
        for told in told {
            match told {
                Ok(memory) if fullest.is_none_or(|known| memory.share() > known.share()) => {
                    fullest = Some(memory)
                }
                Ok(_) => {}
                Err(error) => why = error,
            }
        }
        fullest.ok_or(why)
    }
}

/// One line of INFO.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
