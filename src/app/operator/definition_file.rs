//! A file of definitions: what `usher export` writes and `usher apply` reads.
//!
//! Each definition is parsed as the admin API parses it. Its normal form has every field, so a file
//! that omits a default is equal to what the service returns.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::catalogue::ConcertDefinition;
use crate::coupons::CouponDefinition;
use crate::definition::{AdminDefinition, DefinitionViolation};
use crate::ids::{ConcertId, CouponId, QueueId, RewardCode};
use crate::queue::QueueSettings;
use crate::rewards::RewardDefinition;

/// Definitions by kind and id. A concert names its queue, so queues come first.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DefinitionFile {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    queues: BTreeMap<QueueId, QueueSettings>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    concerts: BTreeMap<ConcertId, ConcertDefinition>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    coupons: BTreeMap<CouponId, CouponDefinition>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    rewards: BTreeMap<RewardCode, RewardDefinition>,
}

/// The collections of the admin API, in the order in which definitions are applied.
pub(super) const COLLECTIONS: [&str; 4] = ["queues", "concerts", "coupons", "rewards"];

/// One definition in its normal form.
#[derive(Debug, PartialEq)]
pub(super) struct NamedDefinition {
    /// One of [`COLLECTIONS`].
    pub(super) collection: &'static str,
    pub(super) id: String,
    pub(super) definition: Value,
}

impl DefinitionFile {
    /// # Errors
    /// What is wrong in the file, and where.
    pub(super) fn parse(yaml: &str) -> Result<Self, String> {
        serde_saphyr::from_str(yaml).map_err(|error| error.to_string())
    }

    /// # Errors
    /// When the definitions of the service are not those of this release.
    pub(super) fn from_lists(lists: Value) -> Result<Self, String> {
        serde_json::from_value(lists).map_err(|error| error.to_string())
    }

    pub(super) fn to_yaml(&self) -> Result<String, String> {
        serde_saphyr::to_string(self).map_err(|error| error.to_string())
    }

    /// All definitions in the order in which they are applied.
    ///
    /// # Errors
    /// The rules that the definitions break, one on each line.
    pub(super) fn definitions(self) -> Result<Vec<NamedDefinition>, String> {
        let mut all = NormalForms::default();
        all.add(self.queues, |_, settings| settings.normal_form());
        all.add(self.concerts, |id, concert| concert.normal_form(id));
        all.add(self.coupons, |id, coupon| coupon.normal_form(id));
        all.add(self.rewards, |code, reward| reward.normal_form(code));
        if all.mistakes.is_empty() { Ok(all.definitions) } else { Err(all.mistakes.join("\n")) }
    }
}

#[derive(Default)]
struct NormalForms {
    definitions: Vec<NamedDefinition>,
    mistakes: Vec<String>,
}

impl NormalForms {
    fn add<I: Display, T: AdminDefinition>(
        &mut self,
        definitions: BTreeMap<I, T>,
        normal_form: impl Fn(&I, T) -> Result<T, Vec<DefinitionViolation>>,
    ) {
        for (id, definition) in definitions {
            match normal_form(&id, definition) {
                Ok(definition) => self.definitions.push(NamedDefinition {
                    collection: T::KIND,
                    id: id.to_string(),
                    definition: serde_json::to_value(definition).unwrap_or_default(),
                }),
                Err(violations) => self.mistakes.extend(violations.iter().map(|violation| {
                    format!("{}/{id}: {} {}", T::KIND, violation.field, violation.message)
                })),
            }
        }
    }
}

/// The lines that say how a definition changes, one for each field.
pub(super) fn difference(before: &Value, after: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", before, after, &mut lines);
    lines
}

fn compare(path: &str, before: &Value, after: &Value, lines: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let names: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
            for name in names {
                let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let get = |object: &serde_json::Map<String, Value>| {
                    object.get(name).cloned().unwrap_or(Value::Null)
                };
                compare(&inner, &get(old), &get(new), lines);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (nth, (old, new)) in old.iter().zip(new).enumerate() {
                compare(&format!("{path}[{nth}]"), old, new, lines);
            }
        }
        _ if before != after => lines.push(format!("{path}: {before} -> {after}")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn omitted_defaults_are_no_difference() {
        let file = DefinitionFile::parse("queues:\n  show:\n    max_active: 7\n").unwrap();
        let written = DefinitionFile::parse(&file.to_yaml().unwrap()).unwrap();
        let all = file.definitions().unwrap();
        assert_eq!((all[0].collection, all[0].id.as_str()), ("queues", "show"));
        let again = DefinitionFile::from_lists(json!({"queues": {"show": all[0].definition}}));
        assert_eq!(again.unwrap().definitions().unwrap(), all);
        assert_eq!(written.definitions().unwrap(), all);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("queue: {}", "queue"),
            ("queues:\n  show:\n    max_activ: 7\n", "max_activ"),
            ("queues:\n  Show me: {}\n", "queues"),
            ("queues:\n  a: {}\n  a: {}\n", "a"),
            ("queues: [", ""),
        ] {
            let error = DefinitionFile::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn difference_names_each_field() {
        let before = json!({"a": 1, "b": {"c": [1, 2]}, "d": null});
        let after = json!({"a": 2, "b": {"c": [1, 3]}, "e": "x"});
        assert_eq!(
            difference(&before, &after),
            ["a: 1 -> 2", "b.c[1]: 2 -> 3", "e: null -> \"x\""]
        );
        assert_eq!(difference(&before, &before), [""; 0]);
    }
}
