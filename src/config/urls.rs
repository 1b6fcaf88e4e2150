//! Validates the URLs of the stores, including their TLS parameters.

use secrecy::SecretString;

use super::check::SettingsChecker;
use crate::redis::RedisAddress;

/// The URL, and whether it uses TLS.
pub(super) fn parse_redis_url(
    value: Option<&str>,
    check: &mut SettingsChecker,
) -> Option<(SecretString, bool)> {
    let url = check.required("USHER_REDIS_URL", value)?;
    match url.parse::<RedisAddress>() {
        Ok(address) => Some((url.into(), address.is_encrypted())),
        Err(why) => {
            check.fail("USHER_REDIS_URL", why);
            None
        }
    }
}

/// Validates the URL. TLS parameters of MySQL are part of the URL, so the CA file is added to it.
pub(super) fn parse_mysql_url(
    value: Option<&str>,
    ca_file: Option<&str>,
    check: &mut SettingsChecker,
) -> Option<SecretString> {
    let url = validate_mysql_url(value, check)?;
    let Some(path) = check.file("USHER_MYSQL_CA_FILE", ca_file) else { return Some(url.into()) };
    let (bare, query) = url.split_once('?').unwrap_or((url, ""));
    let mut verified = None;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "ssl-mode" | "sslmode" => {
                verified = Some(
                    ["verify_ca", "verify_identity"].contains(&value.to_ascii_lowercase().as_str()),
                )
            }
            "ssl-ca" | "sslca" => verified = Some(false),
            _ => {}
        }
    }
    let mut query =
        form_urlencoded::Serializer::for_suffix(format!("{bare}?{query}"), bare.len() + 1);
    match verified {
        None => drop(query.append_pair("ssl-mode", "verify_identity")),
        Some(true) => {}
        Some(false) => {
            check.fail(
                "USHER_MYSQL_CA_FILE",
                "conflicts with USHER_MYSQL_URL: its ssl-mode must be verify_ca or verify_identity, \
                 without ssl-ca",
            );
        }
    }
    Some(query.append_pair("ssl-ca", path.to_str()?).finish().into())
}

fn validate_mysql_url<'a>(value: Option<&'a str>, check: &mut SettingsChecker) -> Option<&'a str> {
    let url = check.required("USHER_MYSQL_URL", value)?;
    let Some(("mysql" | "mariadb", rest)) = url.split_once("://") else {
        check.fail("USHER_MYSQL_URL", "must start with mysql:// or mariadb://");
        return None;
    };
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    match path.split_once('/') {
        Some((host, database)) if !host.is_empty() && !database.is_empty() => Some(url),
        _ => {
            check.fail(
                "USHER_MYSQL_URL",
                "must have a host and a database: mysql://user:password@host/database",
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn errors(check: SettingsChecker) -> Vec<&'static str> {
        check.finish().map_or_else(
            |bad| bad.settings().iter().map(|bad| bad.setting).collect(),
            |()| Vec::new(),
        )
    }

    #[test]
    fn only_urls_of_known_schemes_are_accepted() {
        for (url, is_valid) in [
            ("redis://:password@127.0.0.1:6379/0", true),
            ("redis-sentinel://a:1,b:2/main", true),
            ("redis-cluster://a:1", true),
            ("rediss://a", true),
            ("rediss-sentinel://a/main", true),
            ("redis-sentinel://a", false),
            ("rediss-cluster://a:1", true),
            ("", false),
            ("127.0.0.1:6379", false),
            ("redisss://a", false),
            ("http://a", false),
            ("rediss://", false),
            ("redis:a", false),
        ] {
            let mut check = SettingsChecker::default();
            assert_eq!(parse_redis_url(Some(url), &mut check).is_some(), is_valid, "{url}");
            assert_eq!(errors(check).is_empty(), is_valid, "{url}");
        }
        for (url, is_valid) in [
            ("mysql://root@127.0.0.1/usher", true),
            ("mariadb://u:p@h:1/d?ssl-mode=required", true),
            ("mysql://root@localhost/usher?socket=/run/x.sock", true),
            ("", false),
            ("postgres://a/b", false),
            ("mysql://h", false),
            ("mysql://h/", false),
            ("mysql://h/?x=/y", false),
            ("mysql:///d", false),
        ] {
            let mut check = SettingsChecker::default();
            assert_eq!(parse_mysql_url(Some(url), None, &mut check).is_some(), is_valid, "{url}");
            assert_eq!(errors(check).is_empty(), is_valid, "{url}");
        }
    }

    #[test]
    fn ca_file_enables_host_name_verification() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let with = |query: &str, file: &str| {
            let mut check = SettingsChecker::default();
            let url =
                parse_mysql_url(Some(&format!("mysql://u:p@h/d{query}")), Some(file), &mut check);
            (url.map(|url| url.expose_secret().to_owned()).unwrap_or_default(), errors(check))
        };
        let (url, bad) = with("", file);
        assert!(
            url.starts_with("mysql://u:p@h/d?ssl-mode=verify_identity&ssl-ca=") && bad.is_empty(),
            "{url}"
        );
        let (url, bad) = with("?ssl-mode=VERIFY_CA&charset=utf8mb4", file);
        assert!(
            url.contains("?ssl-mode=VERIFY_CA&charset=utf8mb4&ssl-ca=") && bad.is_empty(),
            "{url}"
        );
        for (query, file) in [
            ("?ssl-mode=required", file),
            ("?ssl-mode=disabled", file),
            ("?ssl-ca=x", file),
            ("", "no-such-file"),
        ] {
            assert_eq!(with(query, file).1, ["USHER_MYSQL_CA_FILE"], "{query}");
        }
        assert_eq!(with("", "").0, "mysql://u:p@h/d", "an empty value means no file");
    }
}
