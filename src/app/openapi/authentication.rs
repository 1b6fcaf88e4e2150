//! The security schemes. A handler names what it needs (`user`, `queue_token`, `admin`). The
//! setting `USHER_AUTH` decides how a caller proves to be a user, so a document lists all ways.

use serde_json::{Value, json};

use super::operations;
use crate::http::identity::USER_HEADER;
use crate::queue::TOKEN_HEADER;

/// Replaces `user` by all ways to authenticate a user, and describes the schemes in use.
pub(super) fn complete(document: &mut Value) {
    let mut used = Vec::new();
    for operation in operations(document) {
        let needed = operation["security"].as_array().cloned().unwrap_or_default();
        let mut ways = Vec::new();
        for requirement in needed {
            if requirement.get("user").is_some() {
                ways.push(requirement);
                ways.push(json!({ "service_key": [], "user": [] }));
                ways.push(json!({ "jwt": [] }));
            } else {
                ways.push(requirement);
            }
        }
        used.extend(ways.iter().filter_map(Value::as_object).flat_map(|way| way.keys().cloned()));
        // An empty list states that the operation needs no authentication.
        operation["security"] = ways.into();
    }
    let Value::Object(mut schemes) = schemes() else { return };
    schemes.retain(|name, _| used.contains(name));
    document["components"]["securitySchemes"] = schemes.into();
}

fn schemes() -> Value {
    json!({
        "user": {
            "type": "apiKey", "in": "header", "name": USER_HEADER,
            "description": "The id of the user. Sufficient alone in the mode `header` of \
                `USHER_AUTH`, in which a gateway authenticates users. In the mode `service` it \
                needs a service key.",
        },
        "service_key": {
            "type": "http", "scheme": "bearer",
            "description": "A service key of a booking backend, which calls for any user.",
        },
        "jwt": {
            "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "A JWT of the configured issuer. Its `sub` is the id of the user.",
        },
        "queue_token": {
            "type": "apiKey", "in": "header", "name": TOKEN_HEADER,
            "description": "The `token` of a ticket.",
        },
        "admin": {
            "type": "http", "scheme": "bearer",
            "description": "An admin key.",
        },
    })
}
