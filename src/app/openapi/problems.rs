//! Problems as error responses.

use serde_json::{Value, json};

use super::operations;
use crate::http::problem::MEDIA_TYPE;

const PROBLEM_SCHEMA: &str = "#/components/schemas/Problem";

/// Gives problems their media type. Gives each operation a default response for the problems of
/// every operation, such as a rate limit, a timeout or an unavailable store.
pub(super) fn complete(document: &mut Value) {
    for operation in operations(document) {
        let responses = operation.get_mut("responses").and_then(Value::as_object_mut);
        let Some(responses) = responses else { continue };
        for response in responses.values_mut() {
            let content = response.get_mut("content").and_then(Value::as_object_mut);
            let Some(content) = content else { continue };
            let is_problem = |content: &Value| content["schema"]["$ref"] == PROBLEM_SCHEMA;
            if content.get("application/json").is_some_and(is_problem)
                && let Some(problem) = content.remove("application/json")
            {
                content.insert(MEDIA_TYPE.to_owned(), problem);
            }
        }
        let default = json!({
            "description": "An error that any call may return; `code` names it.",
            "content": { MEDIA_TYPE: { "schema": { "$ref": PROBLEM_SCHEMA } } },
        });
        responses.insert("default".to_owned(), default);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    /// Every `$ref` of a document.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn documents_resolve_every_reference_and_mark_every_problem() {
        for document in [crate::app::public_document(), crate::app::admin_document()] {
            let mut named = Vec::new();
            references(&document, &mut named);
            assert!(named.len() > 10);
            for name in named {
                assert!(
                    document.pointer(name.trim_start_matches('#')).is_some(),
                    "{name} is missing"
                );
            }
            for (path, item) in document["paths"].as_object().unwrap() {
                for operation in
                    item.as_object().unwrap().values().filter(|it| it["responses"].is_object())
                {
                    for (status, response) in operation["responses"].as_object().unwrap() {
                        let kinds: Vec<_> =
                            response["content"].as_object().into_iter().flatten().collect();
                        for (kind, content) in kinds {
                            let problem = content["schema"]["$ref"] == super::PROBLEM_SCHEMA;
                            assert_eq!(kind == super::MEDIA_TYPE, problem, "{path} {status}");
                        }
                    }
                    assert!(operation["responses"]["default"].is_object(), "{path}");
                }
            }
        }
    }
}
