//! Keys and secrets: long enough, not left as the example had them, and none in two roles.

use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::args::SecretArgs;
use super::check::{SettingsChecker, given};
use crate::http::{identity, jwt};

/// The shortest secret, in characters.
const SHORTEST: usize = 32;
/// What must be left of a secret once the words of placeholders are taken out, in characters.
const LEAST_LEFT: usize = 16;
/// Different characters that a secret must have: 32 random hexadecimal digits have fewer about once in a billion.
const LEAST_DIFFERENT: usize = 6;
/// What people write where a secret belongs.
const WORDS: &[&str] = &[
    "placeholder",
    "characters",
    "generated",
    "generate",
    "password",
    "changeme",
    "insecure",
    "minimum",
    "example",
    "replace",
    "service",
    "default",
    "random",
    "change",
    "secret",
    "string",
    "should",
    "least",
    "super",
    "usher",
    "token",
    "admin",
    "value",
    "please",
    "long",
    "this",
    "with",
    "must",
    "your",
    "here",
    "some",
    "very",
    "that",
    "key",
    "the",
    "and",
    "for",
];

/// One key that signs and verifies queue tokens.
#[derive(Debug, Clone)]
pub struct TokenKey {
    /// Its name in the token, `[A-Za-z0-9]{1,16}`.
    pub kid: String,
    /// The secret.
    pub secret: SecretString,
}

/// Checks one secret. What is wrong is said without a character of it.
fn secret(setting: &'static str, text: &str, check: &mut SettingsChecker) -> Option<SecretString> {
    let wrong = if text.chars().count() < SHORTEST {
        format!("must have {SHORTEST} characters or more; `openssl rand -hex 32` makes a good one")
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        "must be visible ASCII characters".to_owned()
    } else if is_placeholder(text) {
        "is a placeholder; `openssl rand -hex 32` makes a good one".to_owned()
    } else {
        return Some(text.into());
    };
    check.fail(setting, wrong);
    None
}

fn is_placeholder(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let different: std::collections::BTreeSet<_> = lower.bytes().collect();
    let plain: String = lower.chars().filter(char::is_ascii_alphanumeric).collect();
    let left = WORDS.iter().fold(plain.clone(), |left, word| left.replace(word, ""));
    (text.starts_with('<') && text.ends_with('>'))
        || text.starts_with("${")
        || plain.contains("changeme")
        || different.len() < LEAST_DIFFERENT
        || left.len() < LEAST_LEFT
}

pub(super) fn admin_key(args: &SecretArgs, check: &mut SettingsChecker) -> Option<SecretString> {
    let text = check.required("USHER_ADMIN_KEY", args.admin_key.as_deref())?;
    secret("USHER_ADMIN_KEY", text, check)
}

pub(super) fn token_keys(args: &SecretArgs, check: &mut SettingsChecker) -> Vec<TokenKey> {
    const SETTING: &str = "USHER_TOKEN_KEYS";
    let mut keys: Vec<TokenKey> = Vec::new();
    for item in check
        .required(SETTING, args.token_keys.as_deref())
        .into_iter()
        .flat_map(|text| text.split(','))
    {
        let Some((kid, text)) = item.trim().split_once(':') else {
            check.fail(SETTING, "must be kid:secret, comma-separated");
            continue;
        };
        if !(1..=16).contains(&kid.len()) || !kid.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            check.fail(SETTING, "each kid must match [A-Za-z0-9]{1,16}");
        } else if keys.iter().any(|key| key.kid == kid) {
            check.fail(SETTING, format!("the kid {kid} is given twice"));
        } else if let Some(secret) = secret(SETTING, text, check) {
            keys.push(TokenKey { kid: kid.to_owned(), secret });
        }
    }
    keys
}

pub(super) fn identity(
    args: &SecretArgs,
    check: &mut SettingsChecker,
) -> identity::IdentitySettings {
    const SETTING: &str = "USHER_AUTH";
    let (mut header, mut by_service, mut by_jwt) = (false, false, false);
    for mode in
        check.required(SETTING, args.auth.as_deref()).into_iter().flat_map(|text| text.split(','))
    {
        match mode.trim() {
            "header" => header = true,
            "service-key" => by_service = true,
            "jwt" => by_jwt = true,
            _ => check.fail(
                SETTING,
                "must be a comma-separated list of `header`, `service-key` and `jwt`",
            ),
        }
    }
    let on = |on: bool| given(args.auth.as_deref()).is_some().then_some(on);
    let keys = belongs(
        on(by_service),
        "service-key",
        "USHER_SERVICE_KEYS",
        args.service_keys.as_deref(),
        check,
    );
    let service_keys = (keys.into_iter().flat_map(|text| text.split(',')))
        .filter_map(|text| secret("USHER_SERVICE_KEYS", text.trim(), check))
        .collect();
    let jwt_key = belongs(on(by_jwt), "jwt", "USHER_JWT_KEY", args.jwt_key.as_deref(), check);
    let jwt = jwt_key.and_then(|text| jwt_source(text, check)).map(|source| jwt::JwtSettings {
        source,
        audience: given(args.jwt_audience.as_deref()).map(str::to_owned),
        issuer: given(args.jwt_issuer.as_deref()).map(str::to_owned),
    });
    identity::IdentitySettings { header, service_keys, jwt }
}

/// A setting that is needed by a mode of `USHER_AUTH`, and has no meaning without it. `on` is `None` when no modes were given.
fn belongs<'a>(
    on: Option<bool>,
    mode: &str,
    setting: &'static str,
    value: Option<&'a str>,
    check: &mut SettingsChecker,
) -> Option<&'a str> {
    let value = given(value);
    match (on, value) {
        (Some(true), None) => {
            check.fail(setting, format!("must be given, for USHER_AUTH has `{mode}` on"))
        }
        (Some(false), Some(_)) => {
            check.fail(setting, format!("is given, but USHER_AUTH does not have `{mode}` on"));
        }
        _ => {}
    }
    value
}

/// A path that exists is a JWKS file, and is read at once so that a broken one is found at start; all else is a secret.
fn jwt_source(text: &str, check: &mut SettingsChecker) -> Option<jwt::JwtKeySource> {
    const SETTING: &str = "USHER_JWT_KEY";
    let path = Path::new(text);
    if !path.exists() {
        return secret(SETTING, text, check).map(jwt::JwtKeySource::Secret);
    }
    let source = jwt::JwtKeySource::File(path.to_owned());
    if let Err(error) = jwt::JwtKeySet::read(&source) {
        check.fail(SETTING, format!("the file {error}"));
        return None;
    }
    Some(source)
}

/// One secret in two roles would let the holder of the one play the other.
pub(super) fn all_differ(
    identity: &identity::IdentitySettings,
    admin_key: Option<&SecretString>,
    token_keys: &[TokenKey],
    check: &mut SettingsChecker,
) {
    let admin = admin_key.map(|key| ("USHER_ADMIN_KEY", key));
    let service = identity.service_keys.iter().map(|key| ("USHER_SERVICE_KEYS", key));
    let token = token_keys.iter().map(|key| ("USHER_TOKEN_KEYS", &key.secret));
    let jwt = identity.jwt.as_ref().and_then(|jwt| match &jwt.source {
        jwt::JwtKeySource::Secret(secret) => Some(("USHER_JWT_KEY", secret)),
        jwt::JwtKeySource::File(_) => None,
    });
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (setting, secret) in admin.into_iter().chain(service).chain(jwt).chain(token) {
        let secret = secret.expose_secret();
        match seen.iter().find(|(_, earlier)| *earlier == secret) {
            Some((earlier, _)) => check.fail(
                setting,
                format!("must differ from every other secret ({earlier} has it too)"),
            ),
            None => seen.push((setting, secret)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "d41d8cd98f00b204e9800998ecf8427e";

    fn wrong(read: impl FnOnce(&SecretArgs, &mut SettingsChecker), args: &SecretArgs) -> String {
        let mut check = SettingsChecker::default();
        read(args, &mut check);
        check.finish().map_or_else(|bad| bad.to_string(), |()| String::new())
    }

    fn admin(text: &str) -> String {
        let args = SecretArgs { admin_key: Some(text.to_owned()), ..SecretArgs::default() };
        wrong(|args, check| drop(admin_key(args, check)), &args)
    }

    fn tokens(text: &str) -> String {
        let args = SecretArgs { token_keys: Some(text.to_owned()), ..SecretArgs::default() };
        wrong(|args, check| drop(token_keys(args, check)), &args)
    }

    fn auth(modes: &str, keys: Option<&str>) -> String {
        let args = SecretArgs {
            auth: Some(modes.to_owned()),
            service_keys: keys.map(str::to_owned),
            ..SecretArgs::default()
        };
        wrong(|args, check| drop(identity(args, check)), &args)
    }

    #[test]
    fn secrets_that_were_made_are_taken() {
        for good in [
            GOOD,
            "usher-test-admin-key-0123456789abcdef",
            "pV3nq0Tt1m9Yx7bD/2Lw5KzS8uRcH4eJ6gFaQiN0o+M=",
        ] {
            assert_eq!(admin(good), "", "{good}");
        }
        for _ in 0..2000 {
            assert_eq!(admin(&format!("{:032x}", rand::random::<u128>())), "");
        }
    }

    #[test]
    fn short_secrets_are_refused() {
        for bad in ["secret", "changeme", &GOOD[1..]] {
            assert!(admin(bad).contains("USHER_ADMIN_KEY (--admin-key): must have 32"), "{bad}");
        }
        assert!(admin("").contains("must be given"));
        assert!(admin(&"ä".repeat(40)).contains("visible ASCII"));
        assert!(admin("d41d8cd98f00b204 e9800998ecf8427e").contains("visible ASCII"));
    }

    #[test]
    fn placeholders_are_refused() {
        for bad in [
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "00000000000000000000000000000000",
            "abababababababababababababababababab",
            "changeme-changeme-changeme-changeme",
            "CHANGE_ME_0123456789abcdef0123456789",
            "secretsecretsecretsecretsecretsecret",
            "<at-least-32-characters-of-your-own>",
            "${ADMIN_KEY_OF_USHER_FROM_THE_VAULT}",
            "replace-this-with-a-long-random-string",
            "your-super-secret-admin-key-goes-here",
        ] {
            assert!(admin(bad).contains("is a placeholder"), "{bad}: {}", admin(bad));
        }
    }

    #[test]
    fn token_keys_have_names_of_their_own() {
        assert_eq!(tokens(&format!("k2:{GOOD}, k1:{}", GOOD.to_uppercase())), "");
        assert!(tokens(&format!("k1:{GOOD},k1:{GOOD}")).contains("the kid k1 is given twice"));
        for bad in
            [&format!(":{GOOD}"), &format!("k-1:{GOOD}"), &format!("{}:{GOOD}", "k".repeat(17))]
        {
            assert!(tokens(bad).contains("[A-Za-z0-9]{1,16}"), "{bad}");
        }
        assert!(tokens(GOOD).contains("kid:secret"));
        assert!(tokens("k1:short").contains("32 characters"));
        assert!(tokens(&format!("k1:{GOOD},")).contains("kid:secret"));
        assert!(tokens("").contains("must be given"));
    }

    fn jwt(modes: &str, key: &str) -> String {
        let args = SecretArgs {
            auth: Some(modes.to_owned()),
            jwt_key: Some(key.to_owned()),
            ..SecretArgs::default()
        };
        wrong(|args, check| drop(identity(args, check)), &args)
    }

    #[test]
    fn a_jwt_key_is_a_secret_or_a_file_of_keys() {
        assert_eq!(jwt("jwt", GOOD), "");
        assert!(jwt("jwt", "short").contains("32 characters"));
        assert!(jwt("jwt", "/nowhere/keys.json").contains("32 characters"));
        assert!(jwt("header", GOOD).contains("does not have `jwt` on"));
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert!(jwt("jwt", manifest).contains("the file is not a JWKS"));
        assert!(jwt("jwt", env!("CARGO_MANIFEST_DIR")).contains("the file can't be read"));
    }

    #[test]
    fn modes_and_keys_belong_together() {
        assert_eq!(auth("header", None), "");
        assert_eq!(auth("header,service-key", Some(GOOD)), "");
        assert_eq!(auth(" service-key ", Some(GOOD)), "");
        assert!(auth("service-key", None).contains("USHER_SERVICE_KEYS"));
        assert!(auth("service-key", Some(" ")).contains("USHER_SERVICE_KEYS"));
        assert!(auth("header", Some(GOOD)).contains("USHER_SERVICE_KEYS"));
        assert!(auth("service-key", Some("short")).contains("32 characters"));
        assert!(auth("jwt", None).contains("USHER_JWT_KEY (--jwt-key): must be given"));
        assert!(auth("header,none", None).contains("USHER_AUTH (--auth): must be"));
        assert!(auth("", None).contains("must be given"));
    }
}
