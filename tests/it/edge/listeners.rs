//! What each listener serves: its own routes, health, documents and metrics.

use reqwest::Method;
use serde_json::json;

use crate::support::{CONCERT, SCHEDULE, TestWorld, new_key, new_user};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admin_listener_requires_its_key_except_for_metrics() {
    let world = TestWorld::start(1).await;
    world.put_show(10, 1_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 1_000).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    world.stores.wait_until_idle().await;

    api.keyless_admin_call(Method::GET, "/admin/queues")
        .send()
        .await
        .problem(401, "unauthenticated");
    let metrics = api.keyless_admin_call(Method::GET, "/metrics").send().await.expect_text(200);
    for name in [
        "usher_http_requests_total",
        "usher_holds_total",
        "usher_payments_total",
        "usher_outbox_backlog_entries",
        "usher_outbox_lag_seconds",
        "usher_build_info",
    ] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    for (listener, path) in [
        ("public", "/metrics"),
        ("public", "/admin/queues"),
        ("admin", "/v1/wallet"),
        ("admin", "/v1/queues/show"),
    ] {
        let answer = match listener {
            "public" => api.get(path).user(&guest.user).send().await,
            _ => api.admin_call(Method::GET, path).user(&guest.user).send().await,
        };
        answer.problem(404, "not_found");
    }
}

#[tokio::test]
async fn documents_and_health_are_served() {
    let world = TestWorld::start(1).await;
    let api = &world.api;
    assert_eq!(api.get("/healthz").send().await.expect_text(200), "ok");
    assert_eq!(api.keyless_admin_call(Method::GET, "/healthz").send().await.expect_text(200), "ok");
    let ready = api.get("/readyz").send().await.expect(200);
    let names: Vec<_> =
        ready["checks"].as_array().unwrap().iter().map(|check| check["name"].clone()).collect();
    assert_eq!(json!(names), json!(["redis", "mysql", "partitions"]));
    let docs = api.get("/docs/").send().await.expect_text(200);
    assert!(docs.contains("swagger") && !docs.contains("https://"), "{docs}");
    let document = api.get("/openapi.json").send().await.expect(200);
    assert_eq!(document["openapi"], "3.1.0");
    for path in document["paths"].as_object().unwrap().keys() {
        assert!(path.starts_with("/v1/") || path.starts_with("/.well-known/"), "{path}");
    }
    for path in ["/v1", "/v1/", "/nowhere", "/openapi.yaml"] {
        api.get(path).send().await.problem(404, "not_found");
    }
    let queue = api.get("/v1/queues/nowhere").send().await;
    assert_eq!(queue.header("cache-control"), Some("no-store"), "problems must not be cached");
    world.put_show(10, 1_000).await;
    let shared = api.get("/v1/queues/show").send().await;
    assert_eq!(shared.header("cache-control"), Some("public, max-age=1"));
    let own = api.get("/v1/wallet").user(&new_user()).send().await;
    assert_eq!(own.header("cache-control"), Some("no-store"));
    let id = api.get("/healthz").header("x-request-id", "of-the-gateway").send().await;
    assert_eq!(id.header("x-request-id"), Some("of-the-gateway"));
}
