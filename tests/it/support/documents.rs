//! The routes of the two OpenAPI documents.

use std::collections::BTreeSet;

use reqwest::Method;

/// Method and path template of every documented route.
pub(crate) fn documented_routes() -> BTreeSet<(String, String)> {
    let mut routes = BTreeSet::new();
    for document in [usher::app::public_document(), usher::app::admin_document()] {
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                if let Ok(method) = method.to_uppercase().parse::<Method>() {
                    routes.insert((method.to_string(), path.clone()));
                }
            }
        }
    }
    assert!(routes.len() > 30, "{routes:?}");
    routes
}
