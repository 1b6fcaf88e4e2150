//! One attempt to deliver an event over HTTP.
//!
//! A connection is made to an address that was checked: the client resolves a name once, and
//! connects to what it has resolved. Redirects are not followed.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, header};
use chrono::{DateTime, Utc};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::Service;

use super::secret::WebhookSecret;
use super::url_rules::{self, is_private};
use crate::tls;

/// What is read of an answer. Its content has no meaning.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_IDLE_CONNECTIONS: usize = 16;

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DeliveryOutcome {
    /// The status of the answer.
    Answered(u16),
    /// There was no answer, and why.
    Failed(String),
}

impl DeliveryOutcome {
    pub(super) fn is_success(&self) -> bool {
        matches!(self, Self::Answered(200..=299))
    }

    /// The endpoint wants no more events.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Answered(410))
    }
}

/// Something to deliver.
#[derive(Debug, Clone)]
pub(super) struct WebhookMessage {
    pub(super) id: String,
    pub(super) body: Bytes,
}

/// Sends messages. One value per process.
pub(super) struct WebhookSender {
    client: Client<HttpsConnector<HttpConnector<PublicResolver>>, Full<Bytes>>,
    allow_private: bool,
}

impl WebhookSender {
    /// # Errors
    /// When TLS can't be set up.
    pub(super) fn new(allow_private: bool) -> Result<Self, tls::Error> {
        let mut connector = HttpConnector::new_with_resolver(PublicResolver { allow_private });
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::client_config(None)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .build(connector);
        Ok(Self { client, allow_private })
    }

    /// Sends a message, signed with each of the secrets.
    pub(super) async fn send(
        &self,
        url: &str,
        secrets: &[WebhookSecret],
        message: &WebhookMessage,
        timeout: Duration,
    ) -> DeliveryOutcome {
        // Again at each attempt: the setting may have changed since the URL was accepted.
        if let Err(rule) = url_rules::parse(url, self.allow_private) {
            return DeliveryOutcome::Failed(format!("the URL {rule}"));
        }
        let now = now().timestamp();
        let signatures: Vec<String> =
            secrets.iter().map(|secret| secret.sign(&message.id, now, &message.body)).collect();
        let request = Request::post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("usher/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", signatures.join(" "))
            .body(Full::from(message.body.clone()));
        let request = match request {
            Ok(request) => request,
            Err(error) => return DeliveryOutcome::Failed(error.to_string()),
        };
        let attempt = async {
            let response = self.client.request(request).await.map_err(|error| cause(&error))?;
            let status = response.status().as_u16();
            // An answer that is read to its end leaves the connection for the next message.
            let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES);
            match body.collect().await {
                Ok(_) => Ok(status),
                Err(error) if error.is::<http_body_util::LengthLimitError>() => Ok(status),
                Err(_) => Err("the answer was cut off".to_owned()),
            }
        };
        match tokio::time::timeout(timeout, attempt).await {
            Ok(Ok(status)) => DeliveryOutcome::Answered(status),
            Ok(Err(error)) => DeliveryOutcome::Failed(error),
            Err(_) => DeliveryOutcome::Failed("no answer in time".to_owned()),
        }
    }
}

/// This host's clock: receivers compare the timestamp of a message with theirs.
#[expect(clippy::disallowed_methods, reason = "for receivers and long pauses")]
pub(super) fn now() -> DateTime<Utc> {
    Utc::now()
}

/// The innermost cause of an error.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Whether a host leads to an address that is not public. An unknown host does not.
pub(super) async fn leads_to_private(host: &str) -> bool {
    let found = tokio::net::lookup_host((host, 0)).await;
    found.is_ok_and(|mut addresses| addresses.any(|address| is_private(address.ip())))
}

/// Resolves names to addresses that may be connected to.
#[derive(Clone)]
struct PublicResolver {
    allow_private: bool,
}

type ResolvedAddresses = std::vec::IntoIter<SocketAddr>;

impl Service<Name> for PublicResolver {
    type Response = ResolvedAddresses;
    type Error = std::io::Error;
    type Future =
        Pin<Box<dyn Future<Output = Result<ResolvedAddresses, std::io::Error>> + Send + Sync>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let all: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if !allow_private && all.iter().any(|address| is_private(address.ip())) {
                return Err(std::io::Error::other("the name leads to a private address"));
            }
            Ok(all.into_iter())
        })
    }
}
