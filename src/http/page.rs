//! Pages of lists that go newest first: `?limit=` and `?before=`.
//!
//! `before` is the place of the last line of the page before: its moment and its id, which break every tie. To clients it is opaque.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Lines of a page if the client does not say.
const DEFAULT: u16 = 50;
/// Lines of a page at most.
const MOST: u16 = 500;

/// How many lines a page has, 1…500.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(value_type = u16, minimum = 1, maximum = 500, default = 50)]
pub struct PageLimit(u16);

impl PageLimit {
    /// The number.
    pub fn get(self) -> usize {
        self.0.into()
    }
}

impl Default for PageLimit {
    fn default() -> Self {
        Self(DEFAULT)
    }
}

impl<'de> Deserialize<'de> for PageLimit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let limit = u16::deserialize(from)?;
        let sound = (1..=MOST).contains(&limit).then_some(Self(limit));
        sound.ok_or_else(|| serde::de::Error::custom(format_args!("must be from 1 to {MOST}")))
    }
}

/// The place of a line: what is older stands after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageCursor {
    /// When the line came to be, milliseconds since 1970.
    pub at: i64,
    /// Its id.
    pub id: Uuid,
}

/// The latest moment that a cursor can name: the end of the year 9999, where MySQL's calendar ends.
const LAST: i64 = 253_402_300_799_999;

impl PageCursor {
    /// The place before which everything stands.
    pub const START: Self = Self { at: LAST, id: Uuid::max() };
}

impl fmt::Display for PageCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.at, self.id.simple())
    }
}

impl FromStr for PageCursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (at, id) = text.split_once('-')?;
            let cursor = Self { at: at.parse().ok()?, id: Uuid::try_parse(id).ok()? };
            (0..=LAST).contains(&cursor.at).then_some(cursor)
        };
        read().ok_or("must be the `next` of a page before")
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

/// Cuts lines, of which one more was read than the page has, to the page, and tells where the next one begins.
pub fn cut<T>(
    mut lines: Vec<T>,
    limit: PageLimit,
    place: impl Fn(&T) -> PageCursor,
) -> (Vec<T>, Option<PageCursor>) {
    let more = lines.len() > limit.get();
    lines.truncate(limit.get());
    let next = lines.last().filter(|_| more).map(place);
    (lines, next)
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
    fn limits_have_two_ends() {
        assert_eq!(page("").unwrap().limit.get(), 50);
        assert_eq!(page("limit=1").unwrap().limit.get(), 1);
        assert_eq!(page("limit=500").unwrap().limit.get(), 500);
        for bad in ["0", "501", "-1", "x", "", "1.5", "70000"] {
            assert!(page(&format!("limit={bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cursor_comes_back_as_it_went() {
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
    fn a_page_that_is_full_has_a_next_only_if_there_is_more() {
        let place = |at: &i64| PageCursor { at: *at, id: Uuid::nil() };
        let limit = PageLimit(2);
        assert_eq!(cut(vec![3, 2, 1], limit, place), (vec![3, 2], Some(place(&2))));
        assert_eq!(cut(vec![3, 2], limit, place), (vec![3, 2], None));
        assert_eq!(cut(Vec::new(), limit, place), (vec![], None));
    }
}
