//! The contract, served by the service itself: `/openapi.json`, and Swagger UI at `/docs` from files inside the binary.

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

/// `/openapi.json` alone, as the admin listener serves it.
pub fn document<S: Clone + Send + Sync + 'static>(api: OpenApi) -> Router<S> {
    // Written once: the document is long and never changes.
    let text =
        Bytes::from(serde_json::to_vec(&api).expect("the document is made of texts and lists"));
    let answer = move || std::future::ready(([(CONTENT_TYPE, "application/json")], text.clone()));
    Router::new().route("/openapi.json", get(answer))
}

/// `/openapi.json` and `/docs`, as the public listener serves them.
pub fn docs<S: Clone + Send + Sync + 'static>(api: OpenApi) -> Router<S> {
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
        let api = utoipa::openapi::OpenApiBuilder::new().build();
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = docs::<()>(api).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 8 << 20).await.unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn the_document_is_of_version_3_1() {
        let (status, body) = ask("/openapi.json").await;
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &value["openapi"]), (200, &"3.1.0".into()));
    }

    #[tokio::test]
    async fn the_page_needs_nothing_from_elsewhere() {
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
