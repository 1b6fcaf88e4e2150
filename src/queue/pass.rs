//! Passes: short-lived JWTs (RFC 7519, EdDSA of RFC 8037) by which any other backend knows an active user without asking Usher.
//!
//! `aud` is the queue, `sub` the user, `exp` the end of the slot. The keys are in MySQL (`pass_keys`), so all instances sign alike, and published as a JWK set. A new
//! key is published for two minutes before it signs, longer than the minute for which the set may be kept; a retired one stays published
//! for two days, longer than any slot lasts.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::Claims;
use crate::ids::{QueueId, UserId};

/// Passes remembered, at most twice as many. A signature takes some 20 µs, and who is active asks again and again.
const REMEMBERED: usize = 4_096;

/// A key as MySQL keeps it.
pub(super) struct StoredPassKey {
    pub(super) kid: String,
    /// PKCS #8.
    pub(super) pkcs8: Vec<u8>,
    /// Whether it has been published long enough to sign.
    pub(super) ripe: bool,
}

/// The keys of this moment.
#[derive(Default)]
pub(super) struct AdmissionJwtKeys {
    /// Newest first.
    keys: Vec<(String, Ed25519KeyPair)>,
    signing: usize,
    recent: Mutex<RecentPasses>,
}

/// The passes signed last, by user, queue and second of their end. What was not asked for while as many others were is forgotten.
#[derive(Default)]
struct RecentPasses {
    newer: HashMap<(UserId, QueueId, i64), String>,
    older: HashMap<(UserId, QueueId, i64), String>,
}

impl RecentPasses {
    fn get(&self, whose: &(UserId, QueueId, i64)) -> Option<String> {
        self.newer.get(whose).or_else(|| self.older.get(whose)).cloned()
    }

    fn keep(&mut self, whose: (UserId, QueueId, i64), pass: String) {
        if self.newer.len() >= REMEMBERED {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(whose, pass);
    }
}

/// Makes a key.
pub(super) fn make() -> Option<StoredPassKey> {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).ok()?;
    let kid = format!("{:016x}", rand::random::<u64>());
    Some(StoredPassKey { kid, pkcs8: pkcs8.as_ref().to_vec(), ripe: false })
}

impl AdmissionJwtKeys {
    /// From the stored keys, newest first. The newest that is ripe signs; before any is, the oldest.
    pub(super) fn new(stored: &[StoredPassKey]) -> Self {
        let pair = |key: &StoredPassKey| {
            Some((key.kid.clone(), Ed25519KeyPair::from_pkcs8(&key.pkcs8).ok()?))
        };
        let signing =
            stored.iter().position(|key| key.ripe).unwrap_or(stored.len().saturating_sub(1));
        Self { keys: stored.iter().filter_map(pair).collect(), signing, recent: Mutex::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The pass of an active user until a moment in milliseconds since 1970; `now` likewise.
    pub(super) fn pass(&self, claims: &Claims, now: i64, until: i64) -> Option<String> {
        let whose = (claims.user, claims.queue.clone(), until / 1_000);
        let recent = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pass) = recent().get(&whose) {
            return Some(pass);
        }
        let pass = self.sign(claims, now, until)?;
        recent().keep(whose, pass.clone());
        Some(pass)
    }

    fn sign(&self, claims: &Claims, now: i64, until: i64) -> Option<String> {
        let (kid, key) = self.keys.get(self.signing)?;
        let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": kid});
        let body = json!({"aud": claims.queue, "sub": claims.user, "iat": now / 1_000, "exp": until / 1_000});
        let mut token =
            format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(body.to_string()));
        let signature = key.sign(token.as_bytes());
        token.push('.');
        BASE64.encode_string(signature.as_ref(), &mut token);
        Some(token)
    }

    /// The JWK set (RFC 7517).
    pub(super) fn jwks(&self) -> serde_json::Value {
        let jwk = |(kid, key): &(String, Ed25519KeyPair)| {
            let x = BASE64.encode(key.public_key());
            json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": x})
        };
        json!({"keys": self.keys.iter().map(jwk).collect::<Vec<_>>()})
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    fn claims() -> Claims {
        Claims { queue: "demo".parse().unwrap(), user: uuid::Uuid::from_u128(7).into(), score: 1 }
    }

    /// As another backend would: key by kid from the set, signature over the first two parts.
    fn verified(keys: &AdmissionJwtKeys, pass: &str) -> serde_json::Value {
        let (signed, signature) = pass.rsplit_once('.').unwrap();
        let (header, body) = signed.split_once('.').unwrap();
        let json = |part: &str| -> serde_json::Value {
            serde_json::from_slice(&BASE64.decode(part).unwrap()).unwrap()
        };
        let set = keys.jwks();
        let key = set["keys"]
            .as_array()
            .unwrap()
            .iter()
            .find(|key| key["kid"] == json(header)["kid"])
            .unwrap();
        let public =
            UnparsedPublicKey::new(&ED25519, BASE64.decode(key["x"].as_str().unwrap()).unwrap());
        public.verify(signed.as_bytes(), &BASE64.decode(signature).unwrap()).unwrap();
        json(body)
    }

    #[test]
    fn a_pass_is_checked_with_the_published_key_alone() {
        let keys = AdmissionJwtKeys::new(&[make().unwrap()]);
        let body = verified(&keys, &keys.pass(&claims(), 5_000, 65_999).unwrap());
        assert_eq!(body, json!({"aud": "demo", "sub": claims().user, "iat": 5, "exp": 65}));
    }

    #[test]
    fn a_pass_is_signed_once_for_each_slot() {
        let keys = AdmissionJwtKeys::new(&[make().unwrap()]);
        let pass = |user: u128, until| {
            let claims = Claims { user: uuid::Uuid::from_u128(user).into(), ..claims() };
            keys.pass(&claims, until - 1_000, until).unwrap()
        };
        let first = pass(7, 65_000);
        assert_eq!(verified(&keys, &pass(8, 65_000))["sub"], json!(uuid::Uuid::from_u128(8)));
        assert_eq!(verified(&keys, &pass(7, 66_000))["exp"], 66);
        assert_eq!(pass(7, 65_999), first);
        (0..=2 * REMEMBERED as u128).for_each(|user| drop(pass(100 + user, 65_000)));
        let recent = keys.recent.lock().unwrap();
        assert!(recent.newer.len() + recent.older.len() <= 2 * REMEMBERED, "as many as said");
    }

    #[test]
    fn a_new_key_is_published_before_it_signs() {
        let (new, old) = (make().unwrap(), StoredPassKey { ripe: true, ..make().unwrap() });
        let kid = old.kid.clone();
        let keys = AdmissionJwtKeys::new(&[new, old]);
        assert_eq!(keys.jwks()["keys"].as_array().unwrap().len(), 2);
        let pass = keys.pass(&claims(), 0, 1_000).unwrap();
        let header = BASE64.decode(pass.split('.').next().unwrap()).unwrap();
        assert!(String::from_utf8(header).unwrap().contains(&kid));
    }
}
