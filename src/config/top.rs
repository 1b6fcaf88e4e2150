//! Settings of `usher top`.

use axum::http::Uri;

use super::args::TopArgs;
use super::check::{InvalidSettings, SettingsChecker, given};
use crate::dev::top;

/// Validates the settings of `usher top`.
///
/// # Errors
/// All invalid settings.
pub fn top(args: &TopArgs) -> Result<top::TopSettings, InvalidSettings> {
    let mut check = SettingsChecker::default();
    let url =
        given(args.admin_url.as_deref()).unwrap_or("http://127.0.0.1:8081").trim_end_matches('/');
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
    let key = given(args.admin_key.as_deref());
    if key.is_some_and(|key| !key.bytes().all(|byte| byte.is_ascii_graphic())) {
        check.fail("USHER_ADMIN_KEY", "must consist of visible ASCII characters");
    }
    check.finish()?;
    Ok(top::TopSettings {
        url: url.to_owned(),
        key: key.map(|key| key.to_owned().into()),
        once: args.once,
    })
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
