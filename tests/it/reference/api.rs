//! `api.md`: the routes of both listeners with their requests and responses, from the OpenAPI
//! documents.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::cell;

const INTRODUCTION: &str = "# API

The service publishes the same as OpenAPI 3.1: `/openapi.json` on each listener, `/docs` with
Swagger UI on the public one, `usher openapi [--admin]`. Refusals are `application/problem+json`
with a stable `code`. The table lists the codes of each route. Every call may also get 400
`malformed_request`, 405, 413 `body_too_large`, 415, 422 `invalid_request` (with `errors`), 429
`rate_limited` and 503 `overloaded`, `recovering` or `store_unavailable`, both with `Retry-After`,
and 500 `internal`.

A call without a body in the column *takes* accepts no body or `{}` and refuses everything else.
Only the gate ignores bodies, because proxies forward those of the requests that it guards. Two
equal keys in one object are 422.

*User* is `Usher-User` or a JWT, depending on `USHER_AUTH`; *queue token* is the header
`Queue-Token`; *admin* is `Authorization: Bearer` with the admin key. A field with a question mark
may be null or omitted. Permissions: [security.md](../security.md).
";

pub(super) fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    let documents = [
        ("The public listener", usher::app::public_document()),
        ("The admin listener", usher::app::admin_document()),
    ];
    let mut schemas = BTreeMap::new();
    for (title, document) in documents {
        write!(page, "\n## {title}\n\n| call | who | takes | answers |\n|:--|:--|:--|:--|\n")
            .unwrap();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                page.push_str(&row(&method.to_uppercase(), path, operation));
            }
        }
        let named = document["components"]["schemas"].as_object().unwrap();
        schemas.extend(named.iter().map(|(name, schema)| (name.clone(), schema.clone())));
    }
    page.push_str("\n## What is taken and given\n");
    for (name, schema) in &schemas {
        page.push_str(&section(name, schema));
    }
    page
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn row(method: &str, path: &str, operation: &Value) -> String {
    // `service_key` and `jwt` are other ways to be a user.
    let entries = operation["security"].as_array().into_iter().flatten();
    let names = entries.map(|entry| entry.as_object().unwrap().keys().next().unwrap());
    let names = names.filter(|name| !["service_key", "jwt"].contains(&name.as_str()));
    let who = names.map(|name| name.replace('_', " ")).collect::<Vec<_>>().join(" or ");
    let who = if who.is_empty() { "any caller".to_owned() } else { who };
    let mut takes: Vec<String> = (operation["parameters"].as_array().into_iter().flatten())
        .filter(|parameter| parameter["in"] != "path")
        .map(|parameter| {
            let mark = if parameter["required"] == true { "" } else { "?" };
            match text(&parameter["in"]) {
                "query" => format!("`?{}=`{mark}", text(&parameter["name"])),
                _ => format!("`{}`{mark}", text(&parameter["name"])),
            }
        })
        .collect();
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    if !body.is_null() {
        takes.push(kind(body));
    }
    let answers = operation["responses"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(status, _)| *status != "default");
    let answers = answers.map(|(status, answer)| {
        let gives = answer["content"].as_object().and_then(|content| content.iter().next());
        let mut line = status.clone();
        if let Some((media, content)) = gives.filter(|(media, _)| !media.contains("problem")) {
            match media.as_str() {
                "application/json" => write!(line, " {}", kind(&content["schema"])).unwrap(),
                _ => write!(line, " `{media}`").unwrap(),
            }
        }
        match text(&answer["description"]) {
            "" => line,
            about => format!("{line} {}", about.trim_end_matches('.')),
        }
    });
    let answers = answers.collect::<Vec<_>>().join("; ");
    let about = cell(text(&operation["summary"]));
    format!(
        "| `{method} {path}`<br>{about} | {who} | {} | {} |\n",
        takes.join(", "),
        cell(&answers)
    )
}

/// The type of a value, with a link if it has a name.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|it| it.rsplit('/').next()) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    for choice in ["oneOf", "anyOf", "allOf"] {
        if let Some(options) = schema[choice].as_array() {
            let options = options.iter().filter(|option| option["type"] != "null").map(kind);
            return options.collect::<Vec<_>>().join(" or ");
        }
    }
    if schema.get("items").is_some() {
        return format!("list of {}", kind(&schema["items"]));
    }
    if let Some(values) = schema["enum"].as_array() {
        return values
            .iter()
            .map(|value| format!("`{}`", text(value)))
            .collect::<Vec<_>>()
            .join(", ");
    }
    let word = match &schema["type"] {
        Value::String(word) => word.as_str(),
        Value::Array(words) => {
            words.iter().filter_map(Value::as_str).find(|word| *word != "null").unwrap_or("any")
        }
        _ => "any",
    };
    match schema["format"].as_str() {
        Some(format @ ("uuid" | "date-time")) => format!("{word} ({format})"),
        _ => word.to_owned(),
    }
}

fn may_lack(schema: &Value) -> bool {
    let lists_null =
        |words: &Value| words.as_array().is_some_and(|words| words.iter().any(|it| it == "null"));
    let option_null = |options: &Value| {
        options
            .as_array()
            .is_some_and(|options| options.iter().any(|option| option["type"] == "null"))
    };
    lists_null(&schema["type"]) || option_null(&schema["oneOf"]) || option_null(&schema["anyOf"])
}

fn bounds(schema: &Value) -> String {
    let named = [
        ("minimum", "≥"),
        ("maximum", "≤"),
        ("minLength", "length ≥"),
        ("maxLength", "length ≤"),
        ("pattern", "matches"),
    ];
    let bounds = named.iter().filter_map(|(key, sign)| match &schema[*key] {
        Value::Null => None,
        Value::String(pattern) => Some(format!("{sign} `{pattern}`")),
        number => Some(format!("{sign} {number}")),
    });
    let bounds: Vec<_> = bounds.collect();
    if bounds.is_empty() { String::new() } else { format!(", {}", bounds.join(", ")) }
}

fn section(name: &str, schema: &Value) -> String {
    let mut section = format!("\n### {name}\n\n");
    if let Some(about) = schema["description"].as_str() {
        writeln!(section, "{about}\n").unwrap();
    }
    let Some(fields) = schema["properties"].as_object() else {
        writeln!(section, "{}{}", kind(schema), bounds(schema)).unwrap();
        return section;
    };
    let required: Vec<_> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    section.push_str("| field | type | |\n|:--|:--|:--|\n");
    for (field, schema) in fields {
        let mark = if may_lack(schema) || !required.contains(&field.as_str()) { "?" } else { "" };
        let about = cell(text(&schema["description"]));
        writeln!(
            section,
            "| `{field}`{mark} | {}{} | {about} |",
            cell(&kind(schema)),
            cell(&bounds(schema))
        )
        .unwrap();
    }
    section
}
