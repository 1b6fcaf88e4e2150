//! Error responses: RFC 9457 `application/problem+json` with a stable `code` for programs and a
//! `detail` for people.

use std::collections::BTreeMap;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use super::rate_limit::RateLimitStatus;
use crate::definition::{DefinitionViolation, InUseItem};

pub const MEDIA_TYPE: &str = "application/problem+json";

/// Longer texts are cut, in characters, because they may repeat input of a client.
const MAX_TEXT_LENGTH: usize = 300;

/// An error response (RFC 9457).
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDetails {
    /// A URN that ends with the code.
    #[serde(rename = "type", serialize_with = "as_urn")]
    #[schema(value_type = String, example = "urn:usher:problem:not_found")]
    kind: &'static str,
    /// The code in words.
    #[serde(serialize_with = "as_words")]
    #[schema(value_type = String, example = "Not found")]
    title: &'static str,
    /// The HTTP status.
    #[serde(serialize_with = "as_number")]
    #[schema(value_type = u16, example = 404)]
    status: StatusCode,
    /// What happened in this case, in one sentence.
    detail: String,
    /// A stable identifier for programs.
    #[schema(value_type = String, example = "not_found")]
    code: &'static str,
    /// Additional members of some codes, such as `errors` of `invalid_request` or `seats` of
    /// `seat_taken`.
    #[serde(flatten)]
    extra: BTreeMap<&'static str, Value>,
    #[serde(skip)]
    retry_after_seconds: Option<u32>,
    #[serde(skip)]
    rate_limit: Option<Box<RateLimitStatus>>,
}

/// One invalid field, in `errors` of `invalid_request`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// The path of the field, such as `seats[2]`; empty for the whole body.
    pub field: String,
    /// Why the value is invalid.
    pub message: String,
}

impl ProblemDetails {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: code,
            title: code,
            status,
            detail: sanitized(detail.into()),
            code,
            extra: BTreeMap::new(),
            retry_after_seconds: None,
            rate_limit: None,
        }
    }

    /// Sets `Retry-After`, in seconds. The default of 429 and 503 is one second.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// Adds a member. `name` must not be a standard member.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Serialize) -> Self {
        debug_assert!(
            !["type", "title", "status", "detail", "code", "instance"].contains(&name),
            "{name}"
        );
        match serde_json::to_value(value) {
            Ok(value) => drop(self.extra.insert(name, value)),
            Err(error) => {
                let code = self.code;
                tracing::error!(code, name, %error, "a member of a problem can't be serialized");
            }
        }
        self
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn code(&self) -> &'static str {
        self.code
    }

    /// 400: the request can't be parsed.
    pub fn malformed_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed_request", detail)
    }

    /// 401: the identity is missing or invalid.
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
    }

    /// 403: the caller is known but not allowed.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404: the thing does not exist, or belongs to another user.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "The resource does not exist.")
    }

    /// 405: the path exists but not with this method.
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "This path does not support the method.",
        )
    }

    /// 409: something is in the way, of which `in_use` names the first items.
    pub fn in_use(detail: &str, items: &[InUseItem]) -> Self {
        let problem = Self::new(StatusCode::CONFLICT, "in_use", detail);
        if items.is_empty() { problem } else { problem.with("in_use", items) }
    }

    /// 412: the definition is not the one that the caller has read.
    pub fn precondition_failed() -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "precondition_failed",
            "The definition has changed, or it exists already. Read it again.",
        )
    }

    /// 413: the body is longer than the limit.
    pub fn body_too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            "The body is longer than the limit of this service.",
        )
    }

    /// 415: the content type or encoding is not supported.
    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    /// 422: the request can be parsed, but some fields are invalid.
    pub fn invalid_request(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [only] if only.field.is_empty() => only.message.clone(),
            [only] => format!("{}: {}", only.field, only.message),
            _ => "Several fields are invalid.".to_owned(),
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", detail)
            .with("errors", errors)
    }

    /// 422: a definition breaks its rules.
    pub fn invalid_definition(violations: Vec<DefinitionViolation>) -> Self {
        let error = |DefinitionViolation { field, message }| FieldError { field, message };
        Self::invalid_request(violations.into_iter().map(error).collect())
    }

    /// 422 for one field.
    pub fn invalid_field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid_request(vec![FieldError {
            field: field.into(),
            message: sanitized(message.into()),
        }])
    }

    /// 429: too many requests. The caller may retry after the reset of the limit.
    pub fn rate_limited(status: RateLimitStatus) -> Self {
        let detail = "Rate limit exceeded.";
        let seconds = u32::try_from(status.reset_seconds).unwrap_or(u32::MAX);
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail);
        problem.rate_limit = Some(Box::new(status));
        problem.retry_after(seconds)
    }

    /// 503: too many requests in progress.
    pub fn overloaded() -> Self {
        Self::overloaded_with("The service is overloaded. Retry later.")
    }

    /// 503 `overloaded`, with the limit that was reached.
    pub fn overloaded_with(detail: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail)
    }

    /// 503: the partition of this thing is being restored.
    pub fn recovering() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "recovering",
            "The data of this resource is being restored.",
        )
        .retry_after(5)
    }

    /// 503: Redis or MySQL does not answer.
    pub fn store_unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "store_unavailable",
            "A database of the service is unavailable.",
        )
        .retry_after(2)
    }

    /// 500: a bug of the service. Only the log has the cause.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Internal error. The log has the cause under the request id.",
        )
    }
}

impl IntoResponse for ProblemDetails {
    fn into_response(self) -> Response {
        let retry_after = match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Some(self.retry_after_seconds.unwrap_or(1).max(1))
            }
            _ => self.retry_after_seconds,
        };
        // Strings and JSON values can always be serialized.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(status) = self.rate_limit {
            status.add_headers(headers);
        }
        response
    }
}

/// The response to an unknown path.
pub(crate) async fn no_route() -> ProblemDetails {
    ProblemDetails::not_found()
}

/// The response to an unsupported method. The router adds `Allow`.
pub(crate) async fn no_method() -> ProblemDetails {
    ProblemDetails::method_not_allowed()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn as_number<S: serde::Serializer>(status: &StatusCode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(status.as_u16())
}

fn as_urn<S: serde::Serializer>(code: &str, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("urn:usher:problem:{code}"))
}

/// `seat_taken` becomes "Seat taken".
fn as_words<S: serde::Serializer>(code: &str, to: S) -> Result<S::Ok, S::Error> {
    let mut words = code.replace('_', " ");
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    to.serialize_str(&words)
}

/// At most [`MAX_TEXT_LENGTH`] characters, without control characters, which could forge log lines.
pub(super) fn sanitized(text: String) -> String {
    if text.len() <= MAX_TEXT_LENGTH && !text.contains(char::is_control) {
        return text;
    }
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(MAX_TEXT_LENGTH).map(printable).collect();
    if text.chars().nth(MAX_TEXT_LENGTH).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The status, headers and JSON body of a response.
    pub(crate) async fn read(response: Response) -> (StatusCode, axum::http::HeaderMap, Value) {
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        (parts.status, parts.headers, value)
    }

    #[tokio::test]
    async fn problem_has_standard_and_own_members() {
        let problem = ProblemDetails::new(StatusCode::CONFLICT, "seat_taken", "Seat 13 is taken.")
            .with("seats", [13]);
        let (status, headers, body) = read(problem.into_response()).await;
        assert_eq!(status, 409);
        assert_eq!(headers[CONTENT_TYPE], MEDIA_TYPE);
        assert_eq!(headers[CACHE_CONTROL], "no-store");
        assert!(!headers.contains_key(RETRY_AFTER));
        let expected = serde_json::json!({
            "type": "urn:usher:problem:seat_taken", "title": "Seat taken", "status": 409,
            "detail": "Seat 13 is taken.", "code": "seat_taken", "seats": [13],
        });
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn every_429_and_503_has_retry_after() {
        let status = RateLimitStatus {
            policy: "user",
            quota: 1,
            window_seconds: 1,
            remaining: 0,
            reset_seconds: 7,
        };
        let cases = [
            (ProblemDetails::rate_limited(status), "7"),
            (ProblemDetails::overloaded(), "1"),
            (
                ProblemDetails::new(StatusCode::SERVICE_UNAVAILABLE, "queue_full", "")
                    .retry_after(0),
                "1",
            ),
            (ProblemDetails::new(StatusCode::FORBIDDEN, "not_admitted", "").retry_after(3), "3"),
        ];
        for (problem, seconds) in cases {
            assert_eq!(problem.into_response().headers()[RETRY_AFTER], seconds);
        }
    }

    #[test]
    fn echoed_text_is_cut_and_printable() {
        let problem = ProblemDetails::malformed_request(format!("a\nb{}", "ä".repeat(1000)));
        assert!(problem.detail.starts_with("a b"));
        assert_eq!(problem.detail.chars().count(), MAX_TEXT_LENGTH + 1);
    }

    #[test]
    fn single_invalid_field_is_named_in_the_detail() {
        assert_eq!(
            ProblemDetails::invalid_field("amount", "must be positive").detail,
            "amount: must be positive"
        );
    }

    #[test]
    fn schema_has_the_members_and_allows_more() {
        use utoipa::PartialSchema;
        let schema = serde_json::to_value(ProblemDetails::schema()).unwrap().to_string();
        for member in [
            "\"type\"",
            "\"title\"",
            "\"status\"",
            "\"detail\"",
            "\"code\"",
            "additionalProperties",
        ] {
            assert!(schema.contains(member), "{member}: {schema}");
        }
        assert!(!schema.contains("retry_after"), "{schema}");
    }
}
