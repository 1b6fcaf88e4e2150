//! Keys that callers present, compared without telling how much of one was right.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

/// The SHA-256 of a key. Digests have one length, so comparing them tells nothing about the key's.
#[derive(Clone)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// The digest of a configured key.
    pub fn of(key: &SecretString) -> Self {
        Self(Sha256::digest(key.expose_secret().as_bytes()).into())
    }

    /// Whether the presented key is this one, in the same time whether it is or not.
    pub fn matches(&self, presented: &str) -> bool {
        let presented: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        self.0.ct_eq(&presented).into()
    }
}

impl std::fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digest(…)")
    }
}

/// What tells a key from others in a log and gives nothing of it away: eight hexadecimal digits of the SHA-256 of its SHA-256. Keys are long and random, so
/// nobody finds one by trying.
pub fn key_id(key: &SecretString) -> String {
    let twice = Sha256::digest(KeyDigest::of(key).0);
    twice[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What `Authorization` holds.
#[derive(Debug, PartialEq, Eq)]
pub enum BearerToken<'a> {
    /// The header is missing.
    Missing,
    /// There are several, another scheme, or no text.
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
    fn only_the_key_itself_matches() {
        let digest = KeyDigest::of(&SecretString::from("k".repeat(32)));
        assert!(digest.matches(&"k".repeat(32)));
        assert!(!digest.matches(&"k".repeat(31)));
        assert!(!digest.matches(""));
        assert_eq!(format!("{digest:?}"), "Digest(…)");
    }

    #[test]
    fn a_keys_id_is_no_part_of_it() {
        let key = SecretString::from("0ff1ce-c2b7a9d84e5f6a1b3c8d7e9f0a");
        let id = key_id(&key);
        assert_eq!((id.len(), key_id(&key)), (8, id.clone()));
        assert!(!key.expose_secret().contains(&id));
        assert_ne!(key_id(&SecretString::from("0ff1ce-c2b7a9d84e5f6a1b3c8d7e9f0b")), id);
    }

    #[test]
    fn bearer_is_read_strictly() {
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
