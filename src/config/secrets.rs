//! Validates keys and secrets: long enough, no placeholders, and none used twice.

use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::args::SecretArgs;
use super::check::{SettingsChecker, given};
use crate::edge::admin_key::AdminKey;
use crate::http::{identity, jwt};

const MIN_SECRET_LENGTH: usize = 32;
/// Characters that must remain of a secret without [`PLACEHOLDER_WORDS`].
const MIN_REMAINING_LENGTH: usize = 16;
/// Distinct characters of a secret. 32 random hexadecimal digits have fewer about once in a
/// billion.
const MIN_DISTINCT_CHARACTERS: usize = 6;
/// Words of typical placeholders.
const PLACEHOLDER_WORDS: &[&str] = &[
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

/// A key that signs and verifies queue tokens.
#[derive(Debug, Clone)]
pub struct TokenKey {
    /// The key id in the token, `[A-Za-z0-9]{1,16}`.
    pub kid: String,
    pub secret: SecretString,
}

/// Validates one secret. The error does not contain any part of it.
pub(super) fn parse_secret(
    setting: &'static str,
    text: &str,
    check: &mut SettingsChecker,
) -> Option<SecretString> {
    let error = if text.chars().count() < MIN_SECRET_LENGTH {
        format!(
            "must have at least {MIN_SECRET_LENGTH} characters; \
             generate one with `openssl rand -hex 32`"
        )
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        "must consist of visible ASCII characters".to_owned()
    } else if is_placeholder(text) {
        "is a placeholder; generate a secret with `openssl rand -hex 32`".to_owned()
    } else {
        return Some(text.into());
    };
    check.fail(setting, error);
    None
}

fn is_placeholder(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let distinct: std::collections::BTreeSet<_> = lower.bytes().collect();
    let plain: String = lower.chars().filter(char::is_ascii_alphanumeric).collect();
    let remaining =
        PLACEHOLDER_WORDS.iter().fold(plain.clone(), |text, word| text.replace(word, ""));
    (text.starts_with('<') && text.ends_with('>'))
        || text.starts_with("${")
        || plain.contains("changeme")
        || distinct.len() < MIN_DISTINCT_CHARACTERS
        || remaining.len() < MIN_REMAINING_LENGTH
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
            check.fail(SETTING, "must be a comma-separated list of kid:secret");
            continue;
        };
        if !(1..=16).contains(&kid.len()) || !kid.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            check.fail(SETTING, "each kid must match [A-Za-z0-9]{1,16}");
        } else if keys.iter().any(|key| key.kid == kid) {
            check.fail(SETTING, format!("the kid {kid} is given twice"));
        } else if let Some(secret) = parse_secret(SETTING, text, check) {
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
    let (mut header, mut guest, mut service_key, mut jwt) = (false, false, false, false);
    for mode in
        check.required(SETTING, args.auth.as_deref()).into_iter().flat_map(|text| text.split(','))
    {
        match mode.trim() {
            "header" => header = true,
            "guest" => guest = true,
            "service-key" => service_key = true,
            "jwt" => jwt = true,
            _ => check.fail(
                SETTING,
                "must be a comma-separated list of `header`, `service-key`, `jwt` and `guest`",
            ),
        }
    }
    let enabled = |mode: bool| given(args.auth.as_deref()).is_some().then_some(mode);
    let keys = mode_setting(
        enabled(service_key),
        "service-key",
        "USHER_SERVICE_KEYS",
        args.service_keys.as_deref(),
        check,
    );
    let service_keys = (keys.into_iter().flat_map(|text| text.split(',')))
        .filter_map(|text| parse_secret("USHER_SERVICE_KEYS", text.trim(), check))
        .collect();
    let jwt_key =
        mode_setting(enabled(jwt), "jwt", "USHER_JWT_KEY", args.jwt_key.as_deref(), check);
    let jwt =
        jwt_key.and_then(|text| parse_jwt_source(text, check)).map(|source| jwt::JwtSettings {
            source,
            audience: given(args.jwt_audience.as_deref()).map(str::to_owned),
            issuer: given(args.jwt_issuer.as_deref()).map(str::to_owned),
        });
    identity::IdentitySettings { header, guest, service_keys, anyone_charges: false, jwt }
}

/// A setting that a mode of `USHER_AUTH` requires, and that is an error without it. `enabled` is
/// `None` when `USHER_AUTH` is missing.
fn mode_setting<'a>(
    enabled: Option<bool>,
    mode: &str,
    setting: &'static str,
    value: Option<&'a str>,
    check: &mut SettingsChecker,
) -> Option<&'a str> {
    let value = given(value);
    match (enabled, value) {
        (Some(true), None) => {
            check.fail(setting, format!("must be given, because USHER_AUTH includes `{mode}`"))
        }
        (Some(false), Some(_)) => {
            check.fail(setting, format!("is given, but USHER_AUTH does not include `{mode}`"));
        }
        _ => {}
    }
    value
}

/// An existing path is a JWKS file, which is loaded to detect errors at the start. Everything else
/// is a secret.
fn parse_jwt_source(text: &str, check: &mut SettingsChecker) -> Option<jwt::JwtKeySource> {
    const SETTING: &str = "USHER_JWT_KEY";
    let path = Path::new(text);
    if !path.exists() {
        return parse_secret(SETTING, text, check).map(jwt::JwtKeySource::Secret);
    }
    let source = jwt::JwtKeySource::File(path.to_owned());
    if let Err(error) = jwt::JwtKeySet::load(&source) {
        check.fail(SETTING, format!("the file {error}"));
        return None;
    }
    Some(source)
}

/// A secret with two uses would give the holder of one role the other role too.
pub(super) fn check_all_differ(
    identity: &identity::IdentitySettings,
    admin_keys: &[AdminKey],
    token_keys: &[TokenKey],
    check: &mut SettingsChecker,
) {
    let admin = admin_keys.iter().map(|key| ("USHER_ADMIN_KEYS", &key.secret));
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
                format!("must differ from every other secret; {earlier} has the same value"),
            ),
            None => seen.push((setting, secret)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::admin_keys::admin_keys;
    use super::*;

    const GOOD: &str = "d41d8cd98f00b204e9800998ecf8427e";

    fn errors(read: impl FnOnce(&SecretArgs, &mut SettingsChecker), args: &SecretArgs) -> String {
        let mut check = SettingsChecker::default();
        read(args, &mut check);
        check.finish().map_or_else(|bad| bad.to_string(), |()| String::new())
    }

    fn admin(text: &str) -> String {
        let args = SecretArgs { admin_key: Some(text.to_owned()), ..SecretArgs::default() };
        errors(|args, check| drop(admin_keys(args, check)), &args)
    }

    fn tokens(text: &str) -> String {
        let args = SecretArgs { token_keys: Some(text.to_owned()), ..SecretArgs::default() };
        errors(|args, check| drop(token_keys(args, check)), &args)
    }

    fn auth(modes: &str, keys: Option<&str>) -> String {
        let args = SecretArgs {
            auth: Some(modes.to_owned()),
            service_keys: keys.map(str::to_owned),
            ..SecretArgs::default()
        };
        errors(|args, check| drop(identity(args, check)), &args)
    }

    #[test]
    fn generated_secrets_are_accepted() {
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
            assert!(
                admin(bad).contains("USHER_ADMIN_KEY (--admin-key): must have at least 32"),
                "{bad}"
            );
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
    fn token_keys_have_distinct_ids() {
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
        errors(|args, check| drop(identity(args, check)), &args)
    }

    #[test]
    fn jwt_key_is_a_secret_or_a_jwks_file() {
        assert_eq!(jwt("jwt", GOOD), "");
        assert!(jwt("jwt", "short").contains("32 characters"));
        assert!(jwt("jwt", "/nowhere/keys.json").contains("32 characters"));
        assert!(jwt("header", GOOD).contains("does not include `jwt`"));
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert!(jwt("jwt", manifest).contains("the file is not a JWKS"));
        assert!(jwt("jwt", env!("CARGO_MANIFEST_DIR")).contains("the file can't be read"));
    }

    #[test]
    fn modes_require_their_keys() {
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
