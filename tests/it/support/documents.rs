//! The routes of the two OpenAPI documents.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::Value;

/// Method and path template of every documented route.
pub(crate) fn documented_routes() -> BTreeSet<(String, String)> {
    documented_operations().into_iter().map(|(method, path, _)| (method, path)).collect()
}

/// Method, path template and operation object of every documented route.
pub(crate) fn documented_operations() -> Vec<(String, String, Value)> {
    let mut operations = Vec::new();
    for document in [usher::app::public_document(), usher::app::admin_document()] {
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                if let Ok(method) = method.to_uppercase().parse::<Method>() {
                    operations.push((method.to_string(), path.clone(), operation.clone()));
                }
            }
        }
    }
    assert!(operations.len() > 30, "{operations:?}");
    operations
}
