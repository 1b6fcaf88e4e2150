//! The arguments of a script call.

use std::io::Write as _;

use bytes::Bytes;
use fred::types::Value;
use serde::Serialize;

use super::Error;

/// Arguments in the order of the script's `ARGV:` line. They share one buffer, so a call for
/// hundreds of requests allocates no more often than a call for one.
#[derive(Debug, Default, Clone)]
pub struct ScriptArgs {
    buffer: Vec<u8>,
    /// Where each argument ends.
    ends: Vec<usize>,
}

impl ScriptArgs {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Adds a whole number as decimal text.
    pub fn int(&mut self, number: i64) -> &mut Self {
        // Writing to a Vec can't fail.
        let _ = write!(self.buffer, "{number}");
        self.end()
    }

    /// Adds a whole number, or an empty text for none.
    pub fn optional_int(&mut self, number: Option<i64>) -> &mut Self {
        match number {
            Some(number) => self.int(number),
            None => self.text(""),
        }
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.buffer.extend_from_slice(bytes);
        self.end()
    }

    fn end(&mut self) -> &mut Self {
        self.ends.push(self.buffer.len());
        self
    }

    /// Adds raw bytes for each request of a batch whose requests have no other argument.
    pub fn each<'a>(&mut self, all: impl Iterator<Item = &'a [u8; 16]>) -> &mut Self {
        for bytes in all {
            self.bytes(bytes);
        }
        self
    }

    /// Adds a MessagePack map. Its values must be texts and numbers: Lua's `cmsgpack` has no type
    /// for bytes.
    pub fn map<T: Serialize>(&mut self, map: &T) -> Result<&mut Self, Error> {
        let packed =
            rmp_serde::to_vec_named(map).map_err(|error| Error::Protocol(error.to_string()))?;
        Ok(self.bytes(&packed))
    }

    /// Puts the expected epoch or recovery fence in front.
    pub(super) fn seal(self, fence: &str) -> FencedArgs {
        FencedArgs { fence: fence.to_owned(), buffer: self.buffer.into(), ends: self.ends }
    }
}

/// Arguments with their fence. They can be sent several times, for retries.
pub(super) struct FencedArgs {
    fence: String,
    buffer: Bytes,
    ends: Vec<usize>,
}

impl FencedArgs {
    pub(super) fn values(&self) -> Vec<Value> {
        let mut values = Vec::with_capacity(self.ends.len() + 1);
        values.push(Value::String(self.fence.as_str().into()));
        let mut start = 0;
        for &end in &self.ends {
            values.push(Value::Bytes(self.buffer.slice(start..end)));
            start = end;
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_keep_their_order_and_bytes() {
        let mut args = ScriptArgs::new();
        args.text("demo").int(-7).optional_int(None).bytes(&[0, 255]).optional_int(Some(1 << 53));
        let sealed = args.seal("4");
        let bytes = |values: Vec<Value>| -> Vec<Bytes> {
            values.into_iter().map(|value| value.into_bytes().unwrap()).collect()
        };
        let expected: [&[u8]; 6] = [b"4", b"demo", b"-7", b"", &[0, 255], b"9007199254740992"];
        assert_eq!(bytes(sealed.values()), expected);
        assert_eq!(bytes(sealed.values()), expected);
    }
}
