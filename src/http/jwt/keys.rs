//! The keys that tokens are checked by.

use std::io;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use secrecy::ExposeSecret;
use serde::Deserialize;

use super::JwtKeySource;

/// The shortest modulus of an RSA key, in bytes (2,048 bits: RFC 7518, 3.3).
const SHORTEST_MODULUS: usize = 256;

/// Why keys can't be used. Says nothing of a key's content.
#[derive(Debug, thiserror::Error)]
pub enum InvalidJwtKeys {
    /// The file can't be read.
    #[error("can't be read: {0}")]
    Io(#[from] io::Error),
    /// It is not JSON of the right form.
    #[error("is not a JWKS (RFC 7517): {0}")]
    Json(#[from] serde_json::Error),
    /// It has no key for signatures.
    #[error("has no key for signatures")]
    Empty,
    /// One of its keys can't be used.
    #[error("key {0}: {1}")]
    Key(usize, &'static str),
}

/// One key, with the one algorithm that it is for.
#[derive(Clone)]
pub struct JwtKey {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// All keys of a source.
pub struct JwtKeySet {
    all: Vec<JwtKey>,
    /// What they were read from, to see a change.
    text: Vec<u8>,
}

#[derive(Deserialize)]
struct JwksDocument {
    keys: Vec<Jwk>,
}

impl JwtKey {
    /// The algorithm of this key's signatures.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What verifies them.
    pub fn key(&self) -> &DecodingKey {
        &self.key
    }
}

impl JwtKeySet {
    /// From a source; a secret is one key without a name.
    ///
    /// # Errors
    /// When the file can't be read or used.
    pub fn read(source: &JwtKeySource) -> Result<Self, InvalidJwtKeys> {
        match source {
            JwtKeySource::File(path) => Self::of_set(&std::fs::read(path)?),
            JwtKeySource::Secret(secret) => {
                let key = DecodingKey::from_secret(secret.expose_secret().as_bytes());
                Ok(Self {
                    all: vec![JwtKey { kid: None, algorithm: Algorithm::HS256, key }],
                    text: Vec::new(),
                })
            }
        }
    }

    /// From the text of a JWKS.
    ///
    /// # Errors
    /// When it is not one, or a key of it for signatures can't be used.
    pub fn of_set(text: &[u8]) -> Result<Self, InvalidJwtKeys> {
        let set: JwksDocument = serde_json::from_slice(text)?;
        let all: Vec<JwtKey> = (set.keys.iter().enumerate())
            .filter(|(_, jwk)| !matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)))
            .map(|(n, jwk)| key(jwk).map_err(|why| InvalidJwtKeys::Key(n, why)))
            .collect::<Result<_, _>>()?;
        if all.is_empty() {
            return Err(InvalidJwtKeys::Empty);
        }
        if let Some(n) =
            (1..all.len()).find(|&n| all[..n].iter().any(|other| other.kid == all[n].kid))
        {
            return Err(InvalidJwtKeys::Key(n, "its `kid` is another's too, or both have none"));
        }
        Ok(Self { all, text: text.to_vec() })
    }

    /// The key of this name. A token that names none is taken for the only key there is; a secret serves whatever the name.
    pub fn named(&self, kid: Option<&str>) -> Option<&JwtKey> {
        match (self.all.as_slice(), kid) {
            ([only], None) => Some(only),
            ([only], Some(_)) if only.kid.is_none() => Some(only),
            (all, Some(kid)) => all.iter().find(|key| key.kid.as_deref() == Some(kid)),
            _ => None,
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Whether they were read from the same text.
    pub fn same_as(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

fn key(jwk: &Jwk) -> Result<JwtKey, &'static str> {
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::OctetKey(_) => {
            return Err("a secret does not belong into a JWKS file");
        }
        _ => return Err("must be Ed25519 (EdDSA), P-256 (ES256) or RSA (RS256)"),
    };
    if jwk.common.key_algorithm.as_ref().is_some_and(|said| *said != named) {
        return Err("its `alg` must be EdDSA, ES256 or RS256, as its kind is");
    }
    let key = DecodingKey::from_jwk(jwk).map_err(|_| "its numbers are not base64url")?;
    let right_size = match key.kind() {
        jsonwebtoken::DecodingKeyKind::SecretOrDer(bytes) => {
            bytes.len() == if algorithm == Algorithm::EdDSA { 32 } else { 65 }
        }
        jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. } => n.len() >= SHORTEST_MODULUS,
    };
    if !right_size {
        return Err("is of the wrong size; RSA needs 2,048 bits or more");
    }
    Ok(JwtKey { kid: jwk.common.key_id.clone(), algorithm, key })
}
