//! `If-Match` and `If-None-Match` (RFC 9110, section 13.1), and the response that a changed
//! definition has.

use axum::Extension;
use axum::extract::FromRequestParts;
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::json::JsonBody;
use super::problem::ProblemDetails;
use super::recorded_change::RecordedChange;
use crate::definition::{ChangePreconditions, DefinitionEtag, EntityTags};

/// The preconditions of a request. Headers that can't be parsed are 400.
#[derive(Debug, Clone)]
pub struct Preconditions(pub ChangePreconditions);

impl<S: Send + Sync> FromRequestParts<S> for Preconditions {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ProblemDetails> {
        Ok(Self(ChangePreconditions {
            if_match: read(&parts.headers, &IF_MATCH)?,
            if_none_match: read(&parts.headers, &IF_NONE_MATCH)?,
        }))
    }
}

/// The response to the deletion of a definition.
pub type DeletedDefinition = (StatusCode, Extension<RecordedChange>);

/// A definition with live figures, and the `ETag` of the definition.
#[derive(Debug, Clone)]
pub struct DefinitionBody<T> {
    pub etag: DefinitionEtag,
    pub body: T,
    /// What the call has changed, for the audit log.
    pub change: Option<RecordedChange>,
}

impl<T: Serialize> IntoResponse for DefinitionBody<T> {
    fn into_response(self) -> Response {
        let mut response = JsonBody(self.body).into_response();
        if let Ok(etag) = HeaderValue::from_str(self.etag.as_str()) {
            response.headers_mut().insert(ETAG, etag);
        }
        if let Some(change) = self.change {
            response.extensions_mut().insert(change);
        }
        response
    }
}

fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<EntityTags>, ProblemDetails> {
    let mut values = headers.get_all(name).iter().peekable();
    if values.peek().is_none() {
        return Ok(None);
    }
    let values: Option<Vec<&str>> = values.map(|value| value.to_str().ok()).collect();
    let tags = values.and_then(|values| parse(&values.join(",")));
    tags.map(Some).ok_or_else(|| {
        ProblemDetails::malformed_request(format!(
            "The header {name} must be `*` or a list of entity tags in quotation marks."
        ))
    })
}

fn parse(text: &str) -> Option<EntityTags> {
    let mut rest = text.trim();
    if rest == "*" {
        return Some(EntityTags::Any);
    }
    let (mut strong, mut count) = (Vec::new(), 0);
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            break;
        }
        let (is_weak, tag) = rest.strip_prefix("W/").map_or((false, rest), |tag| (true, tag));
        let length = tag.strip_prefix('"')?.find('"')? + 2;
        let (tag, after) = tag.split_at(length);
        if tag.contains([' ', '\t']) || !after.is_empty() && !after.trim_start().starts_with(',') {
            return None;
        }
        count += 1;
        if !is_weak {
            strong.push(tag.to_owned());
        }
        rest = after;
    }
    (count > 0).then_some(EntityTags::Strong(strong))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(headers: &[&str]) -> Option<Option<EntityTags>> {
        let mut map = HeaderMap::new();
        for value in headers {
            map.append(IF_MATCH, value.parse().unwrap());
        }
        read(&map, &IF_MATCH).ok()
    }

    #[test]
    fn lists_of_tags_are_parsed() {
        let strong = |tags: &[&str]| {
            EntityTags::Strong(tags.iter().map(|tag| format!("\"{tag}\"")).collect())
        };
        assert_eq!(tags(&[]), Some(None));
        assert_eq!(tags(&["*"]), Some(Some(EntityTags::Any)));
        for (headers, expected) in [
            (&[r#""a""#][..], &["a"][..]),
            (&[r#""a","b" , "c""#], &["a", "b", "c"]),
            (&[r#""a""#, r#""b""#], &["a", "b"]),
            (&[r#""a,b""#], &["a,b"]),
            (&[r#""""#], &[""]),
            (&[r#"W/"a""#], &[]),
            (&[r#"W/"a", "b""#], &["b"]),
        ] {
            assert_eq!(tags(headers), Some(Some(strong(expected))), "{headers:?}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in ["", ",", "a", "\"a", "a\"", "\"a\"b", "* , \"a\"", "w/\"a\"", "\"a b\"", "**"] {
            assert_eq!(tags(&[bad]), None, "{bad}");
        }
    }
}
