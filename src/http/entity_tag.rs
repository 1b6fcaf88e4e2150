//! Entity tags of responses (RFC 9110, 8.8.3), and 304 for a client that has the current one.

use std::fmt;

use axum::body::Body;
use axum::http::header::{ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

/// A strong entity tag, computed from the content. It is equal on all instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntityTag(u64);

impl EntityTag {
    pub fn of(content: &[u8]) -> Self {
        let digest = Sha256::digest(content);
        Self(digest.iter().take(8).fold(0, |all, &byte| (all << 8) | u64::from(byte)))
    }

    /// Whether `If-None-Match` names this tag, or any. The comparison is weak, because a proxy that
    /// compresses a response makes its tag weak.
    pub fn is_in(self, headers: &HeaderMap) -> bool {
        let own = self.to_string();
        let lists = headers.get_all(IF_NONE_MATCH).iter().filter_map(|list| list.to_str().ok());
        lists
            .flat_map(|list| list.split(','))
            .map(str::trim)
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == own)
    }

    /// The response with this tag, or 304 without a body if the client has it already.
    pub fn respond(self, headers: &HeaderMap, response: impl IntoResponse) -> Response {
        let mut response = response.into_response();
        if self.is_in(headers) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = Body::empty();
        }
        if let Ok(value) = HeaderValue::try_from(self.to_string()) {
            response.headers_mut().insert(ETAG, value);
        }
        response
    }
}

/// As in a header, with quotes.
impl fmt::Display for EntityTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{:016x}\"", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_with_the_tag_gets_no_body() {
        let tag = EntityTag::of(b"content");
        let other = EntityTag::of(b"other content").to_string();
        let own = tag.to_string();
        for (sent, status) in [
            (own.clone(), 304),
            (format!("W/{own}"), 304),
            (format!("{other}, {own}"), 304),
            ("*".to_owned(), 304),
            (other, 200),
            (own.trim_matches('"').to_owned(), 200),
            (String::new(), 200),
        ] {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, sent.parse().unwrap())]);
            let response = tag.respond(&headers, "content");
            assert_eq!(response.status(), status, "{sent}");
            assert_eq!(response.headers()[ETAG].to_str().unwrap(), own);
        }
    }
}
