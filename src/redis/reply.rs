//! The answer of a script, as words to be read in order.

use bytes::Bytes;
use fred::types::Value;
use serde::de::DeserializeOwned;

use super::Error;

/// One word of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScriptReply {
    /// A whole number.
    Int(i64),
    /// Text or raw bytes.
    Bytes(Bytes),
    /// Nothing (Lua's `false`).
    Nil,
    /// A list of words.
    List(Vec<ScriptReply>),
}

impl ScriptReply {
    /// The words of a list.
    pub fn words(self) -> Result<ReplyReader, Error> {
        match self {
            Self::List(words) => Ok(ReplyReader(words.into_iter())),
            other => Err(unexpected("a list", &other)),
        }
    }

    /// A whole number, whether it came as a number or as decimal text.
    pub fn int(self) -> Result<i64, Error> {
        match &self {
            Self::Int(number) => Some(*number),
            Self::Bytes(bytes) => {
                std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok())
            }
            _ => None,
        }
        .ok_or_else(|| unexpected("a whole number", &self))
    }

    /// Text or raw bytes.
    pub fn bytes(self) -> Result<Bytes, Error> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(unexpected("bytes", &other)),
        }
    }

    /// A MessagePack record; `None` for an empty text or nil.
    pub fn record<T: DeserializeOwned>(self) -> Result<Option<T>, Error> {
        match self {
            Self::Nil => Ok(None),
            Self::Bytes(bytes) if bytes.is_empty() => Ok(None),
            Self::Bytes(bytes) => {
                rmp_serde::from_slice(&bytes).map(Some).map_err(|e| Error::Protocol(e.to_string()))
            }
            other => Err(unexpected("a record", &other)),
        }
    }
}

/// The words of an answer that are still to be read.
#[derive(Debug)]
pub struct ReplyReader(std::vec::IntoIter<ScriptReply>);

impl ReplyReader {
    /// The next word; an error when the answer is shorter than agreed.
    pub fn word(&mut self) -> Result<ScriptReply, Error> {
        self.0.next().ok_or_else(|| Error::Protocol("the answer is too short".into()))
    }

    /// The next word as a whole number.
    pub fn int(&mut self) -> Result<i64, Error> {
        self.word()?.int()
    }

    /// The next word as a count, ≥ 0.
    pub fn count(&mut self) -> Result<u64, Error> {
        u64::try_from(self.int()?).map_err(|_| Error::Protocol("a count below zero".into()))
    }

    /// The next word as text.
    pub fn text(&mut self) -> Result<String, Error> {
        let bytes = self.word()?.bytes()?;
        String::from_utf8(bytes.into()).map_err(|_| Error::Protocol("not UTF-8".into()))
    }

    /// The next word as a MessagePack record that must be there.
    pub fn record<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        self.word()?.record()?.ok_or_else(|| Error::Protocol("a record is missing".into()))
    }

    /// Whether no word is left.
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// All words that are left.
    pub fn rest(self) -> impl ExactSizeIterator<Item = ScriptReply> {
        self.0
    }
}

fn unexpected(wanted: &str, got: &ScriptReply) -> Error {
    Error::Protocol(format!("wanted {wanted}, got {got:?}"))
}

impl TryFrom<Value> for ScriptReply {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self, Error> {
        Ok(match value {
            Value::Integer(number) => Self::Int(number),
            Value::String(text) => Self::Bytes(text.into_inner()),
            Value::Bytes(bytes) => Self::Bytes(bytes),
            Value::Null => Self::Nil,
            Value::Array(words) => {
                Self::List(words.into_iter().map(Self::try_from).collect::<Result<_, _>>()?)
            }
            other => return Err(Error::Protocol(format!("a word of kind {:?}", other.kind()))),
        })
    }
}
