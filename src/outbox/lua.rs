//! Deserializers for what Lua's `cmsgpack` writes differently from `rmp_serde`.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use chrono::{DateTime, Utc};
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use uuid::Uuid;

/// The last millisecond of the year 9999, the largest value of a DATETIME.
const LAST_MILLISECOND: i64 = 253_402_300_799_999;

/// The most elements to reserve memory for before they are read: a claimed length alone must not
/// allocate.
const RESERVED: usize = 256;

/// A list. Lua has one table type, so an empty list may be packed as an empty map.
pub(super) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    from.deserialize_any(LuaList(PhantomData))
}

struct LuaList<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for LuaList<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::with_capacity(elements.size_hint().unwrap_or(0).min(RESERVED));
        while let Some(element) = elements.next_element()? {
            list.push(element);
        }
        Ok(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
        match entries.next_key::<IgnoredAny>()? {
            None => Ok(Vec::new()),
            Some(_) => Err(de::Error::custom("expected a list, found a map")),
        }
    }
}

/// A time in milliseconds since 1970, up to the year 9999.
pub(super) fn millis<'de, D: Deserializer<'de>>(from: D) -> Result<DateTime<Utc>, D::Error> {
    let millis = i64::deserialize(from)?;
    let time =
        (0..=LAST_MILLISECOND).contains(&millis).then(|| DateTime::from_timestamp_millis(millis));
    time.flatten().ok_or_else(|| {
        de::Error::custom(format_args!("{millis} ms is not a time from 1970 to 9999"))
    })
}

pub(super) fn optional_millis<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<DateTime<Utc>>, D::Error> {
    #[derive(serde::Deserialize)]
    struct LuaTime(#[serde(deserialize_with = "millis")] DateTime<Utc>);
    Ok(Option::<LuaTime>::deserialize(from)?.map(|LuaTime(time)| time))
}

/// Pairs of ids, 16 bytes each, without separators.
pub(super) fn pairs<'de, D: Deserializer<'de>, A, B>(from: D) -> Result<Vec<(A, B)>, D::Error>
where
    A: From<Uuid>,
    B: From<Uuid>,
{
    from.deserialize_bytes(LuaPairs(PhantomData))
}

struct LuaPairs<A, B>(PhantomData<(A, B)>);

impl<A: From<Uuid>, B: From<Uuid>> Visitor<'_> for LuaPairs<A, B> {
    type Value = Vec<(A, B)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pairs of sixteen bytes each")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<(A, B)>, E> {
        let (ids, rest) = bytes.as_chunks::<16>();
        let (pairs, odd) = ids.as_chunks::<2>();
        if pairs.is_empty() || !odd.is_empty() || !rest.is_empty() {
            return Err(E::invalid_length(bytes.len(), &self));
        }
        let id = Uuid::from_bytes;
        Ok(pairs.iter().map(|&[first, second]| (id(first).into(), id(second).into())).collect())
    }

    /// Bytes that are valid UTF-8 arrive as text.
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<(A, B)>, E> {
        self.visit_bytes(text.as_bytes())
    }
}

/// Bytes that need not be text.
pub(super) fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    from.deserialize_bytes(LuaBytes)
}

struct LuaBytes;

impl Visitor<'_> for LuaBytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    /// Bytes that are valid UTF-8 arrive as text.
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
        Ok(text.as_bytes().to_vec())
    }
}

/// The text of a JSON object, unchanged.
pub(super) fn json_object<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    match serde_json::from_str::<HashMap<String, IgnoredAny>>(&text) {
        Ok(_) => Ok(text),
        Err(error) => {
            Err(de::Error::custom(format_args!("the text is not a JSON object: {error}")))
        }
    }
}

/// The text of a JSON array, unchanged.
pub(super) fn json_array<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    match serde_json::from_str::<Vec<IgnoredAny>>(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(de::Error::custom(format_args!("the text is not a JSON array: {error}"))),
    }
}
