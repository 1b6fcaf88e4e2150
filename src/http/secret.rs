//! Keys that callers present, compared in constant time.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

/// The SHA-256 of a key. All digests have the same length, so a comparison does not reveal that of
/// the key.
#[derive(Clone)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    pub fn of(key: &SecretString) -> Self {
        Self(Sha256::digest(key.expose_secret().as_bytes()).into())
    }

    /// Compares in constant time.
    pub fn matches(&self, presented: &str) -> bool {
        let presented: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        self.0.ct_eq(&presented).into()
    }
}

impl std::fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyDigest(…)")
    }
}

/// Identifies a key in logs without revealing it: eight hexadecimal digits of the SHA-256 of its
/// SHA-256. Keys are long and random, so they can't be guessed from it.
pub fn key_id(key: &SecretString) -> String {
    let twice = Sha256::digest(KeyDigest::of(key).0);
    twice[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The content of `Authorization`.
#[derive(Debug, PartialEq, Eq)]
pub enum BearerToken<'a> {
    Missing,
    /// Several headers, another scheme, or no text.
    Unreadable,
    /// The credentials after `Bearer `.
    Key(&'a str),
}

/// Reads `Authorization: Bearer <key>`.
pub fn bearer(headers: &HeaderMap) -> BearerToken<'_> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let Some(first) = all.next() else { return BearerToken::Missing };
    let parts = first.to_str().ok().and_then(|text| text.split_once(' '));
    match parts {
        Some((scheme, key)) if all.next().is_none() && scheme.eq_ignore_ascii_case("bearer") => {
            BearerToken::Key(key.trim())
        }
        _ => BearerToken::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_matches() {
        let digest = KeyDigest::of(&SecretString::from("k".repeat(32)));
        assert!(digest.matches(&"k".repeat(32)));
        assert!(!digest.matches(&"k".repeat(31)));
        assert!(!digest.matches(""));
        assert_eq!(format!("{digest:?}"), "KeyDigest(…)");
    }

    #[test]
    fn key_id_is_not_part_of_the_key() {
        let key = SecretString::from("0ff1ce-c2b7a9d84e5f6a1b3c8d7e9f0a");
        let id = key_id(&key);
        assert_eq!((id.len(), key_id(&key)), (8, id.clone()));
        assert!(!key.expose_secret().contains(&id));
        assert_ne!(key_id(&SecretString::from("0ff1ce-c2b7a9d84e5f6a1b3c8d7e9f0b")), id);
    }

    #[test]
    fn authorization_is_parsed_strictly() {
        let with = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            headers
        };
        assert_eq!(bearer(&with(&[])), BearerToken::Missing);
        assert_eq!(bearer(&with(&["Bearer abc"])), BearerToken::Key("abc"));
        assert_eq!(bearer(&with(&["bearer  abc"])), BearerToken::Key("abc"));
        for bad in [&["Basic abc"][..], &["abc"], &["Bearer"], &["Bearer a", "Bearer a"]] {
            assert_eq!(bearer(&with(bad)), BearerToken::Unreadable, "{bad:?}");
        }
    }
}
