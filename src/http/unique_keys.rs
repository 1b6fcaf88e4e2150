//! Finds repeated keys in JSON, which a map or a JSON value would accept silently.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Any JSON value in which no object has two equal keys. The error for a repeated key has the form
/// of serde's.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum UniqueKeys {
    EmptyObject,
    OtherValue,
}

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueKeysVisitor)
    }
}

struct UniqueKeysVisitor;

macro_rules! accept {
    ($($method:ident($kind:ty)),*) => {$(
        fn $method<E>(self, _: $kind) -> Result<UniqueKeys, E> {
            Ok(UniqueKeys::OtherValue)
        }
    )*};
}

impl<'de> Visitor<'de> for UniqueKeysVisitor {
    type Value = UniqueKeys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    accept!(visit_bool(bool), visit_i64(i64), visit_u64(u64), visit_f64(f64), visit_str(&str));

    fn visit_unit<E>(self) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys::OtherValue)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<UniqueKeys, A::Error> {
        while items.next_element::<UniqueKeys>()?.is_some() {}
        Ok(UniqueKeys::OtherValue)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<UniqueKeys, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = fields.next_key::<Cow<'de, str>>()? {
            if keys.contains(&key) {
                return Err(A::Error::custom(format_args!("duplicate field `{key}`")));
            }
            fields.next_value::<UniqueKeys>()?;
            keys.insert(key);
        }
        Ok(if keys.is_empty() { UniqueKeys::EmptyObject } else { UniqueKeys::OtherValue })
    }
}
