//! Adds to an OpenAPI document what all routes have in common: problems as error responses.

use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response, ResponseBuilder, Schema};

const PROBLEM_SCHEMA: &str = "#/components/schemas/Problem";
/// RFC 9457.
const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// Gives problems their media type. Gives each route a default response for the problems of every
/// route, such as a rate limit, a timeout or an unavailable store.
pub(super) fn complete(mut api: OpenApi) -> OpenApi {
    for item in api.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            let responses = &mut operation.responses.responses;
            for response in responses.values_mut() {
                if let RefOr::T(response) = response {
                    set_problem_media_type(response);
                }
            }
            responses.insert("default".to_owned(), RefOr::T(default_response()));
        }
    }
    api
}

fn set_problem_media_type(response: &mut Response) {
    let content = std::mem::take(&mut response.content).into_iter().map(|(kind, content)| {
        let kind = if is_problem(&content) { PROBLEM_MEDIA_TYPE.to_owned() } else { kind };
        (kind, content)
    });
    response.content = content.collect();
}

fn is_problem(content: &RefOr<Content>) -> bool {
    let RefOr::T(Content { schema: Some(RefOr::Ref(schema)), .. }) = content else { return false };
    schema.ref_location == PROBLEM_SCHEMA
}

fn default_response() -> Response {
    let schema: RefOr<Schema> = RefOr::Ref(Ref::new(PROBLEM_SCHEMA));
    ResponseBuilder::new()
        .description("An error that any call may return; `code` names it.")
        .content(PROBLEM_MEDIA_TYPE, Content::new(Some(schema)))
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
    fn documents_resolve_every_reference_and_mark_every_problem() {
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
                            let problem = content["schema"]["$ref"] == super::PROBLEM_SCHEMA;
                            assert_eq!(
                                kind == super::PROBLEM_MEDIA_TYPE,
                                problem,
                                "{path} {status}"
                            );
                        }
                    }
                    assert!(operation["responses"]["default"].is_object(), "{path}");
                }
            }
        }
    }
}
