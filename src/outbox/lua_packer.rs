//! Packs MessagePack byte for byte as Lua's `cmsgpack` does. For tests only.

use std::collections::BTreeMap;

use super::event::{self, EventDecodeError, OutboxEvent, VERSION};

/// Emits only what `cmsgpack` emits: every string as `str`, never `bin`.
#[derive(Default)]
pub(super) struct LuaPacker(pub(super) Vec<u8>);

impl LuaPacker {
    /// The head of an array; `len` elements follow.
    pub(super) fn array(mut self, len: u8) -> Self {
        assert!(len < 16, "only the short form is needed");
        self.0.push(0x90 | len);
        self
    }

    /// The head of a map; `len` pairs of key and value follow.
    pub(super) fn map(mut self, len: u8) -> Self {
        assert!(len < 16, "only the short form is needed");
        self.0.push(0x80 | len);
        self
    }

    pub(super) fn str(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        match u8::try_from(bytes.len()).unwrap() {
            short @ 0..32 => self.0.push(0xa0 | short),
            long => self.0.extend([0xd9, long]),
        }
        self.0.extend(bytes);
        self
    }

    pub(super) fn int(mut self, value: i64) -> Self {
        match value {
            0..128 => self.0.push(value.to_le_bytes()[0]),
            _ => {
                self.0.push(if value < 0 { 0xd3 } else { 0xcf });
                self.0.extend(value.to_be_bytes());
            }
        }
        self
    }

    pub(super) fn nil(mut self) -> Self {
        self.0.push(0xc0);
        self
    }

    pub(super) fn double(mut self, value: f64) -> Self {
        self.0.push(0xcb);
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn decode(&self) -> Result<Vec<OutboxEvent>, EventDecodeError> {
        event::decode(VERSION, &self.0)
    }
}

#[test]
fn packed_values_are_valid_messagepack() {
    let packed = LuaPacker::default().array(7).str("short").str("x".repeat(40)).int(127);
    let packed = packed.int(-1).double(0.5).nil().map(1).str("key").int(1 << 40);
    type Values = (String, String, i64, i64, f64, Option<i64>, BTreeMap<String, i64>);
    let values: Values = rmp_serde::from_slice(&packed.0).unwrap();
    let map = BTreeMap::from([("key".to_owned(), 1 << 40)]);
    assert_eq!(values, ("short".into(), "x".repeat(40), 127, -1, 0.5, None, map));
}
