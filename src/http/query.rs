//! Parameters of the query string.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::json::field_and_message;
use super::problem::ProblemDetails;

/// Parameters of the query string. An invalid one is 422 with its name.
#[derive(Debug, Clone)]
pub struct QueryParams<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryParams<T> {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ProblemDetails> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        serde_path_to_error::deserialize(pairs).map(Self).map_err(|error| {
            let (path, message) = (error.path().to_string(), error.inner().to_string());
            let (field, message) = field_and_message(&path, &message);
            ProblemDetails::invalid_field(field, message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct TestQuery {
        limit: Option<u16>,
        before: Option<String>,
    }

    async fn page(query: &str) -> Result<TestQuery, ProblemDetails> {
        let (mut parts, ()) = Request::get(format!("/x{query}")).body(()).unwrap().into_parts();
        QueryParams::from_request_parts(&mut parts, &()).await.map(|QueryParams(page)| page)
    }

    #[tokio::test]
    async fn parameters_are_parsed() {
        let read = page("?limit=20&before=a%20b").await.unwrap();
        assert_eq!((read.limit, read.before.as_deref()), (Some(20), Some("a b")));
        assert!(page("").await.unwrap().limit.is_none());
    }

    #[tokio::test]
    async fn invalid_parameter_is_named() {
        for (query, field) in [
            ("?limit=x", "limit"),
            ("?limit=-1", "limit"),
            ("?limit=", "limit"),
            ("?limit=70000", "limit"),
            ("?limit=1&limit=2", "limit"),
            ("?colour=red", "colour"),
        ] {
            let problem = serde_json::to_value(page(query).await.unwrap_err()).unwrap();
            assert_eq!(problem["code"], "invalid_request", "{query}");
            assert_eq!(problem["errors"][0]["field"], field, "{query}: {problem}");
        }
    }
}
