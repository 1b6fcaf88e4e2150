//! Decodes the events of an outbox entry.

use super::event::{OutboxEvent, VERSION};
use super::lua;

/// Why an entry can't be decoded.
#[derive(Debug, thiserror::Error)]
pub enum EventDecodeError {
    /// The entry was written by a newer release.
    #[error("unknown schema version {0:?}")]
    Version(String),
    #[error("the payload does not match schema v1: {0}")]
    Payload(#[from] rmp_serde::decode::Error),
    #[error("{0} extra bytes after the payload")]
    Trailing(usize),
}

/// Decodes the events of one outbox entry. `version` is the name of the entry's field.
///
/// # Errors
/// For an unknown version, and for anything that does not match the schema exactly.
pub fn decode(version: &str, payload: &[u8]) -> Result<Vec<OutboxEvent>, EventDecodeError> {
    if version != VERSION {
        return Err(EventDecodeError::Version(version.to_owned()));
    }
    let mut reader = rmp_serde::Deserializer::new(payload);
    // An event nests three levels deep. The limit protects the stack from hostile nesting.
    reader.set_max_depth(8);
    let events = lua::list(&mut reader)?;
    match reader.get_ref().len() {
        0 => Ok(events),
        more => Err(EventDecodeError::Trailing(more)),
    }
}
