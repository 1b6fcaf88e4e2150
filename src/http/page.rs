//! Pages of lists, newest first: `?limit=` and `?before=`.
//!
//! `before` is a cursor: the time and the id of the last item of the previous page. It is opaque to
//! clients.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

const DEFAULT_LIMIT: u16 = 50;
const MAX_LIMIT: u16 = 500;

/// The number of items of a page, 1 to 500.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(value_type = u16, minimum = 1, maximum = 500, default = 50)]
pub struct PageLimit(u16);

impl PageLimit {
    pub fn get(self) -> usize {
        self.0.into()
    }
}

impl Default for PageLimit {
    fn default() -> Self {
        Self(DEFAULT_LIMIT)
    }
}

impl<'de> Deserialize<'de> for PageLimit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let limit = u16::deserialize(from)?;
        let valid = (1..=MAX_LIMIT).contains(&limit).then_some(Self(limit));
        valid.ok_or_else(|| serde::de::Error::custom(format_args!("must be from 1 to {MAX_LIMIT}")))
    }
}

/// The position of an item in a list. Older items follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageCursor {
    /// The time of the item, in milliseconds since 1970.
    pub at: i64,
    pub id: Uuid,
}

/// The end of the year 9999, the latest time that MySQL can store.
const MAX_TIME: i64 = 253_402_300_799_999;

impl PageCursor {
    /// The position before the newest item.
    pub const START: Self = Self { at: MAX_TIME, id: Uuid::max() };
}

impl fmt::Display for PageCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.at, self.id.simple())
    }
}

impl FromStr for PageCursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (at, id) = text.split_once('-')?;
            let cursor = Self { at: at.parse().ok()?, id: Uuid::try_parse(id).ok()? };
            (0..=MAX_TIME).contains(&cursor.at).then_some(cursor)
        };
        parse().ok_or("must be the `next` of the previous page")
    }
}

impl Serialize for PageCursor {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PageCursor {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Cuts `items`, which has one item more than the page if there is a next page. Returns the page
/// and the cursor of the next page.
pub fn cut<T>(
    mut items: Vec<T>,
    limit: PageLimit,
    position: impl Fn(&T) -> PageCursor,
) -> (Vec<T>, Option<PageCursor>) {
    let has_next = items.len() > limit.get();
    items.truncate(limit.get());
    let next = items.last().filter(|_| has_next).map(position);
    (items, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct TestPage {
        #[serde(default)]
        limit: PageLimit,
        before: Option<PageCursor>,
    }

    fn page(query: &str) -> Result<TestPage, serde_urlencoded::de::Error> {
        serde_urlencoded::from_str(query)
    }

    #[test]
    fn limit_must_be_in_range() {
        assert_eq!(page("").unwrap().limit.get(), 50);
        assert_eq!(page("limit=1").unwrap().limit.get(), 1);
        assert_eq!(page("limit=500").unwrap().limit.get(), 500);
        for bad in ["0", "501", "-1", "x", "", "1.5", "70000"] {
            assert!(page(&format!("limit={bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn cursor_survives_a_round_trip() {
        for cursor in
            [PageCursor { at: 1_763_700_000_123, id: Uuid::from_u128(7) }, PageCursor::START]
        {
            assert_eq!(page(&format!("before={cursor}")).unwrap().before, Some(cursor));
        }
        let id = Uuid::from_u128(7).simple();
        for bad in
            ["", "7", "7-", "-7", "x-7", &format!("-1-{id}"), &format!("9999999999999999-{id}")]
        {
            assert!(page(&format!("before={bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn full_page_has_a_next_only_if_more_items_follow() {
        let place = |at: &i64| PageCursor { at: *at, id: Uuid::nil() };
        let limit = PageLimit(2);
        assert_eq!(cut(vec![3, 2, 1], limit, place), (vec![3, 2], Some(place(&2))));
        assert_eq!(cut(vec![3, 2], limit, place), (vec![3, 2], None));
        assert_eq!(cut(Vec::new(), limit, place), (vec![], None));
    }
}
