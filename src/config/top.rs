//! Settings of the commands that call the admin listener: `usher top` and those for incidents.

use axum::http::Uri;
use secrecy::SecretString;

use super::args::{OperatorArgs, TopArgs};
use super::check::{InvalidSettings, SettingsChecker, given};
use crate::dev::top;

/// Validates the settings of `usher top`.
///
/// # Errors
/// All invalid settings.
pub fn top(args: &TopArgs) -> Result<top::TopSettings, InvalidSettings> {
    let mut check = SettingsChecker::default();
    let url = admin_url(args.admin_url.as_deref(), &mut check);
    let key = given(args.admin_key.as_deref());
    check_key(key, &mut check);
    check.finish()?;
    Ok(top::TopSettings { url, key: key.map(|key| key.to_owned().into()), once: args.once })
}

/// Settings of the commands for incidents.
#[derive(Debug, Clone)]
pub struct OperatorSettings {
    /// The admin listener, as `http://host:port`.
    pub url: String,
    pub key: SecretString,
    /// Whether the operator has confirmed what can't be undone.
    pub is_confirmed: bool,
}

impl OperatorSettings {
    /// Validates the settings of the commands for incidents.
    ///
    /// # Errors
    /// All invalid settings.
    pub fn new(args: &OperatorArgs) -> Result<Self, InvalidSettings> {
        let mut check = SettingsChecker::default();
        let url = admin_url(args.admin_url.as_deref(), &mut check);
        let key = check.required("USHER_ADMIN_KEY", args.admin_key.as_deref()).unwrap_or_default();
        check_key(Some(key), &mut check);
        check.finish()?;
        Ok(Self { url, key: key.to_owned().into(), is_confirmed: args.yes })
    }
}

fn admin_url(text: Option<&str>, check: &mut SettingsChecker) -> String {
    let url = given(text).unwrap_or("http://127.0.0.1:8081").trim_end_matches('/');
    let is_valid = url.parse::<Uri>().is_ok_and(|uri| {
        uri.scheme_str() == Some("http")
            && uri.host().is_some()
            && uri.path() == "/"
            && uri.query().is_none()
    });
    if !is_valid {
        check.fail(
            "USHER_ADMIN_URL",
            "must be http:// with a host and a port, such as http://127.0.0.1:8081",
        );
    }
    url.to_owned()
}

fn check_key(key: Option<&str>, check: &mut SettingsChecker) {
    if key.is_some_and(|key| !key.bytes().all(|byte| byte.is_ascii_graphic())) {
        check.fail("USHER_ADMIN_KEY", "must consist of visible ASCII characters");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_url_is_an_address_without_a_path() {
        let read = |url: &str, key: &str| {
            let text = |text: &str| Some(text.to_owned());
            top(&TopArgs { admin_url: text(url), admin_key: text(key), once: true })
                .map_err(|bad| bad.settings().iter().map(|bad| bad.setting).collect::<Vec<_>>())
        };
        assert_eq!(read("", "").unwrap().url, "http://127.0.0.1:8081");
        assert!(read("", "").unwrap().key.is_none());
        let settings = read("http://[::1]:81/", "a-key").unwrap();
        assert_eq!(settings.url, "http://[::1]:81");
        assert!(settings.key.is_some() && !format!("{settings:?}").contains("a-key"));
        for bad in [
            "127.0.0.1:8081",
            "https://host:1",
            "http://host:1/metrics",
            "http://host:1?x",
            "http://",
        ] {
            assert_eq!(read(bad, "").unwrap_err(), ["USHER_ADMIN_URL"], "{bad}");
        }
        assert_eq!(read("", "two words").unwrap_err(), ["USHER_ADMIN_KEY"]);
    }
}
