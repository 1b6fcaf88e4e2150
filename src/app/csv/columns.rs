//! The lists of the admin API and their columns, from its OpenAPI document.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

/// Objects within objects are columns up to this depth. Deeper ones are JSON.
const MAX_DEPTH: usize = 3;
/// These columns come first, if a list has them.
const FIRST_COLUMNS: [&str; 3] = ["id", "user_id", "at"];

/// Adds `text/csv` to the responses of all lists of a document.
pub(in crate::app) fn add_responses(document: &mut Value) {
    for path in of_lists(document).into_keys() {
        let content = &mut document["paths"][&path]["get"]["responses"]["200"]["content"];
        content["text/csv"] = json!({
            "schema": { "type": "string", "description": "The whole list, with a line of names." },
        });
    }
}

/// The columns of each list, by its path.
pub(super) fn of_lists(document: &Value) -> HashMap<String, Arc<Vec<String>>> {
    let paths = document["paths"].as_object().into_iter().flatten();
    let lists = paths.filter_map(|(path, item)| {
        let schema = &item["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        let properties = resolve(document, schema).get("properties")?;
        properties.get("next")?;
        let mut columns = Vec::new();
        collect(document, &properties.get("items")?["items"], "", 0, &mut columns);
        columns.sort_by_key(|column| {
            let place = FIRST_COLUMNS.iter().position(|first| first == column);
            place.unwrap_or(FIRST_COLUMNS.len())
        });
        columns.dedup();
        Some((path.clone(), Arc::new(columns)))
    });
    lists.collect()
}

fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let target = schema["$ref"].as_str().and_then(|target| target.strip_prefix('#'));
    target.and_then(|pointer| document.pointer(pointer)).unwrap_or(schema)
}

fn collect(document: &Value, schema: &Value, path: &str, depth: usize, found: &mut Vec<String>) {
    let schema = resolve(document, schema);
    let parts = schema["allOf"].as_array();
    let properties = schema["properties"].as_object();
    if depth > MAX_DEPTH || parts.is_none() && properties.is_none() {
        found.push(path.to_owned());
        return;
    }
    for part in parts.into_iter().flatten() {
        collect(document, part, path, depth, found);
    }
    for (name, schema) in properties.into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        collect(document, schema, &path, depth + 1, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_admin_list_has_columns() {
        let lists = of_lists(&crate::app::admin_document());
        for path in ["/admin/queues", "/admin/concerts", "/admin/actions", "/admin/users"] {
            assert!(lists.contains_key(path), "{path}");
        }
        let queues = &lists["/admin/queues"];
        assert_eq!(queues[0], "id");
        for column in ["waiting", "definition.mode", "definition.max_active"] {
            assert!(queues.iter().any(|known| known == column), "{column}: {queues:?}");
        }
        assert!(!lists.contains_key("/admin/queues/{queue}"));
    }
}
