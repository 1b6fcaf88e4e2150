//! Examples of requests and responses.
//!
//! The examples of requests are written by hand in `requests.json`: `usher dev` accepts them. The
//! examples of responses are derived from their schemas, so they always match.

use serde_json::{Map, Value, json};

use super::{members_of, operations, schema_name};

const REQUESTS: &str = include_str!("requests.json");

pub(super) fn complete(document: &mut Value) {
    let requests: Value = serde_json::from_str(REQUESTS).expect("requests.json is JSON");
    let responses = ResponseExamples {
        schemas: document["components"]["schemas"].clone(),
        values: response_values(),
    };
    for operation in operations(document) {
        if let Some(body) = operation.get_mut("requestBody") {
            add(body, |schema| requests.get(optional_schema_name(schema)?).cloned());
        }
        for (_, response) in members_of(operation.get_mut("responses")) {
            add(response, |schema| responses.of_named(schema));
        }
    }
}

fn add(body: &mut Value, find: impl Fn(&Value) -> Option<Value>) {
    for (kind, content) in members_of(body.get_mut("content")) {
        if kind.ends_with("json")
            && content.get("example").is_none()
            && let Some(example) = find(&content["schema"])
        {
            content["example"] = example;
        }
    }
}

/// The name of a schema, also of one that may be null.
fn optional_schema_name(schema: &Value) -> Option<&str> {
    let variants = schema["oneOf"].as_array().into_iter().flatten();
    schema_name(schema).or_else(|| variants.into_iter().find_map(schema_name))
}

/// Values of properties in responses, by their name. A value whose type does not match the schema
/// of a property is not used for it.
fn response_values() -> Value {
    json!({
        "amount": 30_000,
        "available_seats": 41,
        "balance": 70_000,
        "balance_after": 70_000,
        "code": "demo-reward",
        "concert_id": "demo",
        "concert_title": "Usher's first night",
        "coupon_id": "demo-coupon",
        "currency": "KRW",
        "estimated_wait_seconds": 40,
        "max_active": 200,
        "message": "Doors open at 18:00.",
        "name": "Front",
        "next": null,
        "paid": 28_000,
        "poll_after_ms": 2_000,
        "position": 812,
        "price": 15_000,
        "queue_id": "demo",
        "schedule_id": "demo-1",
        "section": "Front",
        "title": "Usher's first night",
        "to": 10,
        "total_quantity": 500,
        "total_seats": 50,
        "waiting": 1_500,
    })
}

/// Derives examples from the schemas of a document.
struct ResponseExamples {
    schemas: Value,
    values: Value,
}

impl ResponseExamples {
    fn of_named(&self, schema: &Value) -> Option<Value> {
        schema_name(schema)?;
        Some(self.of(schema, ""))
    }

    /// An example of a schema. `name` is the name of the property that has it.
    fn of(&self, schema: &Value, name: &str) -> Value {
        if let Some(value) = self.values.get(name).filter(|value| self.has_type(schema, value)) {
            return value.clone();
        }
        if let Some(target) = schema_name(schema) {
            return self.of(&self.schemas[target], name);
        }
        if let Some(example) = schema.get("example") {
            return example.clone();
        }
        if let Some(first) = schema["enum"].get(0) {
            return first.clone();
        }
        if let Some(first) = schema["oneOf"].get(0).or_else(|| schema["anyOf"].get(0)) {
            return self.of(first, name);
        }
        if let Some(parts) = schema["allOf"].as_array() {
            let objects = parts.iter().map(|part| self.of(part, name));
            let members = objects.filter_map(|object| object.as_object().cloned()).flatten();
            return Value::Object(members.collect());
        }
        match type_of(schema) {
            "object" => Value::Object(self.members_of(schema)),
            "array" => json!([self.of(&schema["items"], name)]),
            "integer" => schema.get("minimum").cloned().unwrap_or_else(|| json!(1)),
            "number" => json!(1.0),
            "boolean" => json!(true),
            "string" => string_of(schema),
            _ => Value::Null,
        }
    }

    fn members_of(&self, schema: &Value) -> Map<String, Value> {
        let properties = schema["properties"].as_object().into_iter().flatten();
        properties.map(|(name, schema)| (name.clone(), self.of(schema, name))).collect()
    }

    fn has_type(&self, schema: &Value, value: &Value) -> bool {
        if let Some(target) = schema_name(schema) {
            return self.has_type(&self.schemas[target], value);
        }
        if let Some(variants) = schema["oneOf"].as_array() {
            return variants.iter().any(|variant| self.has_type(variant, value));
        }
        let is = |kind: &str| match value {
            Value::Null => kind == "null",
            Value::Bool(_) => kind == "boolean",
            Value::Number(_) => matches!(kind, "integer" | "number"),
            Value::String(_) => kind == "string",
            Value::Array(_) => kind == "array",
            Value::Object(_) => kind == "object",
        };
        match &schema["type"] {
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).any(is),
            kind => kind.as_str().is_some_and(is),
        }
    }
}

/// The first type of a schema that is not `null`.
fn type_of(schema: &Value) -> &str {
    match &schema["type"] {
        Value::Array(kinds) => {
            kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("null")
        }
        kind => kind.as_str().unwrap_or_default(),
    }
}

fn string_of(schema: &Value) -> Value {
    match schema["format"].as_str() {
        Some("uuid") => "01995d2c-0000-8000-8000-000000000001".into(),
        Some("date-time") => "2026-11-21T10:00:00.000Z".into(),
        _ => "text".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    fn without_example(contents: &Value, of: &str) -> usize {
        let contents = contents.as_object().into_iter().flatten();
        let json = contents.filter(|(kind, _)| *kind == "application/json");
        json.filter(|(_, content)| content["example"].is_null())
            .inspect(|(_, content)| eprintln!("{of} has no example of {}", content["schema"]))
            .count()
    }

    #[test]
    fn every_request_and_success_has_an_example() {
        let mut missing = 0;
        for mut document in [crate::app::public_document(), crate::app::admin_document()] {
            for operation in super::operations(&mut document) {
                let id = operation["operationId"].to_string();
                missing += without_example(&operation["requestBody"]["content"], &id);
                for (status, response) in operation["responses"].as_object().unwrap() {
                    if status.starts_with('2') {
                        missing += without_example(&response["content"], &id);
                    }
                }
            }
        }
        assert_eq!(missing, 0, "requests.json has the examples of requests");
    }

    /// A type of query parameters needs `#[into_params(parameter_in = Query)]`.
    #[test]
    fn path_parameters_are_in_the_path() {
        for document in [crate::app::public_document(), crate::app::admin_document()] {
            for (path, item) in document["paths"].as_object().unwrap() {
                let operations = item.as_object().unwrap().values();
                let parameters = operations.filter_map(|it| it["parameters"].as_array()).flatten();
                for parameter in parameters.filter(|parameter| parameter["in"] == "path") {
                    let name = parameter["name"].as_str().unwrap();
                    assert!(path.contains(&format!("{{{name}}}")), "{path} has no {name}");
                }
            }
        }
    }

    #[test]
    fn everything_is_described() {
        let mut missing = Vec::new();
        let blank = |value: &Value| value["description"].as_str().is_none_or(str::is_empty);
        for mut document in [crate::app::public_document(), crate::app::admin_document()] {
            let mut ids = Vec::new();
            for operation in super::operations(&mut document) {
                let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
                assert!(!ids.contains(&id), "operation id {id} is used twice");
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    if blank(parameter) {
                        missing.push(format!("{id}: parameter {}", parameter["name"]));
                    }
                }
                for (status, response) in operation["responses"].as_object().unwrap() {
                    if blank(response) {
                        missing.push(format!("{id}: response {status}"));
                    }
                }
                ids.push(id);
            }
            for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
                for (property, schema) in schema["properties"].as_object().into_iter().flatten() {
                    if schema.get("$ref").is_none() && blank(schema) {
                        missing.push(format!("{name}.{property}"));
                    }
                }
            }
        }
        assert!(missing.is_empty(), "without description: {missing:#?}");
    }
}
