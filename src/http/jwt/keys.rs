//! The keys that verify tokens.

use std::io;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use secrecy::ExposeSecret;
use serde::Deserialize;

use super::settings::JwtKeySource;

/// 2,048 bits (RFC 7518, 3.3).
const MIN_RSA_MODULUS_BYTES: usize = 256;

/// Why keys are not usable. The messages do not contain key material.
#[derive(Debug, thiserror::Error)]
pub enum InvalidJwtKeys {
    #[error("can't be read: {0}")]
    Io(#[from] io::Error),
    #[error("is not a JWKS (RFC 7517): {0}")]
    Json(#[from] serde_json::Error),
    #[error("has no key for signatures")]
    NoSignatureKey,
    /// The index of the key, and the reason.
    #[error("key {0}: {1}")]
    Key(usize, &'static str),
}

/// One key and its only algorithm.
#[derive(Clone)]
pub struct JwtKey {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// All keys of a source.
pub struct JwtKeySet {
    all: Vec<JwtKey>,
    /// The text of the JWKS, to detect changes.
    text: Vec<u8>,
}

#[derive(Deserialize)]
struct JwksDocument {
    keys: Vec<Jwk>,
}

impl JwtKey {
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub fn key(&self) -> &DecodingKey {
        &self.key
    }
}

impl JwtKeySet {
    /// Loads the keys of a source. A secret becomes one key without `kid`.
    ///
    /// # Errors
    /// When the file can't be read or is invalid.
    pub fn load(source: &JwtKeySource) -> Result<Self, InvalidJwtKeys> {
        match source {
            JwtKeySource::File(path) => Self::parse(&std::fs::read(path)?),
            JwtKeySource::Secret(secret) => {
                let key = DecodingKey::from_secret(secret.expose_secret().as_bytes());
                Ok(Self {
                    all: vec![JwtKey { kid: None, algorithm: Algorithm::HS256, key }],
                    text: Vec::new(),
                })
            }
        }
    }

    /// Parses a JWKS.
    ///
    /// # Errors
    /// When the text is not a JWKS, or one of its signature keys is not usable.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidJwtKeys> {
        let set: JwksDocument = serde_json::from_slice(text)?;
        let all: Vec<JwtKey> = (set.keys.iter().enumerate())
            .filter(|(_, jwk)| !matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)))
            .map(|(n, jwk)| parse_key(jwk).map_err(|reason| InvalidJwtKeys::Key(n, reason)))
            .collect::<Result<_, _>>()?;
        if all.is_empty() {
            return Err(InvalidJwtKeys::NoSignatureKey);
        }
        if let Some(n) =
            (1..all.len()).find(|&n| all[..n].iter().any(|other| other.kid == all[n].kid))
        {
            return Err(InvalidJwtKeys::Key(n, "its `kid` is missing or not unique"));
        }
        Ok(Self { all, text: text.to_vec() })
    }

    /// The key with this `kid`. A token without `kid` fits a set of one key. A secret fits every
    /// `kid`.
    pub fn find(&self, kid: Option<&str>) -> Option<&JwtKey> {
        match (self.all.as_slice(), kid) {
            ([only], None) => Some(only),
            ([only], Some(_)) if only.kid.is_none() => Some(only),
            (all, Some(kid)) => all.iter().find(|key| key.kid.as_deref() == Some(kid)),
            _ => None,
        }
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    pub fn same_as(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

fn parse_key(jwk: &Jwk) -> Result<JwtKey, &'static str> {
    let (algorithm, expected_alg) = match &jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::OctetKey(_) => {
            return Err("is a secret, which a JWKS file must not contain");
        }
        _ => return Err("must be Ed25519 (EdDSA), P-256 (ES256) or RSA (RS256)"),
    };
    if jwk.common.key_algorithm.as_ref().is_some_and(|alg| *alg != expected_alg) {
        return Err("its `alg` does not match its type (EdDSA, ES256 or RS256)");
    }
    let key = DecodingKey::from_jwk(jwk).map_err(|_| "its values are not base64url")?;
    let has_valid_size = match key.kind() {
        jsonwebtoken::DecodingKeyKind::SecretOrDer(bytes) => {
            bytes.len() == if algorithm == Algorithm::EdDSA { 32 } else { 65 }
        }
        jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. } => {
            n.len() >= MIN_RSA_MODULUS_BYTES
        }
    };
    if !has_valid_size {
        return Err("has the wrong size; RSA needs 2,048 bits or more");
    }
    Ok(JwtKey { kid: jwk.common.key_id.clone(), algorithm, key })
}
