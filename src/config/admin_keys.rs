//! Validates the keys of the admin API.

use super::args::SecretArgs;
use super::check::{SettingsChecker, given};
use super::secrets::parse_secret;
use crate::edge::admin_key::{AdminKey, AdminRole};

/// The name of the key in `USHER_ADMIN_KEY`.
const DEFAULT_NAME: &str = "admin";
const SETTING: &str = "USHER_ADMIN_KEYS";

/// All keys, that of `USHER_ADMIN_KEY` first.
pub(super) fn admin_keys(args: &SecretArgs, check: &mut SettingsChecker) -> Vec<AdminKey> {
    let mut keys = Vec::new();
    let named = given(args.admin_keys.as_deref());
    let only = match named {
        Some(_) => given(args.admin_key.as_deref()),
        None => check.required("USHER_ADMIN_KEY", args.admin_key.as_deref()),
    };
    if let Some(secret) = only.and_then(|text| parse_secret("USHER_ADMIN_KEY", text, check)) {
        keys.push(AdminKey { name: DEFAULT_NAME.to_owned(), role: AdminRole::Admin, secret });
    }
    for item in named.into_iter().flat_map(|text| text.split(',')) {
        if let Some(key) = parse_key(item.trim(), &keys, check) {
            keys.push(key);
        }
    }
    keys
}

/// The error does not contain any part of the secret.
fn parse_key(text: &str, others: &[AdminKey], check: &mut SettingsChecker) -> Option<AdminKey> {
    let parts = text.split_once(':').and_then(|(name, rest)| Some((name, rest.split_once(':')?)));
    let Some((name, (role, secret))) = parts else {
        check.fail(SETTING, "must be a comma-separated list of name:role:secret");
        return None;
    };
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if !(1..=64).contains(&name.len()) || !name.bytes().all(is_name) {
        check.fail(SETTING, "each name must match [A-Za-z0-9._-]{1,64}");
        return None;
    }
    let Some(role) = AdminRole::ALL.into_iter().find(|known| known.as_str() == role) else {
        let message = format!("the role of {name} must be viewer, operator or admin");
        check.fail(SETTING, message);
        return None;
    };
    if others.iter().any(|other| other.name == name) {
        check.fail(SETTING, format!("the name {name} is given twice"));
        return None;
    }
    let secret = parse_secret(SETTING, secret, check)?;
    Some(AdminKey { name: name.to_owned(), role, secret })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "d41d8cd98f00b204e9800998ecf8427e";

    fn read(key: Option<&str>, keys: &str) -> (Vec<(String, AdminRole)>, String) {
        let args = SecretArgs {
            admin_key: key.map(str::to_owned),
            admin_keys: Some(keys.to_owned()),
            ..SecretArgs::default()
        };
        let mut check = SettingsChecker::default();
        let found = admin_keys(&args, &mut check);
        let errors = check.finish().map_or_else(|bad| bad.to_string(), |()| String::new());
        (found.into_iter().map(|key| (key.name, key.role)).collect(), errors)
    }

    #[test]
    fn keys_have_names_and_roles() {
        let (keys, errors) = read(Some(GOOD), &format!("ann:viewer:{GOOD}, b.o-b:operator:{GOOD}"));
        assert_eq!(errors, "");
        let named = |name: &str, role| (name.to_owned(), role);
        let expected = [
            named("admin", AdminRole::Admin),
            named("ann", AdminRole::Viewer),
            named("b.o-b", AdminRole::Operator),
        ];
        assert_eq!(keys, expected);
        assert_eq!(read(None, &format!("admin:admin:{GOOD}")).1, "");
        assert!(read(None, "").1.contains("USHER_ADMIN_KEY (--admin-key): must be given"));
    }

    #[test]
    fn invalid_keys_are_refused() {
        for (keys, error) in [
            (format!("ann:{GOOD}"), "name:role:secret"),
            (GOOD.to_owned(), "name:role:secret"),
            (format!("ann:viewer:{GOOD},"), "name:role:secret"),
            (format!("ann:boss:{GOOD}"), "the role of ann must be"),
            (format!("ann:Viewer:{GOOD}"), "the role of ann must be"),
            (format!(":viewer:{GOOD}"), "each name must match"),
            (format!("a b:viewer:{GOOD}"), "each name must match"),
            (format!("{}:viewer:{GOOD}", "x".repeat(65)), "each name must match"),
            ("ann:viewer:short".to_owned(), "32 characters"),
            ("ann:viewer:changeme-changeme-changeme-changeme".to_owned(), "placeholder"),
            (format!("ann:viewer:{GOOD},ann:admin:{GOOD}"), "the name ann is given twice"),
            (format!("admin:viewer:{GOOD}"), "the name admin is given twice"),
        ] {
            let (_, errors) = read(Some(GOOD), &keys);
            assert!(errors.contains("USHER_ADMIN_KEYS (--admin-keys): "), "{keys}: {errors}");
            assert!(errors.contains(error), "{keys}: {errors}");
            assert!(!errors.contains(GOOD), "{errors}");
        }
    }
}
