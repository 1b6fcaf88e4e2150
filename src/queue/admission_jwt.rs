//! Passes: short-lived JWTs (RFC 7519, EdDSA of RFC 8037) with which other backends verify that a
//! user is active, without a call to this service.
//!
//! `aud` is the queue, `sub` the user, `exp` the end of the active slot. The keys are stored in
//! MySQL (`pass_keys`), so all instances sign with the same key, and are published as a JWK set.
//! Clients may cache the set for one minute, so a new key is published for two minutes before it
//! signs. A retired key stays published for two days, longer than any active slot lasts.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;
use sqlx::{MySqlConnection, MySqlPool};

use super::sql::{self, StoredPassKey};
use super::{Claims, Error, QueueService, Ticket};
use crate::ids::{QueueId, UserId};
use crate::mysql::{self, definitions};

/// A signature takes about 20 µs and active users poll often, so recent passes are cached: at least
/// this many and at most twice as many.
const MIN_CACHED_PASSES: usize = 4_096;

/// The published keys and the recent passes.
#[derive(Default)]
pub(super) struct AdmissionJwtKeys {
    /// Newest first.
    keys: Vec<(String, Ed25519KeyPair)>,
    /// The index of the key that signs.
    signing: usize,
    recent: Mutex<RecentPasses>,
}

/// A cache of passes by user, queue and expiry in seconds. A pass that is not used while
/// [`MIN_CACHED_PASSES`] others are added is removed.
#[derive(Default)]
struct RecentPasses {
    newer: HashMap<(UserId, QueueId, i64), String>,
    older: HashMap<(UserId, QueueId, i64), String>,
}

impl RecentPasses {
    fn get(&self, key: &(UserId, QueueId, i64)) -> Option<String> {
        self.newer.get(key).or_else(|| self.older.get(key)).cloned()
    }

    fn insert(&mut self, key: (UserId, QueueId, i64), pass: String) {
        if self.newer.len() >= MIN_CACHED_PASSES {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(key, pass);
    }
}

/// Generates a key and stores it.
pub(super) async fn add_key(connection: &mut MySqlConnection) -> Result<(), mysql::Error> {
    match generate_key() {
        Some(key) => sql::add_pass_key(connection, key).await,
        None => Ok(()),
    }
}

fn generate_key() -> Option<StoredPassKey> {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).ok()?;
    let kid = format!("{:016x}", rand::random::<u64>());
    Some(StoredPassKey { kid, pkcs8: pkcs8.as_ref().to_vec(), may_sign: false })
}

impl AdmissionJwtKeys {
    /// Takes the stored keys, newest first. The newest one that may sign is used, or the oldest
    /// one while none may sign yet.
    pub(super) fn new(stored: &[StoredPassKey]) -> Self {
        let pair = |key: &StoredPassKey| {
            Some((key.kid.clone(), Ed25519KeyPair::from_pkcs8(&key.pkcs8).ok()?))
        };
        let signing =
            stored.iter().position(|key| key.may_sign).unwrap_or(stored.len().saturating_sub(1));
        Self { keys: stored.iter().filter_map(pair).collect(), signing, recent: Mutex::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The pass of a user who is active until `until`. Times are in milliseconds since 1970.
    pub(super) fn pass(&self, claims: &Claims, now: i64, until: i64) -> Option<String> {
        let key = (claims.user, claims.queue.clone(), until / 1_000);
        let recent = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pass) = recent().get(&key) {
            return Some(pass);
        }
        let pass = self.sign(claims, now, until)?;
        recent().insert(key, pass.clone());
        Some(pass)
    }

    fn sign(&self, claims: &Claims, now: i64, until: i64) -> Option<String> {
        let (kid, key) = self.keys.get(self.signing)?;
        let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": kid});
        let body = json!({
            "aud": claims.queue,
            "sub": claims.user_name(),
            "iat": now / 1_000,
            "exp": until / 1_000,
        });
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
            json!({
                "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": x
            })
        };
        json!({"keys": self.keys.iter().map(jwk).collect::<Vec<_>>()})
    }
}

impl QueueService {
    /// The pass of an active user: a JWT that other backends can verify. `until` in milliseconds
    /// since 1970.
    pub(super) fn pass(&self, ticket: &Ticket, until: i64) -> Option<String> {
        self.pass_keys.load().pass(&ticket.claims, ticket.queue_state.now, until)
    }

    pub(super) fn jwks(&self) -> serde_json::Value {
        self.pass_keys.load().jwks()
    }

    /// Creates a new signing key for passes. It is published immediately and signs from two
    /// minutes later. Older keys stay published for two days.
    pub async fn rotate_pass_keys(mysql: &MySqlPool) -> Result<(), Error> {
        let (mut tx, _) = definitions::begin_change(mysql).await?;
        add_key(&mut tx).await?;
        tx.commit().await.map_err(mysql::Error::from)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    fn claims() -> Claims {
        let user = uuid::Uuid::from_u128(7).into();
        let queue = "demo".parse().unwrap();
        Claims { queue, user, user_text: None, is_guest: false, score: 1 }
    }

    /// Verifies a pass like another backend: finds the key in the set by `kid` and checks the
    /// signature over the first two parts.
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
    fn pass_is_verified_with_the_published_key_alone() {
        let keys = AdmissionJwtKeys::new(&[generate_key().unwrap()]);
        let body = verified(&keys, &keys.pass(&claims(), 5_000, 65_999).unwrap());
        assert_eq!(body, json!({"aud": "demo", "sub": claims().user_name(), "iat": 5, "exp": 65}));
    }

    #[test]
    fn pass_is_signed_once_per_active_slot() {
        let keys = AdmissionJwtKeys::new(&[generate_key().unwrap()]);
        let pass = |user: u128, until| {
            let claims = Claims { user: uuid::Uuid::from_u128(user).into(), ..claims() };
            keys.pass(&claims, until - 1_000, until).unwrap()
        };
        let first = pass(7, 65_000);
        assert_eq!(verified(&keys, &pass(8, 65_000))["sub"], json!(uuid::Uuid::from_u128(8)));
        assert_eq!(verified(&keys, &pass(7, 66_000))["exp"], 66);
        assert_eq!(pass(7, 65_999), first);
        (0..=2 * MIN_CACHED_PASSES as u128).for_each(|user| drop(pass(100 + user, 65_000)));
        let recent = keys.recent.lock().unwrap();
        assert!(recent.newer.len() + recent.older.len() <= 2 * MIN_CACHED_PASSES);
    }

    #[test]
    fn new_key_is_published_before_it_signs() {
        let (new, old) =
            (generate_key().unwrap(), StoredPassKey { may_sign: true, ..generate_key().unwrap() });
        let kid = old.kid.clone();
        let keys = AdmissionJwtKeys::new(&[new, old]);
        assert_eq!(keys.jwks()["keys"].as_array().unwrap().len(), 2);
        let pass = keys.pass(&claims(), 0, 1_000).unwrap();
        let header = BASE64.decode(pass.split('.').next().unwrap()).unwrap();
        assert!(String::from_utf8(header).unwrap().contains(&kid));
    }
}
