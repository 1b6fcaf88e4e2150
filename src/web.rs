//! Serves the pages of `web/`, which are part of the binary: the waiting page and the booking demo
//! on the public listener, and the console for operators on the admin listener.
//!
//! The browser gets the files of the directory as they are. `web/client/` is clients/typescript,
//! compiled by `npm run build:web` and checked in, so that a build of Usher needs no Node.js. The
//! content security policy allows requests to the same listener only. The pages use the public API,
//! without privileges.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::{
    ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use serde_json::Value;

use crate::http::entity_tag::EntityTag;

/// What a page may load from other sites, as sources of a content security policy.
#[derive(Debug, Default)]
pub struct ForeignSources {
    /// The origin of images.
    pub images: Option<String>,
    /// Scripts, styles, frames and requests of the challenge's widget.
    pub widget: Option<&'static str>,
}

impl ForeignSources {
    /// Allows only scripts, styles, images and requests of the same origin and of these sources:
    /// nothing inline.
    fn content_policy(&self) -> String {
        let images = self.images.as_deref().unwrap_or_default();
        let widget = self.widget.unwrap_or_default();
        let mut policy = String::from("default-src 'none'");
        for (directive, sources) in [
            ("script-src", widget),
            ("style-src", widget),
            ("connect-src", widget),
            ("img-src", images),
        ] {
            let separator = if sources.is_empty() { "" } else { " " };
            let _ = write!(policy, "; {directive} 'self'{separator}{sources}");
        }
        if !widget.is_empty() {
            let _ = write!(policy, "; frame-src {widget}");
        }
        policy + "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    }
}

macro_rules! files {
    ($($name:literal $kind:literal),* $(,)?) => {
        &[$(($name, $kind, include_str!(concat!("../web/", $name)))),*]
    };
}

/// Name, content type and text of the files below `/assets`.
const ASSETS: &[(&str, &str, &str)] = files![
    "usher.css" "text/css; charset=utf-8",
    "icon.svg" "image/svg+xml",
    "activity.js" "text/javascript; charset=utf-8",
    "api.js" "text/javascript; charset=utf-8",
    "attempts.js" "text/javascript; charset=utf-8",
    "booking.js" "text/javascript; charset=utf-8",
    "bookings.js" "text/javascript; charset=utf-8",
    "branding.js" "text/javascript; charset=utf-8",
    "challenge.js" "text/javascript; charset=utf-8",
    "console.js" "text/javascript; charset=utf-8",
    "simulation.js" "text/javascript; charset=utf-8",
    "chart.js" "text/javascript; charset=utf-8",
    "dom.js" "text/javascript; charset=utf-8",
    "queue.js" "text/javascript; charset=utf-8",
    "metrics.js" "text/javascript; charset=utf-8",
    "seatmap.js" "text/javascript; charset=utf-8",
    "waiting.js" "text/javascript; charset=utf-8",
    "messages.js" "text/javascript; charset=utf-8",
    "message_table.js" "text/javascript; charset=utf-8",
    "not_found.js" "text/javascript; charset=utf-8",
    "payment.js" "text/javascript; charset=utf-8",
    "end_view.js" "text/javascript; charset=utf-8",
    "reservation_view.js" "text/javascript; charset=utf-8",
    "seat_hall.js" "text/javascript; charset=utf-8",
    "seat_selection.js" "text/javascript; charset=utf-8",
    "seat_stream.js" "text/javascript; charset=utf-8",
    "storage.js" "text/javascript; charset=utf-8",
    "ticket_view.js" "text/javascript; charset=utf-8",
    "timer_worker.js" "text/javascript; charset=utf-8",
    "qr.js" "text/javascript; charset=utf-8",
    "user.js" "text/javascript; charset=utf-8",
    "client/client.js" "text/javascript; charset=utf-8",
    "client/errors.js" "text/javascript; charset=utf-8",
    "client/sse.js" "text/javascript; charset=utf-8",
    "client/transport.js" "text/javascript; charset=utf-8",
    "client/visit.js" "text/javascript; charset=utf-8",
    "vendor/lean-qr.js" "text/javascript; charset=utf-8",
];

static WAITING_PAGE: LazyLock<LocalizedPage> =
    LazyLock::new(|| LocalizedPage::new(include_str!("../web/waiting.html")));
static NOT_FOUND_PAGE: LazyLock<LocalizedPage> =
    LazyLock::new(|| LocalizedPage::new(include_str!("../web/not_found.html")));

/// The booking demo at `/`, and the bookings of its user at `/bookings`.
pub fn public<S: Clone + Send + Sync + 'static>() -> Router<S> {
    assets()
        .route("/", get(page(include_str!("../web/index.html"))))
        .route("/bookings", get(page(include_str!("../web/bookings.html"))))
}

/// The waiting page. `data` is for its script.
pub fn waiting_page(headers: &HeaderMap, data: &Value, sources: &ForeignSources) -> Response {
    WAITING_PAGE.respond(headers, Some(data), sources)
}

/// 404 with a page for people.
pub fn not_found(headers: &HeaderMap) -> Response {
    let page = NOT_FOUND_PAGE.respond(headers, None, &ForeignSources::default());
    (StatusCode::NOT_FOUND, page).into_response()
}

/// The console at `/`. The page is public. Its calls carry the admin key that the operator enters.
pub fn admin<S: Clone + Send + Sync + 'static>() -> Router<S> {
    assets().route("/", get(page(include_str!("../web/console.html"))))
}

fn assets<S: Clone + Send + Sync + 'static>() -> Router<S> {
    ASSETS.iter().fold(Router::new(), |router, &(name, kind, text)| {
        let text = Bytes::from_static(text.as_bytes());
        let serve = move |headers: HeaderMap| {
            let policy = ForeignSources::default().content_policy();
            std::future::ready(respond(&headers, kind, text.clone(), policy))
        };
        router.route(&format!("/assets/{name}"), get(serve))
    })
}

fn page<S: Clone + Send + Sync + 'static>(english: &'static str) -> MethodRouter<S> {
    let page = LocalizedPage::new(english);
    get(move |headers: HeaderMap| {
        std::future::ready(page.respond(&headers, None, &ForeignSources::default()))
    })
}

/// A page in each language. Its scripts read the language from the element `html`.
#[derive(Clone)]
struct LocalizedPage([(&'static str, Bytes); 2]);

impl LocalizedPage {
    fn new(english: &'static str) -> Self {
        Self(["en", "ko"].map(|language| {
            let html = format!("<html lang=\"{language}\">");
            (language, Bytes::from(english.replacen("<html lang=\"en\">", &html, 1)))
        }))
    }

    /// The page in the language of the visitor. `data` is JSON for its scripts, in an attribute of
    /// the element `body`.
    fn respond(
        &self,
        headers: &HeaderMap,
        data: Option<&Value>,
        sources: &ForeignSources,
    ) -> Response {
        let (language, text) = &self.0[usize::from(prefers_korean(headers))];
        let text = match (data, std::str::from_utf8(text)) {
            (Some(data), Ok(html)) => {
                let body = format!("<body data-page=\"{}\">", escape_attribute(&data.to_string()));
                Bytes::from(html.replacen("<body>", &body, 1))
            }
            _ => text.clone(),
        };
        let head = [(CONTENT_LANGUAGE, *language), (VARY, "accept-language")];
        let kind = "text/html; charset=utf-8";
        (head, respond(headers, kind, text, sources.content_policy())).into_response()
    }
}

fn escape_attribute(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
}

fn respond(headers: &HeaderMap, kind: &'static str, text: Bytes, policy: String) -> Response {
    let head = [
        (CACHE_CONTROL, "no-cache"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CONTENT_TYPE, kind),
    ];
    EntityTag::of(&text).respond(headers, ([(CONTENT_SECURITY_POLICY, policy)], head, text))
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
            let (status, headers, page) = get_page("/bookings", ("accept-language", accept)).await;
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
            include_str!("../web/bookings.html"),
            include_str!("../web/waiting.html"),
            include_str!("../web/not_found.html"),
            include_str!("../web/console.html"),
        ];
        let pages = pages.into_iter().map(|text| ("", text));
        for (name, text) in pages.chain(ASSETS.iter().map(|asset| (asset.0, asset.2))) {
            let directory = name.rfind('/').map_or("", |end| &name[..=end]);
            for quoted in text.split('"').filter(|part| part.starts_with("/assets/")) {
                assert_eq!(get_page(quoted, ("x", "y")).await.0, 200, "{quoted}");
            }
            for module in text.split("from \"./").skip(1).filter_map(|rest| rest.split('"').next())
            {
                let path = format!("{directory}{module}");
                assert!(ASSETS.iter().any(|asset| asset.0 == path), "{path}");
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
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert_eq!(
            policy,
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src \
             'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
    }

    #[test]
    fn policy_allows_only_the_logo_and_the_widget() {
        let sources = ForeignSources {
            images: Some("https://a.example".to_owned()),
            widget: Some("https://widget.example"),
        };
        assert_eq!(
            sources.content_policy(),
            "default-src 'none'; script-src 'self' https://widget.example; style-src 'self' \
             https://widget.example; connect-src 'self' https://widget.example; img-src 'self' \
             https://a.example; frame-src https://widget.example; base-uri 'none'; form-action \
             'none'; frame-ancestors 'none'"
        );
    }

    #[tokio::test]
    async fn data_of_a_page_cannot_leave_its_attribute() {
        let name = "\"><script>alert('1')</script>&amp;";
        let data = serde_json::json!({ "event_name": name });
        let response = waiting_page(&HeaderMap::new(), &data, &ForeignSources::default());
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let page = String::from_utf8(body.to_vec()).unwrap();
        assert!(!page.contains("<script>"), "{page}");
        let attribute = page.split("data-page=\"").nth(1).unwrap().split('"').next().unwrap();
        let text = attribute
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&amp;", "&");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), data);
    }

    #[tokio::test]
    async fn unknown_address_is_a_page_with_404() {
        let response = not_found(&HeaderMap::new());
        assert_eq!(response.status(), 404);
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    }
}
