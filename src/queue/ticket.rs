//! Queue tokens: signed strings that contain a user's place.
//!
//! The format is `kid.payload.mac`: the key id, the payload, and an HMAC-SHA256 over `kid.payload`.
//! Payload and MAC are in unpadded base64url. The payload has one byte for its kind, the 16 bytes of
//! the user's key, the score in 8 bytes, and the queue id. If the id of the user is not a UUID, a
//! NUL and that id follow.
//!
//! Tokens are not stored: the same claims always give the same token. Only Redis decides whether
//! the place of a token still exists.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::ids::{QueueId, UserId, UserName};

/// The kinds of payloads: a user whose id is a UUID, a guest, and a user with another id.
const UUID_PAYLOAD: u8 = 1;
const GUEST_PAYLOAD: u8 = 2;
const NAMED_PAYLOAD: u8 = 3;
/// 16 characters of the kid, 291 of the payload, 43 of the MAC, and two dots.
const MAX_TOKEN_LENGTH: usize = 352;

/// The content of a queue token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub queue: QueueId,
    pub user: UserId,
    /// The string of the user's id, if the key does not contain it.
    pub user_text: Option<Arc<str>>,
    /// Whether the user is a guest, who can own nothing. The id of a guest is a UUID.
    pub is_guest: bool,
    /// The place in the queue, below 2^53. A lower score is admitted earlier.
    pub score: u64,
}

impl Claims {
    pub fn user_name(&self) -> UserName {
        UserName::recorded(self.user, self.user_text.clone())
    }
}

/// The keys of tokens, newest first. The newest one signs. All of them verify.
pub struct TokenSigner(Vec<(String, Hmac<Sha256>)>);

impl TokenSigner {
    /// Takes pairs of key id and secret, newest first.
    pub fn new(keys: &[(String, SecretString)]) -> Self {
        let keyed = |(kid, secret): &(String, SecretString)| {
            // This never fails: HMAC accepts a key of any length.
            let mac = Hmac::new_from_slice(secret.expose_secret().as_bytes()).ok()?;
            Some((kid.clone(), mac))
        };
        Self(keys.iter().filter_map(keyed).collect())
    }

    pub fn sign(&self, claims: &Claims) -> String {
        let text = claims.user_text.as_deref();
        let text_length = text.map_or(0, |text| 1 + text.len());
        let mut payload = Vec::with_capacity(25 + claims.queue.as_str().len() + text_length);
        payload.push(match text {
            Some(_) => NAMED_PAYLOAD,
            None if claims.is_guest => GUEST_PAYLOAD,
            None => UUID_PAYLOAD,
        });
        payload.extend_from_slice(claims.user.as_bytes());
        payload.extend_from_slice(&claims.score.to_be_bytes());
        payload.extend_from_slice(claims.queue.as_str().as_bytes());
        if let Some(text) = text {
            payload.push(0);
            payload.extend_from_slice(text.as_bytes());
        }
        let (kid, mac) = &self.0[0];
        let mut token = format!("{kid}.{}", BASE64.encode(payload));
        let mut mac = mac.clone();
        mac.update(token.as_bytes());
        token.push('.');
        BASE64.encode_string(mac.finalize().into_bytes(), &mut token);
        token
    }

    /// Whether the newest key signed this valid token. Then [`TokenSigner::sign`] returns the same
    /// token for its claims.
    pub fn is_current(&self, token: &str) -> bool {
        token.split_once('.').is_some_and(|(kid, _)| kid == self.0[0].0)
    }

    /// The claims of a token. `None` when it is malformed or none of the keys signed it. Compares
    /// in constant time.
    pub fn verify(&self, token: &str) -> Option<Claims> {
        if token.len() > MAX_TOKEN_LENGTH {
            return None;
        }
        let (signed, mac) = token.rsplit_once('.')?;
        let (kid, payload) = signed.split_once('.')?;
        let (_, key) = self.0.iter().find(|(known, _)| known == kid)?;
        let mut expected = key.clone();
        expected.update(signed.as_bytes());
        expected.verify_slice(&BASE64.decode(mac).ok()?).ok()?;
        decode(&BASE64.decode(payload).ok()?)
    }
}

fn decode(payload: &[u8]) -> Option<Claims> {
    let (kind, rest) = payload.split_first()?;
    let (user, rest) = rest.split_at_checked(16)?;
    let (score, rest) = rest.split_first_chunk::<8>()?;
    let rest = std::str::from_utf8(rest).ok()?;
    let (queue, text) = match *kind {
        UUID_PAYLOAD | GUEST_PAYLOAD => (rest, None),
        NAMED_PAYLOAD => rest.split_once('\0').map(|(queue, text)| (queue, Some(text.into())))?,
        _ => return None,
    };
    Some(Claims {
        queue: queue.parse().ok()?,
        user: UserId::from_slice(user)?,
        user_text: text,
        is_guest: *kind == GUEST_PAYLOAD,
        score: u64::from_be_bytes(*score),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn key(kid: &str, secret: &str) -> (String, SecretString) {
        (kid.to_owned(), secret.to_owned().into())
    }

    fn claims() -> Claims {
        Claims {
            queue: "demo".parse().unwrap(),
            user: Uuid::from_u128(7).into(),
            user_text: None,
            is_guest: false,
            score: (1 << 40) + 5,
        }
    }

    #[test]
    fn same_claims_give_the_same_token() {
        let signer = TokenSigner::new(&[key("a", "first secret")]);
        let token = signer.sign(&claims());
        assert_eq!(token, signer.sign(&claims()));
        assert_eq!(signer.verify(&token), Some(claims()));
    }

    #[test]
    fn longest_token_is_valid() {
        let signer = TokenSigner::new(&[key("k234567890123456", "first secret")]);
        let name: UserName = "u".repeat(128).parse().unwrap();
        let claims = Claims {
            queue: "q".repeat(64).parse().unwrap(),
            user: name.key(),
            user_text: name.text_to_record(),
            ..claims()
        };
        assert_eq!(claims.user_name(), name);
        let token = signer.sign(&claims);
        assert!(token.len() <= MAX_TOKEN_LENGTH, "{}", token.len());
        assert_eq!(signer.verify(&token), Some(claims));
    }

    #[test]
    fn older_key_still_verifies_and_unknown_key_does_not() {
        let old = TokenSigner::new(&[key("a", "first secret")]);
        let rotated = TokenSigner::new(&[key("b", "second secret"), key("a", "first secret")]);
        let foreign = TokenSigner::new(&[key("a", "another secret")]);
        let token = old.sign(&claims());
        assert_eq!(rotated.verify(&token), Some(claims()));
        assert_eq!(foreign.verify(&token), None);
        assert!(rotated.sign(&claims()).starts_with("b."));
        assert_eq!((old.is_current(&token), rotated.is_current(&token)), (true, false));
        assert_eq!(old.verify(&rotated.sign(&claims())), None);
    }

    #[test]
    fn mac_covers_every_character() {
        let signer = TokenSigner::new(&[key("a", "first secret"), key("b", "first secret")]);
        let token = signer.sign(&claims());
        for at in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[at] = if forged[at] == b'b' { b'c' } else { b'b' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(signer.verify(&forged), None, "changed at {at}");
            assert_eq!(signer.verify(&token[..at]), None, "cut at {at}");
        }
    }

    proptest! {
        /// Flips each bit of every part: kid, version, user, score, queue, MAC. The unused bits of
        /// the last base64 character do not change the decoded value, but the token is refused too.
        #[test]
        fn a_token_with_one_bit_flipped_is_none(
            queue in "[A-Za-z0-9_-]{1,64}",
            user: u128,
            is_guest: bool,
            score in 0..1_u64 << 53,
            old: bool,
        ) {
            let (first, second) = (key("k1", "first secret"), key("k2", "second secret"));
            let signer = TokenSigner::new(&[second.clone(), first.clone()]);
            let signs = TokenSigner::new(&[if old { first } else { second }]);
            let user = Uuid::from_u128(user).into();
            let claims =
                Claims { queue: queue.parse().unwrap(), user, user_text: None, is_guest, score };
            let token = signs.sign(&claims);
            prop_assert_eq!(signer.verify(&token), Some(claims));
            for bit in 0..token.len() * 8 {
                let mut flipped = token.clone().into_bytes();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let Ok(flipped) = String::from_utf8(flipped) else { continue };
                prop_assert_eq!(signer.verify(&flipped), None, "bit {} of {}", bit, token);
            }
        }

        #[test]
        fn verify_never_panics(token in "\\PC{0,200}") {
            prop_assert_eq!(TokenSigner::new(&[key("a", "first secret")]).verify(&token), None);
        }
    }
}
