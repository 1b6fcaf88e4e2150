//! Users known by a JWT (RFC 7519) of somebody else's: signed by one shared secret (HS256), or by the keys of a JWKS file (RFC 7517).
//!
//! A key has one algorithm, told by the key and never by the token, so a token can't choose how it is checked (RFC 8725, 3.1). Of the claims,
//! `sub` (a UUID, the user) and `exp` must be there, `nbf` holds when it is, `aud` and `iss` must be as set. The issuer's clock and ours may differ
//! by [`LEEWAY_SECONDS`]. A header with `crit` is refused, for we understand no extension (RFC 7515, 4.1.11).

mod keys;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::{Validation, decode, decode_header};
use secrecy::SecretString;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::ids::UserId;
pub use keys::{InvalidJwtKeys, JwtKeySet};

/// How far the issuer's clock may be from ours, in seconds.
pub const LEEWAY_SECONDS: u64 = 30;
/// How often the JWKS file is looked at.
const REREAD: Duration = Duration::from_secs(2);
/// The longest token that is looked at, in bytes: a header line of a sane size.
const LONGEST: usize = 8 << 10;

/// Where the keys come from.
#[derive(Debug, Clone)]
pub enum JwtKeySource {
    /// A secret that the issuer has too; HS256.
    Secret(SecretString),
    /// A JWKS file, read again when it changes.
    File(PathBuf),
}

/// How tokens are checked.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    /// The keys.
    pub source: JwtKeySource,
    /// What `aud` must contain; `None` doesn't look at it.
    pub audience: Option<String>,
    /// What `iss` must be; `None` doesn't look at it.
    pub issuer: Option<String>,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwtRejection {
    /// Not a JWT, or signed by no key of ours.
    #[error("The token is not one of an issuer that is trusted here.")]
    Unknown,
    /// `exp` has passed.
    #[error("The token has expired.")]
    Expired,
    /// `nbf` is ahead.
    #[error("The token is not valid yet.")]
    TooEarly,
    /// For another service, or of another issuer.
    #[error("The token is meant for another service or comes from another issuer.")]
    Foreign,
    /// A claim is missing or of the wrong form.
    #[error("The token must have `exp`, and a UUID as `sub`.")]
    Incomplete,
}

/// Checks tokens. The keys may change while it does.
pub struct JwtVerifier {
    settings: JwtSettings,
    keys: ArcSwap<JwtKeySet>,
}

impl std::fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct JwtClaims {
    sub: UserId,
}

impl JwtVerifier {
    /// Reads the keys.
    ///
    /// # Errors
    /// When the file can't be read, or is not a JWKS of keys that can be used.
    pub fn new(settings: JwtSettings) -> Result<Self, InvalidJwtKeys> {
        verify::install();
        let keys = ArcSwap::from_pointee(JwtKeySet::read(&settings.source)?);
        Ok(Self { settings, keys })
    }

    /// The user of a token.
    ///
    /// # Errors
    /// [`JwtRejection`], which tells nothing of the keys.
    pub fn user(&self, token: &str) -> Result<UserId, JwtRejection> {
        if token.len() > LONGEST {
            return Err(JwtRejection::Unknown);
        }
        let header = decode_header(token).map_err(|_| JwtRejection::Unknown)?;
        if header.crit.is_some() {
            return Err(JwtRejection::Unknown);
        }
        let keys = self.keys.load();
        let key = keys.named(header.kid.as_deref()).ok_or(JwtRejection::Unknown)?;
        let token = decode::<JwtClaims>(token, key.key(), &self.validation(key.algorithm()));
        token.map(|token| token.claims.sub).map_err(|error| refused(&error))
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

    /// Reads the file again whenever it has changed, until `stop` is cancelled. One that can't be used leaves the keys as they are and is an
    /// error in the log, once: a slip of an editor must not lock everybody out.
    pub async fn reread(self: Arc<Self>, stop: CancellationToken) {
        let JwtKeySource::File(path) = &self.settings.source else { return };
        let mut refused = None;
        let mut ticks = tokio::time::interval(REREAD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let read = tokio::fs::read(path)
                .await
                .map_err(InvalidJwtKeys::from)
                .and_then(|text| JwtKeySet::of_set(&text));
            match read {
                Ok(keys) if keys.same_as(&self.keys.load()) => refused = None,
                Ok(keys) => {
                    tracing::info!(path = %path.display(), keys = keys.count(), "the JWKS file has changed");
                    self.keys.store(Arc::new(keys));
                    refused = None;
                }
                Err(error) => {
                    let error = error.to_string();
                    if refused.as_ref() != Some(&error) {
                        tracing::error!(path = %path.display(), error, "the JWKS file can't be used; the keys stay as they were");
                    }
                    refused = Some(error);
                }
            }
        }
    }
}

fn refused(error: &jsonwebtoken::errors::Error) -> JwtRejection {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::ExpiredSignature => JwtRejection::Expired,
        ErrorKind::ImmatureSignature => JwtRejection::TooEarly,
        ErrorKind::InvalidAudience | ErrorKind::InvalidIssuer => JwtRejection::Foreign,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" || claim == "iss" => {
            JwtRejection::Foreign
        }
        ErrorKind::MissingRequiredClaim(_)
        | ErrorKind::InvalidClaimFormat(_)
        | ErrorKind::Json(_) => JwtRejection::Incomplete,
        _ => JwtRejection::Unknown,
    }
}

#[cfg(test)]
mod tests;
