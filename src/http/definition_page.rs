//! Pages of definitions, in the order of their ids: `?limit=` and `?before=`.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::IntoParams;

use super::page::PageLimit;
use crate::ids::QueueId;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DefinitionsQuery {
    /// The number of items, 1–500. Default: 50.
    #[serde(default)]
    limit: PageLimit,
    /// The `next` of the previous page.
    #[param(value_type = Option<String>)]
    before: Option<NameCursor>,
}

/// The id of the last item of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NameCursor(String);

impl<'de> Deserialize<'de> for NameCursor {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        // All ids of definitions have one form.
        match name.parse::<QueueId>() {
            Ok(_) => Ok(Self(name)),
            Err(_) => Err(serde::de::Error::custom("must be the `next` of the previous page")),
        }
    }
}

impl DefinitionsQuery {
    /// One page of `all`, and the cursor of the next page.
    pub fn cut<T>(&self, mut all: Vec<T>, id: impl Fn(&T) -> &str) -> (Vec<T>, Option<NameCursor>) {
        all.sort_unstable_by(|one, other| id(one).cmp(id(other)));
        if let Some(NameCursor(last)) = &self.before {
            all.retain(|item| id(item) > last.as_str());
        }
        let has_next = all.len() > self.limit.get();
        all.truncate(self.limit.get());
        let next = all.last().filter(|_| has_next).map(|item| NameCursor(id(item).to_owned()));
        (all, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str) -> (Vec<&'static str>, Option<String>) {
        let query: DefinitionsQuery = serde_urlencoded::from_str(query).unwrap();
        let (items, next) = query.cut(vec!["c", "a", "b"], |item| item);
        (items, next.map(|cursor| cursor.0))
    }

    #[test]
    fn pages_follow_each_other() {
        assert_eq!(page(""), (vec!["a", "b", "c"], None));
        assert_eq!(page("limit=2"), (vec!["a", "b"], Some("b".to_owned())));
        assert_eq!(page("limit=2&before=b"), (vec!["c"], None));
        assert_eq!(page("before=z"), (vec![], None));
        assert!(serde_urlencoded::from_str::<DefinitionsQuery>("before=a%20b").is_err());
    }
}
