//! What Lua's MessagePack writes differently from ours.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use chrono::{DateTime, Utc};
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use uuid::Uuid;

/// The last millisecond that a DATETIME can hold: the end of the year 9999.
const LAST_MILLISECOND: i64 = 253_402_300_799_999;

/// Elements reserved ahead of reading them; a claimed length alone must not take memory.
const RESERVED: usize = 256;

/// A list. Lua has one kind of table, so an empty one may have been packed as a map.
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
            Some(_) => Err(de::Error::custom("a map stands where a list should")),
        }
    }
}

/// A time: milliseconds since 1970, not after the year 9999.
pub(super) fn millis<'de, D: Deserializer<'de>>(from: D) -> Result<DateTime<Utc>, D::Error> {
    let millis = i64::deserialize(from)?;
    let time =
        (0..=LAST_MILLISECOND).contains(&millis).then(|| DateTime::from_timestamp_millis(millis));
    time.flatten().ok_or_else(|| {
        de::Error::custom(format_args!("{millis} ms is not a time from 1970 to 9999"))
    })
}

/// A time that may be missing.
pub(super) fn maybe_millis<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<DateTime<Utc>>, D::Error> {
    #[derive(serde::Deserialize)]
    struct LuaTime(#[serde(deserialize_with = "millis")] DateTime<Utc>);
    Ok(Option::<LuaTime>::deserialize(from)?.map(|LuaTime(time)| time))
}

/// Pairs of ids, written one after the other.
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

    /// What happens to be UTF-8.
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<(A, B)>, E> {
        self.visit_bytes(text.as_bytes())
    }
}

/// The text of a JSON object, left as it is.
pub(super) fn json_object<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    match serde_json::from_str::<HashMap<String, IgnoredAny>>(&text) {
        Ok(_) => Ok(text),
        Err(error) => {
            Err(de::Error::custom(format_args!("the text is not a JSON object: {error}")))
        }
    }
}

/// The text of a JSON array, left as it is.
pub(super) fn json_array<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    match serde_json::from_str::<Vec<IgnoredAny>>(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(de::Error::custom(format_args!("the text is not a JSON array: {error}"))),
    }
}
