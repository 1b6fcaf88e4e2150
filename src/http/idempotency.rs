//! The header with the idempotency key, and the fingerprint by which two requests count as equal.
//! The domain modules store them.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, Method, StatusCode};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::problem::ProblemDetails;

pub const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// `true` on a response that repeats an earlier one.
pub const REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The idempotency key of a request: 1 to 128 visible ASCII characters. A missing key is 400
/// `idempotency_key_required`, an invalid one 400 `malformed_request`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ProblemDetails> {
        let mut all = parts.headers.get_all(KEY_HEADER).iter();
        let Some(first) = all.next() else {
            let detail = "The header Idempotency-Key is missing.";
            return Err(ProblemDetails::new(
                StatusCode::BAD_REQUEST,
                "idempotency_key_required",
                detail,
            ));
        };
        let visible = |text: &&str| {
            (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        match first.to_str().ok().filter(visible) {
            Some(text) if all.next().is_none() => Ok(Self(text.to_owned())),
            _ => Err(ProblemDetails::malformed_request(
                "Idempotency-Key must be given once, with 1 to 128 visible ASCII characters.",
            )),
        }
    }
}

/// An idempotency key on a route where it is optional.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionalIdempotencyKey(pub Option<IdempotencyKey>);

impl<S: Send + Sync> FromRequestParts<S> for OptionalIdempotencyKey {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ProblemDetails> {
        if !parts.headers.contains_key(KEY_HEADER) {
            return Ok(Self(None));
        }
        IdempotencyKey::from_request_parts(parts, state).await.map(|key| Self(Some(key)))
    }
}

/// The fingerprint that requests with the same key must share: 16 bytes of a SHA-256 over the
/// method, the path (as sent, without the query) and the content of the JSON body. Whitespace, the
/// order of keys, and `null` for a field that could be left out do not matter. The length before
/// each part keeps the parts apart.
pub fn fingerprint(method: &Method, path: &str, body: &[u8]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in [method.as_str().as_bytes(), path.as_bytes(), &canonical_body(body)] {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let mut prefix = [0; 16];
    prefix.copy_from_slice(&digest[..16]);
    prefix
}

/// The body with sorted keys and without nulls and whitespace; empty for `{}`, like no body. A body
/// that is not JSON stays as it is: its request is refused elsewhere.
fn canonical_body(body: &[u8]) -> Vec<u8> {
    match serde_json::from_slice::<Value>(body) {
        Ok(mut value) => {
            remove_nulls(&mut value);
            match value {
                Value::Object(fields) if fields.is_empty() => Vec::new(),
                // serde_json keeps the keys of a map sorted.
                value => value.to_string().into_bytes(),
            }
        }
        Err(_) => body.to_vec(),
    }
}

fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderValue, Request};

    async fn key(values: &[&[u8]]) -> Result<IdempotencyKey, &'static str> {
        let (mut parts, ()) = Request::new(()).into_parts();
        for value in values {
            parts.headers.append(KEY_HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        IdempotencyKey::from_request_parts(&mut parts, &()).await.map_err(|problem| {
            assert_eq!(problem.status(), 400);
            problem.code()
        })
    }

    #[tokio::test]
    async fn keys_are_visible_ascii() {
        assert_eq!(key(&[b"a~!9"]).await.unwrap().as_str(), "a~!9");
        assert!(key(&[&[b'x'; 128]]).await.is_ok());
        assert_eq!(key(&[]).await, Err("idempotency_key_required"));
        for bad in [&b""[..], b"a b", b"a\tb", "\u{e4}".as_bytes(), &[b'x'; 129]] {
            assert_eq!(key(&[bad]).await, Err("malformed_request"), "{bad:?}");
        }
        assert_eq!(key(&[b"a", b"a"]).await, Err("malformed_request"));
    }

    #[test]
    fn every_part_changes_the_fingerprint() {
        let one = fingerprint(&Method::POST, "/v1/payments", b"{}");
        assert_eq!(one, fingerprint(&Method::POST, "/v1/payments", b"{}"));
        for other in [
            fingerprint(&Method::PUT, "/v1/payments", b"{}"),
            fingerprint(&Method::POST, "/v1/payment", b"s{}"),
            fingerprint(&Method::POST, "/v1/payments", b"{\"a\":1}"),
            fingerprint(&Method::POST, "/v1/payments", b"not JSON"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn requests_with_the_same_content_are_equal() {
        let of = |body: &str| fingerprint(&Method::POST, "/v1/reservations", body.as_bytes());
        let one = of(r#"{"schedule_id":"demo-1","seats":[1,2]}"#);
        for same in [
            "{ \"schedule_id\" : \"demo-1\",\n \"seats\": [1, 2] }",
            r#"{"seats":[1,2],"schedule_id":"demo-1"}"#,
            r#"{"seats":[1,2],"schedule_id":"demo-1","section":null}"#,
        ] {
            assert_eq!(of(same), one, "{same}");
        }
        assert_ne!(of(r#"{"schedule_id":"demo-1","seats":[2,1]}"#), one);
        assert_eq!(of("{}"), of(""));
    }
}
