//! Valid and invalid tokens, for each type of key.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::get_current_timestamp as now;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;

const SECRET: &str = "7c9e66790d1d4b1f7c0a5be1d94b1f0a";
const USER: &str = "00000000-0000-4000-8000-000000000001";
/// A modulus of 2,048 bits, and a token signed by its key: `sub` is [`USER`], `exp` in 2100.
const MODULUS: &str = "tRKRk86yqXoviymidSy16jWAM4vCsCOBgUSk1-yeAl8HjxUZwvhTIovh0c_iIH3FY3PU6yp4IGJS8FBn-3pJ0Hd7y6\
     LJWbMvbwkaSx4HIGjoUp9c_7MYRgLOiknHeGzd6-dvDyv8N83lS69AFXXXALDAcA0DTLoBRa0PhYK0YU0SDnfI_tVG\
     9SnzOxIJIbUPBGHptEK5E075LuIDihSlkIaY9SG3AAiQwgOiNhK9-0AkPg-ak1JOfMrKklDIqCr3emqh0tMbAbzKj0\
     rqCunoHaoIsPJBl02Y3YMjVpSwwu2p4wa0S-wZPCH9isBZIJTT79jfMPaFa4-gTVQbLNT2BQ";
const BY_RSA: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InIifQ.eyJzdWIiOiIwMDAwMDAwMC0wMDAwLTQwMDAtODAwMC0wMDAwMDAwMDA\
     wMDEiLCJleHAiOjQxMDI0NDQ4MDB9.X1e12Jc2iNmcCw-S67RcuDV6tQXH9lYSyBK_KQCg0sBsOKXFxhfcXM7YmDGT\
     fNW0ethDPqBqkA76QJuht359DBmecxrjyWek-Ai1qEl_6QW9yNHHQM-rEi5Nn96a859Kg8MQeuhSB1c1AWCk5-lxnI\
     N9mEJnJc79ECwW86y2Tlabc8GAw90tOsOy5IE_BkdNq4J0O_mAg1SH3IfiM5SAXeiguApQzlWMC8iR-94tizMwIdof\
     jeFE_zW183MiK3qs5uZM1UfT8i15RQbzw5I2EV1It8ktEK7k94AvIlgy3KbIVtBXhVxUP4jghTXJdsuZm7DtZtyQoh\
     pqzewaKBYPqg";

fn part(value: &Value) -> String {
    BASE64.encode(value.to_string())
}

fn signed(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    format!("{message}.{}", BASE64.encode(sign(message.as_bytes())))
}

fn by_secret(header: &Value, claims: &Value) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    signed(header, claims, |message| ring::hmac::sign(&key, message).as_ref().to_vec())
}

fn secret_verifier(audience: Option<&str>, issuer: Option<&str>) -> JwtVerifier {
    let (audience, issuer) = (audience.map(str::to_owned), issuer.map(str::to_owned));
    JwtVerifier::new(JwtSettings { source: JwtKeySource::Secret(SECRET.into()), audience, issuer })
        .unwrap()
}

fn set_verifier(set: &Value) -> JwtVerifier {
    let verifier = secret_verifier(None, None);
    verifier.keys.store(Arc::new(JwtKeySet::parse(set.to_string().as_bytes()).unwrap()));
    verifier
}

fn hs256() -> Value {
    json!({"alg": "HS256", "typ": "JWT"})
}

fn good() -> Value {
    json!({"sub": USER, "exp": now() + 60})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = good();
    claims[name] = value;
    claims
}

#[test]
fn valid_token_identifies_its_user() {
    let verifier = secret_verifier(None, None);
    for claims in [
        good(),
        with("nbf", json!(now())),
        with("aud", json!("whatever")),
        with("more", json!([1])),
    ] {
        assert_eq!(
            verifier.user(&by_secret(&hs256(), &claims)).unwrap().to_string(),
            USER,
            "{claims}"
        );
    }
}

#[test]
fn expiry_and_not_before_have_leeway() {
    let verifier = secret_verifier(None, None);
    let user = |claims: Value| verifier.user(&by_secret(&hs256(), &claims)).map(drop);
    // Five seconds on either side of the limit, because time passes while the test runs.
    assert_eq!(user(with("exp", json!(now() - LEEWAY_SECONDS + 5))), Ok(()));
    assert_eq!(user(with("exp", json!(now() - LEEWAY_SECONDS - 5))), Err(JwtRejection::Expired));
    assert_eq!(user(with("nbf", json!(now() + LEEWAY_SECONDS - 5))), Ok(()));
    assert_eq!(
        user(with("nbf", json!(now() + LEEWAY_SECONDS + 60))),
        Err(JwtRejection::NotYetValid)
    );
}

#[test]
fn required_claims_must_be_present_and_valid() {
    let verifier = secret_verifier(None, None);
    let user = |claims: Value| verifier.user(&by_secret(&hs256(), &claims)).map(drop);
    assert_eq!(user(json!({"sub": USER})), Err(JwtRejection::InvalidClaims));
    assert_eq!(user(json!({"exp": now() + 60})), Err(JwtRejection::InvalidClaims));
    assert_eq!(user(with("exp", json!("tomorrow"))), Err(JwtRejection::InvalidClaims));
    for sub in [json!(""), json!("a b"), json!(7), json!(null)] {
        assert_eq!(user(with("sub", sub.clone())), Err(JwtRejection::InvalidClaims), "{sub}");
    }
    assert_eq!(user(json!([])), Err(JwtRejection::InvalidClaims));
}

#[test]
fn audience_and_issuer_are_checked_if_set() {
    let verifier = secret_verifier(Some("usher"), Some("https://id.example"));
    let user = |aud: Value, iss: Value| {
        verifier.user(&by_secret(
            &hs256(),
            &json!({"sub": USER, "exp": now() + 60, "aud": aud, "iss": iss}),
        ))
    };
    assert!(user(json!("usher"), json!("https://id.example")).is_ok());
    assert!(user(json!(["other", "usher"]), json!("https://id.example")).is_ok());
    for (aud, iss) in [("other", "https://id.example"), ("usher", "https://else.example")] {
        assert_eq!(user(json!(aud), json!(iss)), Err(JwtRejection::WrongAudienceOrIssuer));
    }
    assert_eq!(
        verifier.user(&by_secret(&hs256(), &good())),
        Err(JwtRejection::WrongAudienceOrIssuer)
    );
}

#[test]
fn token_can_not_choose_its_algorithm() {
    let verifier = secret_verifier(None, None);
    for alg in ["none", "None", "HS384", "HS512", "RS256", "ES256", "EdDSA"] {
        let header = json!({"alg": alg});
        assert_eq!(
            verifier.user(&by_secret(&header, &good())),
            Err(JwtRejection::Untrusted),
            "{alg}"
        );
        assert_eq!(
            verifier.user(&signed(&header, &good(), |_| Vec::new())),
            Err(JwtRejection::Untrusted),
            "{alg}"
        );
    }
    // A known attack: a public key as the secret of a token with HS256.
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let verifier = set_verifier(&json!({"keys": [ed25519("e", &pair)]}));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, pair.public_key().as_ref());
    let header = json!({"alg": "HS256", "kid": "e"});
    let token =
        signed(&header, &good(), |message| ring::hmac::sign(&key, message).as_ref().to_vec());
    assert_eq!(verifier.user(&token), Err(JwtRejection::Untrusted));
}

#[test]
fn tampered_and_broken_tokens_are_refused() {
    let verifier = secret_verifier(None, None);
    let token = by_secret(&hs256(), &good());
    let parts: Vec<_> = token.split('.').collect();
    let other = part(&with("sub", json!("00000000-0000-4000-8000-000000000002")));
    for bad in [
        format!("{}.{other}.{}", parts[0], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{token}.{}", parts[2]),
        by_secret(&json!({"alg": "HS256", "crit": ["exp"]}), &good()),
        String::new(),
        "..".to_owned(),
        "a".repeat(MAX_TOKEN_BYTES + 1),
        by_secret(&hs256(), &with("pad", json!("x".repeat(MAX_TOKEN_BYTES)))),
    ] {
        assert_eq!(verifier.user(&bad), Err(JwtRejection::Untrusted), "{bad:.60}");
    }
}

fn ed25519(kid: &str, pair: &Ed25519KeyPair) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": BASE64.encode(pair.public_key())})
}

fn rsa(kid: &str) -> Value {
    json!({"kty": "RSA", "kid": kid, "alg": "RS256", "use": "sig", "n": MODULUS, "e": "AQAB"})
}

#[test]
fn each_type_of_key_verifies_its_own_tokens() {
    let random = SystemRandom::new();
    let edwards = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let p256 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random)
        .unwrap();
    let point = p256.public_key().as_ref();
    let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
    let verifier = set_verifier(&json!({"keys": [
        ed25519("e", &edwards),
        {"kty": "EC", "crv": "P-256", "kid": "p", "x": x, "y": y},
        rsa("r"),
        {"kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB"},
    ]}));
    let by_edwards = |kid: Value| {
        let header = json!({"alg": "EdDSA", "kid": kid});
        signed(&header, &good(), |message| edwards.sign(message).as_ref().to_vec())
    };
    let by_p256 = |kid: &str| {
        let header = json!({"alg": "ES256", "kid": kid});
        signed(&header, &good(), |message| p256.sign(&random, message).unwrap().as_ref().to_vec())
    };
    for token in [by_edwards(json!("e")), by_p256("p"), BY_RSA.to_owned()] {
        assert_eq!(verifier.user(&token).unwrap().to_string(), USER);
    }
    for token in [
        by_edwards(json!("p")),
        by_p256("e"),
        by_edwards(json!("unknown")),
        by_edwards(json!(null)),
    ] {
        assert_eq!(verifier.user(&token), Err(JwtRejection::Untrusted));
    }
    let broken = BY_RSA.replace("eyJzdWIi", "eyJzdWJi");
    assert_eq!(verifier.user(&broken), Err(JwtRejection::Untrusted));
}

#[test]
fn invalid_jwks_is_refused() {
    let edwards = ed25519("e", &Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap());
    let (mut other_alg, mut short, mut nameless) = (rsa("r"), rsa("r"), rsa("r"));
    other_alg["alg"] = json!("PS256");
    short["n"] = json!(BASE64.encode([0xff; 128]));
    nameless.as_object_mut().unwrap().remove("kid");
    for (set, why) in [
        (json!({"keys": []}), "no key for signatures"),
        (
            json!({"keys": [{"kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB"}]}),
            "no key for signatures",
        ),
        (json!([]), "not a JWKS"),
        (json!({"keys": [{"kty": "oct", "k": "AAAA"}]}), "is a secret"),
        (json!({"keys": [{"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}]}), "must be Ed25519"),
        (json!({"keys": [other_alg]}), "its `alg`"),
        (json!({"keys": [short]}), "2,048 bits"),
        (json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}]}), "wrong size"),
        (json!({"keys": [edwards, rsa("e")]}), "key 1: its `kid`"),
        (json!({"keys": [nameless, nameless]}), "key 1: its `kid`"),
    ] {
        let error = JwtKeySet::parse(set.to_string().as_bytes()).err().unwrap().to_string();
        assert!(error.contains(why), "{set}: {error}");
    }
}
