//! A bot challenge for joins, such as Turnstile or hCaptcha.
//!
//! The widget in the browser returns a token, which the client sends in the header
//! `Usher-Challenge`. The provider verifies it (`secret`, `response`, `remoteip`; its response is
//! `{"success": bool}`). Joins with a service key need no challenge. The challenge is disabled
//! without a URL.

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

/// Carries the token of the widget.
pub const HEADER: &str = "usher-challenge";

/// Tokens of Turnstile have at most 2,048 characters, those of hCaptcha some more.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
const MAX_RESPONSE_BYTES: usize = 16 * 1024;
/// Further verifications wait here instead of at the provider.
const MAX_CONCURRENT_VERIFICATIONS: usize = 256;

#[derive(Debug, Clone)]
pub struct ChallengeSettings {
    /// `https://…/siteverify`.
    pub url: Uri,
    /// Identifies this service to the provider.
    pub secret: SecretString,
    /// For one verification, including the wait for [`MAX_CONCURRENT_VERIFICATIONS`].
    pub timeout: Duration,
    /// Whether joins are accepted while the provider does not answer.
    pub fail_open: bool,
    /// The widget of the built-in waiting page. `None`: other pages show it.
    pub widget: Option<ChallengeWidget>,
}

/// The widget that the built-in waiting page shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChallengeWidget {
    pub provider: ChallengeProvider,
    /// Identifies the site to the provider. Public.
    pub site_key: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChallengeProvider {
    Turnstile,
    HCaptcha,
}

impl ChallengeProvider {
    /// The name in settings and in `web/challenge.js`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Turnstile => "turnstile",
            Self::HCaptcha => "hcaptcha",
        }
    }

    /// The script of the widget.
    pub fn script_url(self) -> &'static str {
        match self {
            Self::Turnstile => {
                "https://challenges.cloudflare.com/turnstile/v0/api.js?render=explicit"
            }
            Self::HCaptcha => "https://js.hcaptcha.com/1/api.js?render=explicit",
        }
    }

    /// What the widget loads, as sources of a content security policy.
    pub fn content_sources(self) -> &'static str {
        match self {
            Self::Turnstile => "https://challenges.cloudflare.com",
            Self::HCaptcha => "https://hcaptcha.com https://*.hcaptcha.com",
        }
    }
}

impl std::str::FromStr for ChallengeWidget {
    type Err = ();

    /// `turnstile:SITE_KEY` or `hcaptcha:SITE_KEY`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (provider, site_key) = text.split_once(':').ok_or(())?;
        let provider = [ChallengeProvider::Turnstile, ChallengeProvider::HCaptcha]
            .into_iter()
            .find(|known| known.as_str() == provider)
            .ok_or(())?;
        let is_key = (1..=100).contains(&site_key.len())
            && site_key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        is_key.then(|| Self { provider, site_key: site_key.to_owned() }).ok_or(())
    }
}

pub struct ChallengeVerifier {
    settings: ChallengeSettings,
    trusted_proxies: u8,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    permits: Semaphore,
}

#[derive(Deserialize)]
struct ChallengeVerdict {
    success: bool,
}

/// The request passed the challenge, or needs none. Extract it after the user, so that rate limits
/// apply first.
#[derive(Debug, Clone, Copy)]
pub struct ChallengePassed;

impl ChallengeVerifier {
    /// # Errors
    /// When TLS can't be set up.
    pub fn new(settings: ChallengeSettings, trusted_proxies: u8) -> Result<Self, tls::Error> {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::client_config(None)?)
            .https_or_http()
            .enable_http1();
        let client = Client::builder(TokioExecutor::new()).build(connector.build());
        Ok(Self {
            settings,
            trusted_proxies,
            client,
            permits: Semaphore::new(MAX_CONCURRENT_VERIFICATIONS),
        })
    }

    /// Whether the token is valid. `None` when the provider does not answer.
    async fn verify(&self, token: &str, address: Option<String>) -> Option<bool> {
        let verification = async {
            let _permit = self.permits.acquire().await.ok()?;
            let response = self
                .client
                .request(self.verification_request(token, address)?)
                .await
                .map_err(|error| error.to_string());
            let response = response
                .inspect_err(|error| tracing::warn!(error, "the challenge provider failed"))
                .ok()?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES)
                .collect()
                .await
                .ok()?
                .to_bytes();
            let verdict = serde_json::from_slice::<ChallengeVerdict>(&body).ok();
            if verdict.is_none() {
                tracing::warn!(%status, "the response of the challenge provider is invalid");
            }
            verdict.map(|verdict| verdict.success)
        };
        let late = |_| tracing::warn!("the challenge provider does not answer in time");
        tokio::time::timeout(self.settings.timeout, verification).await.map_err(late).ok()?
    }

    fn verification_request(
        &self,
        token: &str,
        address: Option<String>,
    ) -> Option<Request<Full<Bytes>>> {
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

    /// Refuses a request without a valid token.
    async fn check(&self, parts: &Parts) -> Result<(), ProblemDetails> {
        let count = |outcome| Metric::ChallengesTotal.counter(&[("outcome", outcome)]).increment(1);
        let token = parts.headers.get(HEADER).and_then(|token| token.to_str().ok());
        let Some(token) = token.filter(|token| !token.is_empty() && token.len() <= MAX_TOKEN_BYTES)
        else {
            count("missing");
            return Err(ProblemDetails::forbidden(
                "Joining requires the header Usher-Challenge with the token of the widget.",
            ));
        };
        // Absent without a connection, as in tests that call a router directly.
        let address = parts.extensions.get().map(|PeerAddress(peer)| {
            client_address(*peer, &parts.headers, self.trusted_proxies).to_string()
        });
        match self.verify(token, address).await {
            Some(true) => count("passed"),
            Some(false) => {
                count("failed");
                return Err(ProblemDetails::forbidden(
                    "The challenge failed, or its token was already used.",
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
        let identities = parts.extensions.get::<Arc<IdentityResolver>>();
        let caller =
            identities.map(|identities| identities.identify(&parts.headers)).transpose()?.flatten();
        if !caller.is_some_and(|caller| caller.by_service) {
            challenge.check(parts).await?;
        }
        Ok(Self)
    }
}
