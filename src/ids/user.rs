//! Ids of users: opaque strings outside, 16 bytes inside.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use super::{InvalidId, SixteenBytes};
use crate::partition::HashSlot;

/// The longest id of a user, in characters.
const MAX_USER_ID_LENGTH: usize = 128;
/// The version of the UUIDs that are made from other strings.
const HASHED_VERSION: usize = 8;

/// A user who joins queues, books and pays: the key of 16 bytes that both stores hold.
///
/// A UUID is its own key. Any other string has the first 16 bytes of its SHA-256 as its key, marked
/// as a UUID of version 8. A UUID of version 8 is hashed too, so that no id can be chosen to have
/// the key of another one.
///
/// An answer never contains a key, but a [`UserName`]. So this type can't be serialized.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ToSchema)]
#[schema(
    value_type = String,
    description = "The id of a user: 1 to 128 visible ASCII characters without spaces. A UUID with \
                   hyphens is the same user in any letter case. Other ids are compared as they are.",
    pattern = "^[!-~]{1,128}$",
    min_length = 1,
    max_length = 128,
    example = "auth0|5f7c8ec7c33c6c004bbafe82"
)]
pub struct UserId(Uuid);

impl UserId {
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The key as a UUID, for binding in SQL statements.
    pub fn uuid(self) -> Uuid {
        self.0
    }

    /// Parses the 16 bytes that Redis or MySQL store.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }

    /// The slot of the user's wallet and idempotency keys.
    pub fn slot(&self) -> HashSlot {
        HashSlot::of(self.as_bytes())
    }

    /// Whether the key is a digest, so that the string must be recorded.
    pub fn is_hashed(self) -> bool {
        self.0.get_version_num() == HASHED_VERSION
    }

    fn of_text(text: &str) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&Sha256::digest(text.as_bytes())[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

/// A stored key.
impl From<Uuid> for UserId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl FromStr for UserId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        UserName::from_str(text).map(|name| name.key)
    }
}

/// The key. Only for logs.
impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            UserName::deserialize(from).map(|name| name.key)
        } else {
            from.deserialize_bytes(SixteenBytes).map(Self)
        }
    }
}

/// The id of a user as a string, with its key. Two names of one key are spellings of one UUID.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UserName {
    key: UserId,
    /// `None` for a UUID in its canonical form, which the key contains.
    text: Option<Arc<str>>,
}

impl UserName {
    pub fn key(&self) -> UserId {
        self.key
    }

    /// A key with the string that was recorded for it.
    pub fn recorded(key: UserId, text: Option<Arc<str>>) -> Self {
        Self { key, text }
    }

    /// The string that is recorded with the key. `None` if the key alone gives the string.
    pub fn text_to_record(&self) -> Option<Arc<str>> {
        if !self.key.is_hashed() {
            return None;
        }
        let text = self.text.as_ref()?;
        Some(match parse_uuid(text) {
            Some(uuid) => uuid.to_string().into(),
            None => text.clone(),
        })
    }
}

impl PartialSchema for UserName {
    fn schema() -> RefOr<Schema> {
        UserId::schema()
    }
}

impl ToSchema for UserName {
    fn name() -> Cow<'static, str> {
        UserId::name()
    }
}

/// The canonical form of a UUID that is its own key.
impl From<UserId> for UserName {
    fn from(key: UserId) -> Self {
        Self { key, text: None }
    }
}

/// Parses only the form with hyphens. The crate also accepts braces and URNs.
fn parse_uuid(text: &str) -> Option<Uuid> {
    if text.len() == 36 { text.parse().ok() } else { None }
}

impl FromStr for UserName {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if !(1..=MAX_USER_ID_LENGTH).contains(&text.len())
            || !text.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(InvalidId::User);
        }
        let mut buffer = Uuid::encode_buffer();
        let uuid = parse_uuid(text);
        let canonical = uuid.map(|uuid| &*uuid.hyphenated().encode_lower(&mut buffer));
        let key = match uuid {
            Some(uuid) if uuid.get_version_num() != HASHED_VERSION => UserId(uuid),
            _ => UserId::of_text(canonical.unwrap_or(text)),
        };
        let is_its_key = !key.is_hashed() && canonical == Some(text);
        Ok(Self { key, text: (!is_its_key).then(|| text.into()) })
    }
}

impl<'de> Deserialize<'de> for UserName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl Serialize for UserName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => f.write_str(text),
            None => self.key.fmt(f),
        }
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> UserName {
        text.parse().unwrap()
    }

    #[test]
    fn ids_are_visible_ascii() {
        let longest = "x".repeat(128);
        for good in ["4", "auth0|5f7c", "a.b+c@example.org", "{}:/?#%00", &longest] {
            assert_eq!(name(good).to_string(), good);
            assert!(name(good).key().is_hashed(), "{good}");
        }
        for bad in ["", " ", "a b", "a\tb", "a\nb", "a\0b", "\x7f", "ä", &"x".repeat(129)] {
            assert_eq!(bad.parse::<UserName>(), Err(InvalidId::User), "{bad:?}");
        }
    }

    #[test]
    fn uuid_is_one_user_in_any_letter_case() {
        let canonical = name("0b5f4a1e-26a2-4e6c-9d6c-5a8f7d1c2b3a");
        let upper = name("0B5F4A1E-26A2-4E6C-9D6C-5a8f7d1c2b3a");
        assert_eq!(upper.key(), canonical.key());
        assert_eq!(upper.to_string(), "0B5F4A1E-26A2-4E6C-9D6C-5a8f7d1c2b3a");
        assert_eq!(canonical.key().to_string(), canonical.to_string());
        assert_eq!((upper.text_to_record(), canonical.text_to_record()), (None, None));
        for other in ["0b5f4a1e26a24e6c9d6c5a8f7d1c2b3a", "{0b5f4a1e-26a2-4e6c-9d6c-5a8f7d1c2b3a}"]
        {
            assert_ne!(name(other).key(), canonical.key(), "{other}");
        }
        assert_ne!(name("abc").key(), name("ABC").key());
    }

    /// Otherwise a caller could send the key of another user as an id.
    #[test]
    fn key_of_a_string_is_the_id_of_another_user() {
        let victim = name("auth0|5f7c");
        let key = victim.key().to_string();
        assert_ne!(name(&key).key(), victim.key());
        let upper = name(&key.to_uppercase());
        assert_eq!(upper.key(), name(&key).key());
        assert_eq!(upper.text_to_record().as_deref(), Some(key.as_str()));
        assert_eq!(upper.to_string(), key.to_uppercase());
    }
}
