//! A proof of not being a robot, asked for at the door: what a widget such as Turnstile or hCaptcha gave the browser comes in the header
//! `Usher-Challenge`, and the widget's own service is asked whether it is good (`secret`, `response`, `remoteip`; answered by `{"success": bool}`).
//!
//! Only joins are asked, and not those of a service key's: whoever is in line has proven it. Off unless an address is set.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::http::identity::IdentityResolver;
use crate::http::peer::{PeerAddress, client_address};
use crate::http::problem::ProblemDetails;
use crate::telemetry::Metric;
use crate::tls;

/// The header that carries what the widget gave.
pub const HEADER: &str = "usher-challenge";

/// The longest token; Turnstile's have at most 2,048 characters, hCaptcha's some more.
const LONGEST: usize = 8 * 1024;
/// The longest answer that is read, in bytes.
const ANSWER_BYTES: usize = 16 * 1024;
/// Questions under way at once. More would only wait there instead of here.
const AT_ONCE: usize = 256;

/// Who is asked.
#[derive(Debug, Clone)]
pub struct ChallengeSettings {
    /// `https://…/siteverify`.
    pub url: Uri,
    /// What tells them who asks.
    pub secret: SecretString,
    /// How long they may take; a place in the row of those who ask included.
    pub timeout: Duration,
    /// Whether joins go on when they don't answer.
    pub fail_open: bool,
}

/// Asks.
pub struct ChallengeVerifier {
    settings: ChallengeSettings,
    trusted_proxies: u8,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    row: Semaphore,
}

#[derive(Deserialize)]
struct ChallengeVerdict {
    success: bool,
}

/// Whoever made this request is none, as far as anybody can tell. Extracted after the user, whose limits come first.
#[derive(Debug, Clone, Copy)]
pub struct ChallengePassed;

impl ChallengeVerifier {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub fn new(settings: ChallengeSettings, trusted_proxies: u8) -> Result<Self, tls::Error> {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::client(None)?)
            .https_or_http()
            .enable_http1();
        let client = Client::builder(TokioExecutor::new()).build(connector.build());
        Ok(Self { settings, trusted_proxies, client, row: Semaphore::new(AT_ONCE) })
    }

    /// Whether the token is good. `None`: nobody says.
    async fn ask(&self, token: &str, address: Option<String>) -> Option<bool> {
        let asked = async {
            let _place = self.row.acquire().await.ok()?;
            let answer = self
                .client
                .request(self.question(token, address)?)
                .await
                .map_err(|error| error.to_string());
            let answer = answer
                .inspect_err(|error| tracing::warn!(error, "the challenge's service"))
                .ok()?;
            let status = answer.status();
            let body =
                Limited::new(answer.into_body(), ANSWER_BYTES).collect().await.ok()?.to_bytes();
            let verdict = serde_json::from_slice::<ChallengeVerdict>(&body).ok();
            if verdict.is_none() {
                tracing::warn!(%status, "the challenge's service says nothing that is understood");
            }
            verdict.map(|verdict| verdict.success)
        };
        let late = |_| tracing::warn!("the challenge's service does not answer in time");
        tokio::time::timeout(self.settings.timeout, asked).await.map_err(late).ok()?
    }

    fn question(&self, token: &str, address: Option<String>) -> Option<Request<Full<Bytes>>> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("secret", self.settings.secret.expose_secret())
            .append_pair("response", token);
        if let Some(address) = address {
            form.append_pair("remoteip", &address);
        }
        Request::post(self.settings.url.clone())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(form.finish()))
            .ok()
    }

    /// Refuses whoever does not pass.
    async fn check(&self, parts: &Parts) -> Result<(), ProblemDetails> {
        let count = |outcome| Metric::ChallengesTotal.counter(&[("outcome", outcome)]).increment(1);
        let token = parts.headers.get(HEADER).and_then(|token| token.to_str().ok());
        let Some(token) = token.filter(|token| !token.is_empty() && token.len() <= LONGEST) else {
            count("missing");
            return Err(ProblemDetails::forbidden(
                "Joining needs the header Usher-Challenge, from the page's widget.",
            ));
        };
        // Absent without a connection, as in tests that call a router directly.
        let address = parts.extensions.get().map(|PeerAddress(peer)| {
            client_address(*peer, &parts.headers, self.trusted_proxies).to_string()
        });
        match self.ask(token, address).await {
            Some(true) => count("passed"),
            Some(false) => {
                count("failed");
                return Err(ProblemDetails::forbidden(
                    "The challenge was not passed, or its proof was used before.",
                ));
            }
            None => {
                count("unavailable");
                if !self.settings.fail_open {
                    return Err(ProblemDetails::overloaded().retry_after(2));
                }
            }
        }
        Ok(())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ChallengePassed {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ProblemDetails> {
        let Some(challenge) = parts.extensions.get::<Arc<ChallengeVerifier>>().cloned() else {
            return Ok(Self);
        };
        let callers = parts.extensions.get::<Arc<IdentityResolver>>();
        let caller = callers.map(|callers| callers.identify(&parts.headers)).transpose()?.flatten();
        if !caller.is_some_and(|caller| caller.by_service) {
            challenge.check(parts).await?;
        }
        Ok(Self)
    }
}
