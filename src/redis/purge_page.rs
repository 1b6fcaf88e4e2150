//! What a script answers that goes through a hash and drops what is over.

use std::time::Duration;

use super::{Error, ScriptReply};

/// One part of a walk through a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedPage {
    /// Redis' clock.
    pub now: i64,
    /// Where the walk goes on; `None` when all was seen.
    pub next: Option<String>,
    /// How many records were dropped.
    pub dropped: u64,
}

impl EndedPage {
    /// Reads `{now, next cursor, dropped}`.
    pub fn read(reply: ScriptReply) -> Result<Self, Error> {
        let mut words = reply.words()?;
        let now = words.int()?;
        let next = Some(words.text()?).filter(|cursor| cursor != "0");
        Ok(Self { now, next, dropped: words.count()? })
    }
}

/// A duration as scripts take it: whole milliseconds.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
