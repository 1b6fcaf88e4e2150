//! Verifies JWTs (RFC 7519) of an external issuer, signed with a shared secret (HS256) or with a
//! key of a JWKS file (RFC 7517).
//!
//! The key determines the algorithm, never the token (RFC 8725, 3.1). `sub` (a UUID, the user) and
//! `exp` are required, `nbf` is checked if present, and `aud` and `iss` must match the settings.
//! The clocks of the issuer and of this machine may differ by [`LEEWAY_SECONDS`]. Tokens with a
//! `crit` header are refused, because no extension is supported (RFC 7515, 4.1.11).

mod keys;
mod settings;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::{Validation, decode, decode_header};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::ids::UserName;
pub use keys::{InvalidJwtKeys, JwtKeySet};
pub use settings::{JwtKeySource, JwtSettings};

/// The allowed difference between the clocks of the issuer and of this machine.
pub const LEEWAY_SECONDS: u64 = 30;
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);
const MAX_TOKEN_BYTES: usize = 8 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwtRejection {
    /// Not a JWT, or not signed with a known key.
    #[error("The JWT is malformed or not signed by a trusted issuer.")]
    Untrusted,
    #[error("The JWT has expired.")]
    Expired,
    /// `nbf` is in the future.
    #[error("The JWT is not valid yet.")]
    NotYetValid,
    /// `aud` or `iss` does not match the settings.
    #[error("The JWT has a different audience or issuer.")]
    WrongAudienceOrIssuer,
    /// A required claim is missing or invalid.
    #[error("The JWT must have `exp`, and a `sub` of 1 to 128 visible ASCII characters.")]
    InvalidClaims,
}

/// Verifies tokens. Its keys may change at any time.
pub struct JwtVerifier {
    settings: JwtSettings,
    keys: ArcSwap<JwtKeySet>,
}

impl std::fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JwtVerifier").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct JwtClaims {
    sub: UserName,
}

impl JwtVerifier {
    /// Loads the keys.
    ///
    /// # Errors
    /// When the file can't be read, or is not a JWKS with usable keys.
    pub fn new(settings: JwtSettings) -> Result<Self, InvalidJwtKeys> {
        verify::install_provider();
        let keys = ArcSwap::from_pointee(JwtKeySet::load(&settings.source)?);
        Ok(Self { settings, keys })
    }

    /// The user of a valid token.
    ///
    /// # Errors
    /// [`JwtRejection`], which reveals nothing about the keys.
    pub fn user(&self, token: &str) -> Result<UserName, JwtRejection> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(JwtRejection::Untrusted);
        }
        let header = decode_header(token).map_err(|_| JwtRejection::Untrusted)?;
        if header.crit.is_some() {
            return Err(JwtRejection::Untrusted);
        }
        let keys = self.keys.load();
        let key = keys.find(header.kid.as_deref()).ok_or(JwtRejection::Untrusted)?;
        let token = decode::<JwtClaims>(token, key.key(), &self.validation(key.algorithm()));
        token.map(|token| token.claims.sub).map_err(|error| rejection(&error))
    }

    fn validation(&self, algorithm: jsonwebtoken::Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        let mut required = vec!["exp", "sub"];
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.validate_aud = self.settings.audience.is_some();
        if let Some(audience) = &self.settings.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        if let Some(issuer) = &self.settings.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    /// Reloads the JWKS file when it changes, until `stop` is cancelled. An invalid file keeps the
    /// current keys, because a mistake in the file must not lock out all users. It is logged once.
    pub async fn reload(self: Arc<Self>, stop: CancellationToken) {
        let JwtKeySource::File(path) = &self.settings.source else { return };
        let mut logged = None;
        let mut ticks = tokio::time::interval(RELOAD_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let read = tokio::fs::read(path)
                .await
                .map_err(InvalidJwtKeys::from)
                .and_then(|text| JwtKeySet::parse(&text));
            match read {
                Ok(keys) if keys.same_as(&self.keys.load()) => logged = None,
                Ok(keys) => {
                    let (path, count) = (path.display(), keys.count());
                    tracing::info!(%path, keys = count, "reloaded the JWKS file");
                    self.keys.store(Arc::new(keys));
                    logged = None;
                }
                Err(error) => {
                    let error = error.to_string();
                    if logged.as_ref() != Some(&error) {
                        let path = path.display();
                        tracing::error!(%path, error, "the JWKS file is invalid, keeping the keys");
                    }
                    logged = Some(error);
                }
            }
        }
    }
}

fn rejection(error: &jsonwebtoken::errors::Error) -> JwtRejection {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::ExpiredSignature => JwtRejection::Expired,
        ErrorKind::ImmatureSignature => JwtRejection::NotYetValid,
        ErrorKind::InvalidAudience | ErrorKind::InvalidIssuer => {
            JwtRejection::WrongAudienceOrIssuer
        }
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" || claim == "iss" => {
            JwtRejection::WrongAudienceOrIssuer
        }
        ErrorKind::MissingRequiredClaim(_)
        | ErrorKind::InvalidClaimFormat(_)
        | ErrorKind::Json(_) => JwtRejection::InvalidClaims,
        _ => JwtRejection::Untrusted,
    }
}

#[cfg(test)]
mod tests;
