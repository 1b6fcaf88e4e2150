//! The reply of the scripts that scan a hash and delete expired records (`lua/*/purge_expired.lua`,
//! `lua/seats/archive_*.lua`).

use std::time::Duration;

use super::{Error, ScriptReply};

/// One page of such a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgePage {
    /// Redis' clock, in milliseconds since 1970.
    pub now: i64,
    /// The cursor of the next page; `None` after the last.
    pub next: Option<String>,
    /// The number of deleted records.
    pub dropped: u64,
}

impl PurgePage {
    /// Reads `{now, next cursor, dropped}`.
    pub fn read(reply: ScriptReply) -> Result<Self, Error> {
        let mut words = reply.words()?;
        let now = words.int()?;
        let next = Some(words.text()?).filter(|cursor| cursor != "0");
        Ok(Self { now, next, dropped: words.count()? })
    }
}

/// A duration in whole milliseconds, as scripts take it.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
