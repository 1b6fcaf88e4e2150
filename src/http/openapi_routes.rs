//! Serves the OpenAPI document at `/openapi.json`, and Swagger UI at `/docs` from files in the
//! binary.

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use serde_json::Value;
use utoipa_swagger_ui::{Config, SwaggerUi};

/// `/openapi.json` without a UI, for the admin listener.
pub fn document<S: Clone + Send + Sync + 'static>(api: &Value) -> Router<S> {
    // Serialized once: the document is long and does not change.
    let text = Bytes::from(serde_json::to_vec(api).expect("an OpenAPI document can be serialized"));
    let answer = move || std::future::ready(([(CONTENT_TYPE, "application/json")], text.clone()));
    Router::new().route("/openapi.json", get(answer))
}

/// `/openapi.json` and `/docs`, for the public listener.
pub fn docs<S: Clone + Send + Sync + 'static>(api: &Value) -> Router<S> {
    let page: Router<S> = SwaggerUi::new("/docs").config(Config::from("/openapi.json")).into();
    page.merge(document(api))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    async fn ask(path: &str) -> (u16, String) {
        let api = serde_json::json!({ "openapi": "3.1.0" });
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = docs::<()>(&api).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 8 << 20).await.unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn document_has_openapi_version_3_1() {
        let (status, body) = ask("/openapi.json").await;
        let value: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &value["openapi"]), (200, &"3.1.0".into()));
    }

    #[tokio::test]
    async fn page_loads_nothing_from_other_hosts() {
        assert_eq!(ask("/docs").await.0, 303);
        let (status, page) = ask("/docs/").await;
        assert_eq!(status, 200);
        assert!(!page.contains("https://") && !page.contains("http://"), "{page}");
        let (status, script) = ask("/docs/swagger-initializer.js").await;
        assert_eq!(status, 200);
        assert!(script.contains("/openapi.json"), "{script}");
        assert_eq!(ask("/docs/swagger-ui-bundle.js").await.0, 200);
    }
}
