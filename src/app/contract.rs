//! What every route of a document has in common, written into it once.

use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response, ResponseBuilder, Schema};

const PROBLEM: &str = "#/components/schemas/Problem";
/// RFC 9457.
const PROBLEM_TYPE: &str = "application/problem+json";

/// Refusals are of their own media type, and each route may answer with those that concern all: too much, too long, too early, no such method, a store that
/// is away.
pub(super) fn complete(mut api: OpenApi) -> OpenApi {
    for item in api.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            let responses = &mut operation.responses.responses;
            for response in responses.values_mut() {
                if let RefOr::T(response) = response {
                    name_problems(response);
                }
            }
            responses.insert("default".to_owned(), RefOr::T(any_problem()));
        }
    }
    api
}

fn name_problems(response: &mut Response) {
    let content = std::mem::take(&mut response.content).into_iter().map(|(kind, content)| {
        let kind = if is_problem(&content) { PROBLEM_TYPE.to_owned() } else { kind };
        (kind, content)
    });
    response.content = content.collect();
}

fn is_problem(content: &RefOr<Content>) -> bool {
    let RefOr::T(Content { schema: Some(RefOr::Ref(schema)), .. }) = content else { return false };
    schema.ref_location == PROBLEM
}

fn any_problem() -> Response {
    let schema: RefOr<Schema> = RefOr::Ref(Ref::new(PROBLEM));
    ResponseBuilder::new()
        .description("A refusal that any call may hear; `code` says which.")
        .content(PROBLEM_TYPE, Content::new(Some(schema)))
        .build()
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
    fn documents_lack_nothing_that_they_name_and_tell_problems_by_their_type() {
        for document in [crate::app::public_document(), crate::app::admin_document()] {
            let document = serde_json::to_value(document).unwrap();
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
                            let problem = content["schema"]["$ref"] == super::PROBLEM;
                            assert_eq!(kind == super::PROBLEM_TYPE, problem, "{path} {status}");
                        }
                    }
                    assert!(operation["responses"]["default"].is_object(), "{path}");
                }
            }
        }
    }
}
