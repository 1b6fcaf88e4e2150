//! A client of the admin API.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderName};
use axum::http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::timeout;

use super::OperatorError;

/// Longer than the timeout of a request in an instance.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// Calls the admin API of one instance.
pub(super) struct AdminClient {
    url: String,
    key: SecretString,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl AdminClient {
    pub(super) fn new(url: &str, key: SecretString) -> Self {
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        Self { url: url.to_owned(), key, client }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, OperatorError> {
        self.call(Method::GET, path, None).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<Value, OperatorError> {
        self.call(Method::DELETE, path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Result<Value, OperatorError> {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(super) async fn patch(&self, path: &str, body: Value) -> Result<Value, OperatorError> {
        self.call(Method::PATCH, path, Some(body)).await
    }

    /// The object and its ETag, and `None` if there is none.
    pub(super) async fn find(&self, path: &str) -> Result<Option<(Value, String)>, OperatorError> {
        match self.exchange(Method::GET, path, None, None).await {
            Ok(found) => Ok(Some(found)),
            Err(OperatorError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates or replaces an object under a precondition.
    pub(super) async fn put(
        &self,
        path: &str,
        body: Value,
        precondition: (HeaderName, String),
    ) -> Result<(), OperatorError> {
        self.exchange(Method::PUT, path, Some(body), Some(precondition)).await.map(drop)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, OperatorError> {
        self.exchange(method, path, body, None).await.map(|(body, _)| body)
    }

    /// The body of the response and its ETag, which is empty if there is none.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        precondition: Option<(HeaderName, String)>,
    ) -> Result<(Value, String), OperatorError> {
        let uri: Uri =
            format!("{}{path}", self.url).parse().map_err(|error| self.no_response(error))?;
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(AUTHORIZATION, format!("Bearer {}", self.key.expose_secret()));
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some((name, value)) = precondition {
            request = request.header(name, value);
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = request.body(Full::from(body)).map_err(|error| self.no_response(error))?;
        let answer = timeout(RESPONSE_TIMEOUT, async {
            let response =
                self.client.request(request).await.map_err(|error| self.no_response(error))?;
            let status = response.status();
            let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
            let etag = etag.unwrap_or_default().to_owned();
            let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await;
            let body = body.map_err(|error| self.no_response(error))?.to_bytes();
            let body = serde_json::from_slice::<Value>(&body).unwrap_or_default();
            Ok::<_, OperatorError>((status, body, etag))
        });
        let late = |_| Err(self.no_response(format!("no response within {RESPONSE_TIMEOUT:?}")));
        let (status, body, etag) = answer.await.unwrap_or_else(late)?;
        if status.is_success() {
            return Ok((body, etag));
        }
        if status == StatusCode::PRECONDITION_FAILED {
            return Err(OperatorError::ChangedMeanwhile);
        }
        let word = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let (code, detail) = (word("code"), word("detail"));
        Err(OperatorError::Refused { status: status.as_u16(), code, detail })
    }

    fn no_response(&self, cause: impl std::fmt::Display) -> OperatorError {
        OperatorError::NoResponse { url: self.url.clone(), cause: cause.to_string() }
    }
}
