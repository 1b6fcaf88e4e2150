//! Serves the pages of `web/`, which are part of the binary: the waiting page and the booking demo
//! on the public listener, and the console for operators on the admin listener.
//!
//! There is no build step: the browser gets the files of the directory. The content security policy
//! allows requests to the same listener only. The pages use the public API, without privileges.

use axum::Router;
use axum::body::Bytes;
use axum::http::header::{
    ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use sha2::{Digest, Sha256};

/// Allows only scripts, styles, images and requests of the same origin: no inline scripts and no
/// frames.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                              connect-src 'self'; img-src 'self'; base-uri 'none'; \
                              form-action 'none'; frame-ancestors 'none'";

macro_rules! files {
    ($($name:literal $kind:literal),* $(,)?) => {
        &[$(($name, $kind, include_str!(concat!("../web/", $name)))),*]
    };
}

/// Name, content type and text of the files below `/assets`.
const ASSETS: &[(&str, &str, &str)] = files![
    "usher.css" "text/css; charset=utf-8",
    "icon.svg" "image/svg+xml",
    "api.js" "text/javascript; charset=utf-8",
    "booking.js" "text/javascript; charset=utf-8",
    "console.js" "text/javascript; charset=utf-8",
    "simulation.js" "text/javascript; charset=utf-8",
    "chart.js" "text/javascript; charset=utf-8",
    "dom.js" "text/javascript; charset=utf-8",
    "queue.js" "text/javascript; charset=utf-8",
    "metrics.js" "text/javascript; charset=utf-8",
    "seatmap.js" "text/javascript; charset=utf-8",
    "waiting.js" "text/javascript; charset=utf-8",
    "messages.js" "text/javascript; charset=utf-8",
];

/// The booking demo at `/`, and the waiting page of each queue.
pub fn public<S: Clone + Send + Sync + 'static>() -> Router<S> {
    assets()
        .route("/", get(page(include_str!("../web/index.html"))))
        .route("/waiting/{queue}", get(page(include_str!("../web/waiting.html"))))
}

/// The console at `/`. The page is public. Its calls carry the admin key that the operator enters.
pub fn admin<S: Clone + Send + Sync + 'static>() -> Router<S> {
    assets().route("/", get(page(include_str!("../web/console.html"))))
}

fn assets<S: Clone + Send + Sync + 'static>() -> Router<S> {
    ASSETS.iter().fold(Router::new(), |router, &(name, kind, text)| {
        let text = Bytes::from_static(text.as_bytes());
        let serve =
            move |headers: HeaderMap| std::future::ready(respond(&headers, kind, text.clone()));
        router.route(&format!("/assets/{name}"), get(serve))
    })
}

/// A page in the language of the visitor. Its scripts read the language from the element `html`.
fn page<S: Clone + Send + Sync + 'static>(english: &'static str) -> MethodRouter<S> {
    let pages = ["en", "ko"].map(|language| {
        let text =
            english.replacen("<html lang=\"en\">", &format!("<html lang=\"{language}\">"), 1);
        (language, Bytes::from(text))
    });
    get(move |headers: HeaderMap| {
        let (language, text) = &pages[usize::from(prefers_korean(&headers))];
        let head = [(CONTENT_LANGUAGE, *language), (VARY, "accept-language")];
        std::future::ready(
            (head, respond(&headers, "text/html; charset=utf-8", text.clone())).into_response(),
        )
    })
}

fn respond(headers: &HeaderMap, kind: &'static str, text: Bytes) -> Response {
    let tag = entity_tag(&text);
    let is_cached =
        headers.get(IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let head = [
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CONTENT_TYPE, kind),
    ];
    if is_cached {
        (StatusCode::NOT_MODIFIED, [(ETAG, tag)], head).into_response()
    } else {
        ([(ETAG, tag)], head, text).into_response()
    }
}

/// An ETag that is equal on all instances of a build (RFC 9110, 8.8.3).
fn entity_tag(text: &[u8]) -> String {
    let digest = Sha256::digest(text);
    format!(
        "\"{:016x}\"",
        digest.iter().take(8).fold(0_u64, |all, &byte| (all << 8) | u64::from(byte))
    )
}

/// Whether Accept-Language (RFC 9110, 12.5.4) prefers Korean to English.
fn prefers_korean(headers: &HeaderMap) -> bool {
    let text =
        headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let weight = |language: &str| {
        let mut best = 0.0_f32;
        for range in text.split(',') {
            let (range, parameters) = range.split_once(';').unwrap_or((range, ""));
            let quality =
                parameters.trim().strip_prefix("q=").map_or(Some(1.0), |text| text.parse().ok());
            let primary = range.trim().split('-').next().unwrap_or_default();
            if primary.eq_ignore_ascii_case(language) {
                best = best.max(quality.unwrap_or(0.0));
            }
        }
        best
    };
    weight("ko") > weight("en")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    async fn get_page(path: &str, header: (&str, &str)) -> (u16, HeaderMap, String) {
        let request = Request::get(path).header(header.0, header.1).body(Body::empty()).unwrap();
        let response = public::<()>().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn page_has_the_language_of_its_visitor() {
        for (accept, language) in [
            ("", "en"),
            ("ko-KR,ko;q=0.9,en-US;q=0.8", "ko"),
            ("en-US,en;q=0.9,ko;q=0.8", "en"),
            ("de, ko;q=0.1", "ko"),
            ("ko;q=0", "en"),
            ("ko;q=x", "en"),
        ] {
            let (status, headers, page) =
                get_page("/waiting/demo", ("accept-language", accept)).await;
            assert_eq!(
                (status, &headers["content-language"]),
                (200, &language.parse().unwrap()),
                "{accept}"
            );
            assert!(page.contains(&format!("<html lang=\"{language}\">")), "{accept}");
        }
    }

    #[tokio::test]
    async fn unchanged_page_is_not_sent_again() {
        let (_, headers, _) = get_page("/assets/usher.css", ("x", "y")).await;
        let tag = headers["etag"].to_str().unwrap();
        let (status, _, body) = get_page("/assets/usher.css", ("if-none-match", tag)).await;
        assert_eq!((status, body.as_str()), (304, ""));
    }

    /// All references resolve, and nothing is inline or external, so that the policy can be strict.
    #[tokio::test]
    async fn pages_reference_only_their_own_assets() {
        let pages = [
            include_str!("../web/index.html"),
            include_str!("../web/waiting.html"),
            include_str!("../web/console.html"),
        ];
        let texts = pages.into_iter().chain(ASSETS.iter().map(|asset| asset.2));
        for text in texts {
            for quoted in text.split('"').filter(|part| part.starts_with("/assets/")) {
                assert_eq!(get_page(quoted, ("x", "y")).await.0, 200, "{quoted}");
            }
            for module in text.split("from \"./").skip(1).filter_map(|rest| rest.split('"').next())
            {
                assert!(ASSETS.iter().any(|asset| asset.0 == module), "{module}");
            }
            assert!(
                !text.contains(" style=")
                    && !text.contains("<script>")
                    && !text.contains(" onclick="),
                "inline"
            );
            let without_namespaces = text.replace("http://www.w3.org/2000/svg", "");
            assert!(
                !without_namespaces.contains("http://") && !without_namespaces.contains("https://")
            );
        }
        let (_, headers, _) = get_page("/", ("x", "y")).await;
        assert_eq!(headers["content-security-policy"].to_str().unwrap(), CONTENT_POLICY);
    }
}
