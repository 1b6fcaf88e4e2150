//! The answer of a script, as words to be read in order.

use bytes::Bytes;
use fred::types::Value;
use serde::de::DeserializeOwned;

use super::Error;

/// The codes by which a script says what it did. `build.rs` implements it for each header that
/// declares codes.
pub trait ReplyCode: Sized {
    /// The script or library that declares the codes.
    const NAME: &'static str;

    /// `None` for a number that the header does not declare.
    fn from_code(code: i64) -> Option<Self>;
}

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

    /// A flag: 1 is true, 0 is false.
    ///
    /// # Errors
    /// [`Error::Protocol`] for anything else.
    pub fn flag(self) -> Result<bool, Error> {
        match self.int()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Error::Protocol(format!("{other} is not a flag"))),
        }
    }

    /// A reply code.
    ///
    /// # Errors
    /// [`Error::Protocol`] for a code that the script's header does not declare: the service and
    /// the script are of different versions, so the reply is never read as a business answer.
    pub fn code<C: ReplyCode>(self) -> Result<C, Error> {
        let code = self.int()?;
        C::from_code(code).ok_or_else(|| {
            Error::Protocol(format!("{} replied with the unknown code {code}", C::NAME))
        })
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

    /// The next word as a flag.
    pub fn flag(&mut self) -> Result<bool, Error> {
        self.word()?.flag()
    }

    /// The next word as a reply code.
    ///
    /// # Errors
    /// [`Error::Protocol`] for an unknown code.
    pub fn code<C: ReplyCode>(&mut self) -> Result<C, Error> {
        self.word()?.code()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::codes::WalletDebitCode;

    #[test]
    fn unknown_code_is_a_protocol_error() {
        assert_eq!(ScriptReply::Int(3).code(), Ok(WalletDebitCode::Tombstone));
        for unknown in [-1, 0, 4] {
            let error = ScriptReply::Int(unknown).code::<WalletDebitCode>();
            assert!(matches!(error, Err(Error::Protocol(_))), "{unknown}: {error:?}");
        }
    }
}
