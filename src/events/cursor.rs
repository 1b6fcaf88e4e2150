//! The cursor of a reader: how far it has read the events of each partition.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize};

use crate::partition::HASH_SLOTS;

/// The form of a cursor. Another one gets another number.
const FORM: u64 = 1;

/// How far the events of each partition are read. It is opaque to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventCursor {
    /// When the installation was made, in milliseconds since 1970. A cursor of another installation
    /// is refused.
    pub(super) installation: u64,
    /// The last position that is read, of each partition.
    pub(super) positions: Vec<u64>,
    /// The partition whose next row is read in part, and how many of its events are.
    pub(super) within: Option<(u16, u16)>,
}

impl fmt::Display for EventCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(16 + 4 * self.positions.len());
        let least = self.positions.iter().copied().min().unwrap_or_default();
        for number in [FORM, self.installation, self.positions.len() as u64, least] {
            push(&mut bytes, number);
        }
        for position in &self.positions {
            push(&mut bytes, position - least);
        }
        if let Some((partition, skipped)) = self.within {
            push(&mut bytes, partition.into());
            push(&mut bytes, skipped.into());
        }
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for EventCursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or("must be the `next` of an answer")
    }
}

fn parse(text: &str) -> Option<EventCursor> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let mut rest = bytes.as_slice();
    if pull(&mut rest)? != FORM {
        return None;
    }
    let installation = pull(&mut rest)?;
    let count = pull(&mut rest).filter(|count| (1..=u64::from(HASH_SLOTS)).contains(count))?;
    let least = pull(&mut rest)?;
    let positions: Option<Vec<u64>> =
        (0..count).map(|_| least.checked_add(pull(&mut rest)?)).collect();
    let positions = positions?;
    let within = if rest.is_empty() {
        None
    } else {
        let partition = u16::try_from(pull(&mut rest)?).ok()?;
        let skipped = u16::try_from(pull(&mut rest)?).ok()?;
        Some((partition, skipped)).filter(|_| usize::from(partition) < positions.len())
    };
    let cursor = EventCursor { installation, positions, within };
    // One spelling for each cursor.
    (rest.is_empty() && cursor.to_string() == text).then_some(cursor)
}

/// Appends a number in groups of seven bits, the lowest first (LEB128).
fn push(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

fn pull(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

impl Serialize for EventCursor {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventCursor {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cursor_is_read_as_it_was_written(
            installation: u64,
            positions in prop::collection::vec(any::<u64>(), 1..70),
            within in prop::option::of((0_u16..70, any::<u16>())),
        ) {
            let within = within.filter(|(partition, _)| usize::from(*partition) < positions.len());
            let cursor = EventCursor { installation, positions, within };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn other_texts_are_refused(text in "[A-Za-z0-9_-]{0,40}") {
            if let Ok(cursor) = text.parse::<EventCursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }

    #[test]
    fn cursor_of_a_fresh_installation_is_short() {
        let positions = (0..64).map(|nth| (1_800_000_000_000 + nth) * 4096).collect();
        let cursor =
            EventCursor { installation: 1_800_000_000_000, positions, within: Some((63, 255)) };
        assert!(cursor.to_string().len() < 300, "{}", cursor.to_string().len());
    }
}
