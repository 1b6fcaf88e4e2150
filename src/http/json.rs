//! JSON bodies of requests and responses.
//!
//! A body that is not JSON is 415 (content type) or 400 (syntax). A body that is too long is 413.
//! Valid JSON with invalid content is 422, with the path of the field. Bodies must be objects,
//! because serde would accept `[5]` for a struct with one field. Two equal keys in one object are
//! 422, because parsers disagree about which one counts.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::problem::ProblemDetails;
use super::unique_keys::UniqueKeys;
use crate::definition::DefinitionViolation;

/// Most responses fit, a ticket among them, so that writing one needs a single allocation.
const INITIAL_BUFFER_BYTES: usize = 512;

/// A JSON body, of a request or a response.
#[derive(Debug, Clone)]
pub struct JsonBody<T>(pub T);

/// A JSON body together with its bytes, for the idempotency fingerprint.
#[derive(Debug, Clone)]
pub struct JsonBodyWithBytes<T> {
    pub value: T,
    pub bytes: Bytes,
}

/// As [`JsonBodyWithBytes`], for a body that may be omitted.
#[derive(Debug, Clone)]
pub struct OptionalJsonBody<T> {
    pub value: T,
    pub bytes: Bytes,
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalJsonBody<T> {
    type Rejection = ProblemDetails;

    async fn from_request(request: Request, state: &S) -> Result<Self, ProblemDetails> {
        let content_type = check_content_type(request.headers());
        let bytes = Bytes::from_request(request, state).await.map_err(read_failure)?;
        if bytes.trim_ascii().is_empty() {
            return Ok(Self { value: T::default(), bytes: Bytes::new() });
        }
        content_type?;
        let value = parse(&bytes)?;
        Ok(Self { value, bytes })
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ProblemDetails;

    async fn from_request(request: Request, state: &S) -> Result<Self, ProblemDetails> {
        JsonBodyWithBytes::from_request(request, state)
            .await
            .map(|JsonBodyWithBytes { value, .. }| Self(value))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBodyWithBytes<T> {
    type Rejection = ProblemDetails;

    async fn from_request(request: Request, state: &S) -> Result<Self, ProblemDetails> {
        check_content_type(request.headers())?;
        let bytes = Bytes::from_request(request, state).await.map_err(read_failure)?;
        let value = parse(&bytes)?;
        Ok(Self { value, bytes })
    }
}

impl<T: Serialize> IntoResponse for JsonBody<T> {
    fn into_response(self) -> Response {
        let mut body = Vec::with_capacity(INITIAL_BUFFER_BYTES);
        match serde_json::to_writer(&mut body, &self.0) {
            Ok(()) => ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body)
                .into_response(),
            Err(error) => {
                tracing::error!(%error, "a response can't be serialized as JSON");
                ProblemDetails::internal().into_response()
            }
        }
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), ProblemDetails> {
    let essence = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let is_json = essence.is_some_and(|essence| {
        essence == "application/json"
            || (essence.starts_with("application/") && essence.ends_with("+json"))
    });
    if !is_json {
        return Err(ProblemDetails::unsupported_media_type(
            "The content type must be application/json.",
        ));
    }
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(ProblemDetails::unsupported_media_type("The body must not be compressed."))
        }
        _ => Ok(()),
    }
}

/// The problem of a body that is longer than the limit or incomplete.
pub(super) fn read_failure(rejection: BytesRejection) -> ProblemDetails {
    match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            ProblemDetails::body_too_large()
        }
        _ => incomplete_body(),
    }
}

pub(crate) fn incomplete_body() -> ProblemDetails {
    ProblemDetails::malformed_request("The connection ended before the end of the body.")
}

pub(crate) fn unexpected_body() -> ProblemDetails {
    ProblemDetails::invalid_field("", "must be empty or {}, because the route takes no body")
}

/// Accepts the body of a route that takes none: nothing, or `{}`.
pub(crate) fn parse_empty(bytes: &[u8]) -> Result<(), ProblemDetails> {
    if bytes.trim_ascii().is_empty() {
        return Ok(());
    }
    let value: UniqueKeys = parse(bytes)?;
    if value == UniqueKeys::EmptyObject { Ok(()) } else { Err(unexpected_body()) }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ProblemDetails> {
    let checked = read::<T>(bytes).and_then(|value| {
        // The path of the field is expensive, and rarely needed.
        match serde_json::from_slice::<UniqueKeys>(bytes) {
            Ok(_) => Ok(value),
            Err(_) => read::<UniqueKeys>(bytes).map(|_| value),
        }
    });
    let problem = match checked {
        Ok(value) => return Ok(value),
        Err(problem) => problem,
    };
    // serde reports some values of a wrong type as syntax errors. So the syntax is checked on its
    // own.
    match serde_json::from_slice::<IgnoredAny>(bytes) {
        Ok(IgnoredAny) => Err(problem),
        Err(error) => {
            Err(ProblemDetails::malformed_request(format!("The body is not JSON: {error}.")))
        }
    }
}

/// Parses a body and drops the result, for `fuzz_tests`.
#[cfg(test)]
pub(crate) fn parse_as<T: DeserializeOwned>(bytes: &[u8]) {
    let _ = parse::<T>(bytes);
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ProblemDetails> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(ProblemDetails::invalid_field("", "must be a JSON object"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| {
            let path = error.path().to_string();
            invalid_value(&path, &error.into_inner())
        })
        .and_then(|value| {
            deserializer.end().map(|()| value).map_err(|error| invalid_value("", &error))
        })
}

/// Reads a value that was parsed before.
pub(super) fn parse_value<T: DeserializeOwned>(value: Value) -> Result<T, DefinitionViolation> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        violation_of(&path, &error.into_inner())
    })
}

fn invalid_value(path: &str, error: &serde_json::Error) -> ProblemDetails {
    let DefinitionViolation { field, message } = violation_of(path, error);
    ProblemDetails::invalid_field(field, message)
}

fn violation_of(path: &str, error: &serde_json::Error) -> DefinitionViolation {
    let text = error.to_string();
    let message = match text.rfind(" at line ") {
        _ if !error.is_data() => "has the wrong type",
        // The path of the field is more useful than the position in the text.
        Some(end) => &text[..end],
        None => &text,
    };
    let (field, message) = field_and_message(path, message);
    DefinitionViolation::new(field, message)
}

/// The path of the invalid field and the message. serde reports a missing or repeated field at the
/// path of its object and names it only in the message.
pub(super) fn field_and_message<'a>(path: &str, message: &'a str) -> (String, &'a str) {
    let path = if path == "." { "" } else { path };
    let field_errors =
        [("missing field `", "must be given"), ("duplicate field `", "must be given only once")];
    let named = field_errors
        .iter()
        .find_map(|(start, text)| Some((message.strip_prefix(start)?.split('`').next()?, *text)));
    match named {
        Some((name, text)) if path.is_empty() => (name.to_owned(), text),
        Some((name, text)) => (format!("{path}.{name}"), text),
        None => (path.to_owned(), message),
    }
}

#[cfg(test)]
mod tests {
    use super::super::problem::tests::read;
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::extract::DefaultBodyLimit;
    use axum::http::StatusCode;
    use axum::routing::post;
    use serde::Deserialize;
    use serde_json::json;
    use tower::ServiceExt;

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct TestHold {
        schedule_id: String,
        seats: Vec<u32>,
        inner: Option<TestInner>,
        #[serde(default)]
        kind: Option<TestKind>,
        any: Option<Value>,
    }

    #[derive(Debug, Serialize, Deserialize)]
    enum TestKind {
        Plain,
    }

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct TestInner {
        price: i64,
    }

    async fn send(content_type: Option<&str>, body: impl Into<Body>) -> (StatusCode, Value) {
        let handler = |JsonBodyWithBytes { value, bytes }: JsonBodyWithBytes<TestHold>| async move {
            assert_eq!(serde_json::from_slice::<TestHold>(&bytes).unwrap().seats, value.seats);
            JsonBody(value)
        };
        let app: Router = Router::new().route("/", post(handler)).layer(DefaultBodyLimit::max(200));
        let mut request = Request::post("/");
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let (status, _, body) =
            read(app.oneshot(request.body(body.into()).unwrap()).await.unwrap()).await;
        (status, body)
    }

    #[tokio::test]
    async fn valid_body_is_accepted() {
        for content_type in
            ["application/json", "Application/JSON; charset=utf-8", "application/vnd.usher+json"]
        {
            let (status, body) =
                send(Some(content_type), r#" {"schedule_id": "s", "seats": [1]} "#).await;
            assert_eq!((status, &body["seats"]), (StatusCode::OK, &json!([1])), "{content_type}");
        }
    }

    #[tokio::test]
    async fn other_content_types_are_refused() {
        for content_type in
            [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("json")]
        {
            let (status, body) = send(content_type, "{}").await;
            assert_eq!(
                (status.as_u16(), &body["code"]),
                (415, &json!("unsupported_media_type")),
                "{content_type:?}"
            );
        }
    }

    #[tokio::test]
    async fn invalid_json_is_malformed() {
        for body in [
            "",
            " ",
            "{",
            "nope",
            "[1",
            r#"{"colour": 0x10}"#,
            r#"{"seats": "none", "#,
            r#"{"schedule_id": "s", "seats": [1]} {}"#,
            "{\"schedule_id\": \"\u{1}\"}",
            "\u{feff}{}",
        ] {
            let (status, answer) = send(Some("application/json"), body).await;
            assert_eq!(
                (status.as_u16(), &answer["code"]),
                (400, &json!("malformed_request")),
                "{body:?}: {answer}"
            );
        }
        let (status, _) = send(Some("application/json"), vec![b'{', b'"', 0xff, b'"']).await;
        assert_eq!(status, 400);
    }

    #[tokio::test]
    async fn invalid_content_names_the_field() {
        let cases = [
            (r#"{"seats": [1]}"#, "schedule_id"),
            (r#"{"schedule_id": "s", "seats": [1, "2"]}"#, "seats[1]"),
            (r#"{"schedule_id": "s", "seats": [1, -2]}"#, "seats[1]"),
            (r#"{"schedule_id": 5, "seats": []}"#, "schedule_id"),
            (r#"{"schedule_id": "s", "seats": null}"#, "seats"),
            (r#"{"schedule_id": "s", "seats": [], "colour": 1}"#, "colour"),
            (r#"{"schedule_id": "s", "seats": [], "seats": []}"#, "seats"),
            (r#"{"schedule_id": "s", "seats": [], "inner": {}}"#, "inner.price"),
            (r#"{"schedule_id": "s", "seats": [], "inner": {"price": 1.5}}"#, "inner.price"),
            (r#"{"schedule_id": "s", "seats": [], "kind": 5}"#, "kind"),
            (r#"{"schedule_id": "s", "seats": [], "kind": "Fancy"}"#, "kind"),
            (
                r#"{"schedule_id": "s", "seats": [], "any": {"b": [{"c": 1, "c": 1}]}}"#,
                "any.b[0].c",
            ),
            ("[5]", ""),
            ("null", ""),
            ("\"text\"", ""),
        ];
        for (body, field) in cases {
            let (status, answer) = send(Some("application/json"), body).await;
            assert_eq!(
                (status.as_u16(), &answer["code"]),
                (422, &json!("invalid_request")),
                "{body}: {answer}"
            );
            assert_eq!(answer["errors"][0]["field"], field, "{body}: {answer}");
            assert!(!answer["errors"][0]["message"].as_str().unwrap().contains("line"), "{answer}");
        }
    }

    #[tokio::test]
    async fn long_body_is_refused() {
        let (status, answer) = send(Some("application/json"), vec![b' '; 201]).await;
        assert_eq!((status.as_u16(), &answer["code"]), (413, &json!("body_too_large")));
    }
}
