//! The arguments of a script call.

use bytes::Bytes;
use fred::types::Value;
use serde::Serialize;

use super::Error;

/// Arguments in the order of the script's `ARGV:` line.
#[derive(Debug, Default, Clone)]
pub struct Args(Vec<Value>);

impl Args {
    /// No arguments yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.0.push(Value::String(text.into()));
        self
    }

    /// Adds a whole number as decimal text.
    pub fn int(&mut self, number: i64) -> &mut Self {
        self.0.push(Value::Integer(number));
        self
    }

    /// Adds a whole number, or an empty text for none.
    pub fn maybe_int(&mut self, number: Option<i64>) -> &mut Self {
        match number {
            Some(number) => self.int(number),
            None => self.text(""),
        }
    }

    /// Adds raw bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.push(Value::Bytes(Bytes::copy_from_slice(bytes)));
        self
    }

    /// Adds raw bytes for each request of a batch that consists of nothing else.
    pub fn each<'a>(&mut self, all: impl Iterator<Item = &'a [u8; 16]>) -> &mut Self {
        self.0.extend(all.map(|bytes| Value::Bytes(Bytes::copy_from_slice(bytes))));
        self
    }

    /// Adds a MessagePack map. Lua's `cmsgpack` knows texts and numbers, but no bytes.
    pub fn map<T: Serialize>(&mut self, map: &T) -> Result<&mut Self, Error> {
        let packed = rmp_serde::to_vec_named(map).map_err(|error| Error::Protocol(error.to_string()))?;
        self.0.push(Value::Bytes(packed.into()));
        Ok(self)
    }

    pub(super) fn into_values(self, generation: u64) -> Vec<Value> {
        let mut values = Vec::with_capacity(self.0.len() + 1);
        values.push(Value::String(generation.to_string().into()));
        values.extend(self.0);
        values
    }
}
