//! JSON Merge Patch (RFC 7396), and the two ways to change a definition: to replace it and to patch
//! it.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

use super::json::{self, JsonBodyWithBytes};
use super::problem::ProblemDetails;
use crate::definition::{
    AdminDefinition, ChangePreconditions, ChangeRefusal, DefinitionEtag, DefinitionViolation,
};

/// A change of a definition, before it meets the stored one.
#[derive(Debug, Clone)]
pub enum DefinitionChange<T> {
    Replace(T),
    Patch(MergePatch),
}

impl<T: AdminDefinition> DefinitionChange<T> {
    /// The definition after the change. Call it where no other change can happen before this one is
    /// written.
    ///
    /// # Errors
    /// When a precondition does not hold, or the patch does not fit.
    pub fn resolve(
        self,
        id: &str,
        stored: Option<&T>,
        preconditions: &ChangePreconditions,
    ) -> Result<T, ChangeRefusal> {
        let etag = stored.map(|stored| DefinitionEtag::of(id, stored));
        match self {
            Self::Replace(new) => preconditions.check(etag.as_ref()).map(|()| new),
            Self::Patch(patch) => {
                let stored = stored.ok_or(ChangeRefusal::NotFound)?;
                preconditions.check(etag.as_ref())?;
                patch.apply(stored).map_err(|violation| ChangeRefusal::Invalid(vec![violation]))
            }
        }
    }
}

/// The members to change. `null` resets one to its default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MergePatch(Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for MergePatch {
    type Rejection = ProblemDetails;

    async fn from_request(request: Request, state: &S) -> Result<Self, ProblemDetails> {
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        let is_patch = ["application/merge-patch+json", "application/json"]
            .iter()
            .any(|accepted| kind.eq_ignore_ascii_case(accepted));
        if !is_patch {
            return Err(ProblemDetails::unsupported_media_type(
                "The content type must be application/merge-patch+json or application/json.",
            ));
        }
        let body: JsonBodyWithBytes<Map<String, Value>> =
            JsonBodyWithBytes::from_request(request, state).await?;
        drop::<Bytes>(body.bytes);
        Ok(Self(body.value))
    }
}

impl MergePatch {
    fn apply<T: AdminDefinition>(&self, stored: &T) -> Result<T, DefinitionViolation> {
        let stored = serde_json::to_value(stored)
            .map_err(|error| DefinitionViolation::new("", error.to_string()))?;
        let mut merged = stored.clone();
        merge(&mut merged, &self.0);
        let definition = json::parse_value(merged.clone())?;
        // A member that is null is not in the merged definition. So its name is checked on its own.
        for path in null_members(&self.0) {
            if member(&stored, &path).is_none()
                && let Some(with_null) = with_null_member(merged.clone(), &path)
                && let Err(violation) = json::parse_value::<T>(with_null)
                && violation.message.starts_with("unknown field")
            {
                return Err(violation);
            }
        }
        Ok(definition)
    }
}

fn merge(target: &mut Value, patch: &Map<String, Value>) {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(members) = target else { return };
    for (name, value) in patch {
        match value {
            Value::Null => drop(members.remove(name)),
            Value::Object(inner) => {
                merge(members.entry(name).or_insert(Value::Null), inner);
            }
            other => drop(members.insert(name.clone(), other.clone())),
        }
    }
}

/// The paths of all members that are null.
fn null_members(patch: &Map<String, Value>) -> Vec<Vec<&str>> {
    let mut paths = Vec::new();
    for (name, value) in patch {
        match value {
            Value::Null => paths.push(vec![name.as_str()]),
            Value::Object(inner) => paths.extend(null_members(inner).into_iter().map(|path| {
                let mut whole = vec![name.as_str()];
                whole.extend(path);
                whole
            })),
            _ => {}
        }
    }
    paths
}

fn member<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| value.get(name))
}

fn with_null_member(mut value: Value, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    let parent = parents.iter().try_fold(&mut value, |value, name| value.get_mut(name))?;
    parent.as_object_mut()?.insert((*last).to_owned(), Value::Null);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};
    use serde_json::json;
    use std::collections::BTreeMap;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct TestEvent {
        title: String,
        #[serde(default = "default_size")]
        size: u32,
        code: Option<String>,
        look: Option<TestLook>,
        #[serde(default)]
        messages: BTreeMap<String, String>,
        #[serde(default, skip_serializing)]
        alias: Option<String>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct TestLook {
        color: Option<String>,
    }

    fn default_size() -> u32 {
        7
    }

    impl AdminDefinition for TestEvent {
        const KIND: &'static str = "events";
    }

    fn stored() -> TestEvent {
        TestEvent {
            title: "Night".to_owned(),
            size: 5,
            code: Some("c".to_owned()),
            look: None,
            messages: BTreeMap::from([("en".to_owned(), "Hello".to_owned())]),
            alias: None,
        }
    }

    fn apply(patch: &Value) -> Result<Value, DefinitionViolation> {
        let patch = MergePatch(patch.as_object().unwrap().clone());
        patch.apply(&stored()).map(|event| serde_json::to_value(event).unwrap())
    }

    /// The examples of RFC 7396, appendix A, whose patch is an object.
    #[test]
    fn examples_of_the_standard_hold() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, patch.as_object().unwrap());
            assert_eq!(merged, result, "{target} {patch}");
        }
    }

    #[test]
    fn null_resets_a_member_to_its_default() {
        let patched = apply(&json!({"size": null, "code": null})).unwrap();
        assert_eq!((&patched["size"], &patched["code"]), (&json!(7), &Value::Null));
        assert_eq!(patched["title"], "Night");
        let patched = apply(&json!({"messages": {"en": null, "ko": "x"}, "look": {"color": null}}));
        let patched = patched.unwrap();
        assert_eq!(
            (&patched["messages"], &patched["look"]),
            (&json!({"ko": "x"}), &json!({"color": null}))
        );
        assert_eq!(apply(&json!({"messages": {"fr": null}, "alias": null})).unwrap()["size"], 5);
    }

    #[test]
    fn what_does_not_fit_names_its_field() {
        for (patch, field) in [
            (json!({"title": null}), "title"),
            (json!({"title": 5}), "title"),
            (json!({"colour": 5}), "colour"),
            (json!({"colour": null}), "colour"),
            (json!({"look": {"colour": null}}), "look.colour"),
            (json!({"size": {"x": null}}), "size"),
        ] {
            assert_eq!(apply(&patch).unwrap_err().field, field, "{patch}");
        }
    }
}
