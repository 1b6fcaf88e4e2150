//! Bodies on routes that take none: refused, whatever else the request is.

use reqwest::Method;

use crate::support::TestWorld;
use crate::support::documents::documented_operations;

#[tokio::test]
async fn routes_without_a_body_accept_only_an_empty_object() {
    let world = TestWorld::start(1).await;
    let mut walked = 0;
    for (method, template, operation) in documented_operations() {
        // The gate answers for the requests that it guards, which may have bodies.
        if operation["requestBody"].is_object() || template.contains("/gate") {
            continue;
        }
        walked += 1;
        let path: Vec<_> = template
            .split('/')
            .map(|part| if part.starts_with('{') { "unknown" } else { part })
            .collect();
        let path = path.join("/");
        let method: Method = method.parse().unwrap();
        let call = || match template.starts_with("/admin/") {
            true => world.api.admin_call(method.clone(), &path),
            false => world.api.call(method.clone(), &path),
        };
        let place = format!("{method} {template}");
        let bare = call().send_head().await.status;
        let empty = call().raw("application/json", "{}").send_head().await;
        assert_eq!(empty.status, bare, "{place} with {{}}: {}", empty.text);
        for (body, status, code) in [
            (r#"{"seats":[3]}"#, 422, "invalid_request"),
            (r#"{"a":1,"a":1}"#, 422, "invalid_request"),
            ("[]", 422, "invalid_request"),
            ("null", 422, "invalid_request"),
            ("seats=3", 400, "malformed_request"),
            ("{}{}", 400, "malformed_request"),
        ] {
            for kind in ["application/json", "text/plain"] {
                let answer = call().raw(kind, body).send_head().await;
                if let Err(wrong) = answer.as_problem(status, code) {
                    panic!("{place} with {body}: {wrong}");
                }
            }
        }
    }
    assert!(walked > 25, "{walked}");
}
