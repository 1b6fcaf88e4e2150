//! The secrets that sign deliveries, in the forms of the Standard Webhooks specification
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair};

const HMAC_PREFIX: &str = "whsec_";
const PRIVATE_PREFIX: &str = "whsk_";
const PUBLIC_PREFIX: &str = "whpk_";

/// The lengths of a secret for HMAC in bytes.
const HMAC_LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;
/// The length of a secret that the service makes.
const NEW_LENGTH: usize = 32;
/// The length of the private part of an Ed25519 key.
const SEED_LENGTH: usize = 32;

/// A secret with its text.
pub(super) struct WebhookSecret {
    text: String,
    key: SigningKey,
}

enum SigningKey {
    /// Symmetric: the receiver has the same secret.
    Hmac(hmac::Key),
    /// The receiver has the public key.
    Ed25519(Box<Ed25519KeyPair>),
}

impl WebhookSecret {
    /// A new secret: symmetric, or of the kind of another one.
    pub(super) fn generate(like: Option<&Self>) -> Self {
        let bytes: [u8; NEW_LENGTH] = rand::random();
        let prefix = match like.map(|like| &like.key) {
            Some(SigningKey::Ed25519(_)) => PRIVATE_PREFIX,
            Some(SigningKey::Hmac(_)) | None => HMAC_PREFIX,
        };
        let text = format!("{prefix}{}", STANDARD.encode(bytes));
        Self::parse(&text).unwrap_or_else(|_| Self {
            text,
            key: SigningKey::Hmac(hmac::Key::new(hmac::HMAC_SHA256, &bytes)),
        })
    }

    /// # Errors
    /// Why it is not a secret.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let decode =
            |encoded: &str| STANDARD.decode(encoded).map_err(|_| "must be Base64 after its prefix");
        let key = if let Some(encoded) = text.strip_prefix(HMAC_PREFIX) {
            let bytes = decode(encoded)?;
            if !HMAC_LENGTHS.contains(&bytes.len()) {
                return Err("must have from 24 to 64 bytes");
            }
            SigningKey::Hmac(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
        } else if let Some(encoded) = text.strip_prefix(PRIVATE_PREFIX) {
            let bytes = decode(encoded)?;
            // With the public key behind it, or without.
            let key = match bytes.split_at_checked(SEED_LENGTH) {
                Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed).ok(),
                Some((seed, public)) => Ed25519KeyPair::from_seed_and_public_key(seed, public).ok(),
                None => None,
            };
            SigningKey::Ed25519(Box::new(key.ok_or("must be an Ed25519 key of 32 or 64 bytes")?))
        } else {
            return Err("must begin with whsec_ or whsk_");
        };
        Ok(Self { text: text.to_owned(), key })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// What a receiver needs to check signatures, when it is not the secret.
    pub(super) fn public_key(&self) -> Option<String> {
        match &self.key {
            SigningKey::Hmac(_) => None,
            SigningKey::Ed25519(pair) => {
                Some(format!("{PUBLIC_PREFIX}{}", STANDARD.encode(pair.public_key())))
            }
        }
    }

    /// One signature of the header `webhook-signature`.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut content = format!("{id}.{timestamp}.").into_bytes();
        content.extend_from_slice(body);
        match &self.key {
            SigningKey::Hmac(key) => format!("v1,{}", STANDARD.encode(hmac::sign(key, &content))),
            SigningKey::Ed25519(pair) => format!("v1a,{}", STANDARD.encode(pair.sign(&content))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_is_that_of_the_specification() {
        // The example of the reference libraries of Standard Webhooks.
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(secret.public_key(), None);
    }

    /// The receivers of both clients check the same messages.
    #[test]
    fn signatures_are_those_of_the_vectors() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/webhooks.json")).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let private = format!("whsk_{}", STANDARD.encode([3; 32]));
        let mut checked = 0;
        for case in vectors["cases"].as_array().unwrap() {
            let is_public = text(&case["key"]).starts_with("whpk_");
            let secret = if is_public { private.clone() } else { text(&case["key"]) };
            if case["event"].is_null() {
                continue;
            }
            let secret = WebhookSecret::parse(&secret).unwrap();
            let headers = &case["headers"];
            let timestamp = text(&headers["webhook-timestamp"]).parse().unwrap();
            let (id, body) = (text(&headers["webhook-id"]), text(&case["body"]));
            let signature = secret.sign(&id, timestamp, body.as_bytes());
            assert!(text(&headers["webhook-signature"]).contains(&signature), "{case}");
            checked += 1;
        }
        assert_eq!(checked, 5);
    }

    #[test]
    fn ed25519_signatures_verify() {
        let seed = STANDARD.encode([7; 32]);
        let secret = WebhookSecret::parse(&format!("whsk_{seed}")).unwrap();
        let public = secret.public_key().unwrap();
        let public = STANDARD.decode(public.strip_prefix("whpk_").unwrap()).unwrap();
        let signature = secret.sign("evt-1", 5, b"{}");
        let signature = STANDARD.decode(signature.strip_prefix("v1a,").unwrap()).unwrap();
        let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, &public);
        key.verify(b"evt-1.5.{}", &signature).unwrap();
        let both = [vec![7; 32], public].concat();
        let long = WebhookSecret::parse(&format!("whsk_{}", STANDARD.encode(both))).unwrap();
        assert_eq!(long.sign("evt-1", 5, b"{}"), secret.sign("evt-1", 5, b"{}"));
        let next = WebhookSecret::generate(Some(&secret));
        assert!(next.text().starts_with("whsk_") && next.public_key().is_some());
    }

    #[test]
    fn bad_secrets_are_refused() {
        let short = STANDARD.encode([1; 23]);
        let long = STANDARD.encode([1; 65]);
        for text in [
            "".to_owned(),
            "secret".to_owned(),
            "whsec_".to_owned(),
            "whsec_???".to_owned(),
            format!("whsec_{short}"),
            format!("whsec_{long}"),
            format!("whsk_{short}"),
            format!("whsk_{}", STANDARD.encode([1; 64])),
            format!("whpk_{}", STANDARD.encode([1; 32])),
        ] {
            assert!(WebhookSecret::parse(&text).is_err(), "{text}");
        }
        assert!(WebhookSecret::parse(WebhookSecret::generate(None).text()).is_ok());
    }
}
