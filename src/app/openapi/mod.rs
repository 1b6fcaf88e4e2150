//! Completes an OpenAPI document with what all routes have in common, so that the attributes of a
//! route only state what is special about it: problems as error responses, the ways to
//! authenticate, descriptions of common parameters and statuses, and examples.
//!
//! `make test-openapi` lints both documents and sends the examples of requests to a live service.

mod authentication;
mod descriptions;
mod examples;
mod problems;

use serde_json::{Value, json};
use utoipa::openapi::OpenApi;

/// Completes a document that was merged from the documents of the modules.
pub(super) fn complete(api: &OpenApi) -> Value {
    let mut document = serde_json::to_value(api).expect("an OpenAPI document can be serialized");
    document["servers"] = json!([{ "url": "/", "description": "The address of the document." }]);
    problems::complete(&mut document);
    authentication::complete(&mut document);
    descriptions::complete(&mut document);
    examples::complete(&mut document);
    document
}

/// All operations of a document.
fn operations(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = members_of(document.get_mut("paths"));
    paths.flat_map(|(_, item)| members_of(Some(item))).map(|(_, operation)| operation)
}

/// The members of an object; none of another value.
fn members_of(value: Option<&mut Value>) -> impl Iterator<Item = (&String, &mut Value)> {
    value.and_then(Value::as_object_mut).into_iter().flatten()
}

/// The items of an array; none of another value.
fn items_of(value: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    value.and_then(Value::as_array_mut).into_iter().flatten()
}

/// The name of the schema that a `$ref` points to.
fn schema_name(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.strip_prefix("#/components/schemas/")
}
