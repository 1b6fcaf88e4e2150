//! Parses the limits of connections and callers, CORS and the challenge.

use std::time::Duration;

use axum::http::{HeaderValue, Uri};

use super::args::{HttpArgs, ListenArgs};
use super::check::{SettingsChecker, given};
use crate::edge::{challenge, cors, limits, listener, stream_permits};

/// The maximum of every rate and burst, in requests.
const MAX_RATE: u32 = 1_000_000;

pub(super) fn read_files(
    listen: &ListenArgs,
    check: &mut SettingsChecker,
) -> Option<listener::CertificateFiles> {
    let (chain, key) = (listen.tls_cert_file.as_deref(), listen.tls_key_file.as_deref());
    match (given(chain), given(key)) {
        (Some(_), None) => {
            check.fail("USHER_TLS_KEY_FILE", "must be given with USHER_TLS_CERT_FILE")
        }
        (None, Some(_)) => {
            check.fail("USHER_TLS_CERT_FILE", "must be given with USHER_TLS_KEY_FILE")
        }
        _ => {}
    }
    let files = (check.file("USHER_TLS_CERT_FILE", chain), check.file("USHER_TLS_KEY_FILE", key));
    files.0.zip(files.1).map(|(chain, key)| listener::CertificateFiles { chain, key })
}

pub(super) fn read_listener(
    http: &HttpArgs,
    check: &mut SettingsChecker,
) -> listener::ListenerSettings {
    let defaults = listener::ListenerSettings::default();
    let connections = http.max_connections.as_deref();
    let per_address = http.max_connections_per_address.as_deref();
    let header = http.header_timeout_ms.as_deref();
    let idle = http.idle_timeout_seconds.as_deref();
    listener::ListenerSettings {
        max_connections: check.number(
            "USHER_MAX_CONNECTIONS",
            connections,
            1..=1_000_000,
            defaults.max_connections,
        ),
        max_per_address: check.number(
            "USHER_MAX_CONNECTIONS_PER_ADDRESS",
            per_address,
            0..=1_000_000,
            0,
        ),
        header_timeout: Duration::from_millis(check.number(
            "USHER_HEADER_TIMEOUT_MS",
            header,
            100..=600_000,
            10_000,
        )),
        idle_timeout: Duration::from_secs(check.number(
            "USHER_IDLE_TIMEOUT_SECONDS",
            idle,
            1..=3600,
            75,
        )),
    }
}

pub(super) fn read_streams(
    http: &HttpArgs,
    connections: usize,
    check: &mut SettingsChecker,
) -> stream_permits::StreamLimits {
    let (setting, value) = ("USHER_MAX_STREAMS", http.max_streams.as_deref());
    let total = given(value).map(|_| check.number(setting, value, 1..=1_000_000, 1));
    if total.is_some_and(|total| total >= connections) {
        check.fail(setting, "must be less than USHER_MAX_CONNECTIONS");
    }
    let per_user = http.max_streams_per_user.as_deref();
    let default = stream_permits::StreamLimits::default().per_user;
    let per_user = check.number("USHER_MAX_STREAMS_PER_USER", per_user, 0..=1_000_000, default);
    stream_permits::StreamLimits { total, per_user }
}

pub(super) fn read_limits(
    http: &HttpArgs,
    check: &mut SettingsChecker,
) -> limits::RateLimitSettings {
    let mut rate = |setting, value: &Option<String>, lowest, default| {
        check.number(setting, value.as_deref(), lowest..=MAX_RATE, default)
    };
    let mut own_rate = |setting, value: &Option<String>| {
        given(value.as_deref()).map(|_| rate(setting, value, 0, 0))
    };
    let kinds = [
        own_rate("USHER_LIMIT_JOIN_PER_SECOND", &http.limit_join_per_second),
        own_rate("USHER_LIMIT_POLL_PER_SECOND", &http.limit_poll_per_second),
        own_rate("USHER_LIMIT_BOOK_PER_SECOND", &http.limit_book_per_second),
        own_rate("USHER_LIMIT_PAY_PER_SECOND", &http.limit_pay_per_second),
    ];
    limits::RateLimitSettings {
        user_per_second: rate("USHER_LIMIT_USER_PER_SECOND", &http.limit_user_per_second, 0, 100),
        user_burst: rate("USHER_LIMIT_USER_BURST", &http.limit_user_burst, 1, 400),
        address_per_second: rate(
            "USHER_LIMIT_ADDRESS_PER_SECOND",
            &http.limit_address_per_second,
            0,
            0,
        ),
        global_per_second: rate(
            "USHER_LIMIT_GLOBAL_PER_SECOND",
            &http.limit_global_per_second,
            0,
            0,
        ),
        joins_per_second: rate(
            "USHER_LIMIT_GLOBAL_JOINS_PER_SECOND",
            &http.limit_global_joins_per_second,
            0,
            0,
        ),
        kinds,
        trusted_proxies: check.number(
            "USHER_TRUSTED_PROXIES",
            http.trusted_proxies.as_deref(),
            0..=16,
            0,
        ),
    }
}

pub(super) fn read_origins(http: &HttpArgs, check: &mut SettingsChecker) -> Vec<HeaderValue> {
    let listed = given(http.cors_origins.as_deref()).unwrap_or_default().split(',').map(str::trim);
    let all: Vec<_> = listed.filter(|text| !text.is_empty()).map(cors::parse_origin).collect();
    if all.contains(&None) {
        let must = "must be a comma-separated list of origins such as https://shop.example, \
                    without paths and `*`";
        check.fail("USHER_CORS_ORIGINS", must);
    }
    all.into_iter().flatten().collect()
}

pub(super) fn read_login_url(http: &HttpArgs, check: &mut SettingsChecker) -> Option<String> {
    let url = given(http.login_url.as_deref())?;
    if absolute_url(url).is_none() {
        check.fail("USHER_LOGIN_URL", "must be a URL with https:// or http:// and a host");
    }
    Some(url.to_owned())
}

fn absolute_url(text: &str) -> Option<Uri> {
    let url: Uri = text.parse().ok()?;
    let is_http = matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
    is_http.then_some(url)
}

pub(super) fn read_challenge(
    http: &HttpArgs,
    check: &mut SettingsChecker,
) -> Option<challenge::ChallengeSettings> {
    let timeout = http.challenge_timeout_ms.as_deref();
    let timeout = Duration::from_millis(check.number(
        "USHER_CHALLENGE_TIMEOUT_MS",
        timeout,
        100..=30_000,
        2_000,
    ));
    let fail_open = check.flag("USHER_CHALLENGE_FAIL_OPEN", http.challenge_fail_open.as_deref());
    // The provider chooses the secret, so its length is not checked.
    let secret = given(http.challenge_secret.as_deref());
    let widget = given(http.challenge_widget.as_deref());
    let Some(url) = given(http.challenge_url.as_deref()) else {
        if secret.is_some() {
            check.fail("USHER_CHALLENGE_URL", "must be given with USHER_CHALLENGE_SECRET");
        }
        if widget.is_some() {
            check.fail("USHER_CHALLENGE_WIDGET", "requires USHER_CHALLENGE_URL");
        }
        return None;
    };
    let url = absolute_url(url);
    if url.is_none() {
        check.fail("USHER_CHALLENGE_URL", "must be a URL with https:// or http:// and a host");
    }
    if secret.is_none() {
        check.fail("USHER_CHALLENGE_SECRET", "must be given with USHER_CHALLENGE_URL");
    }
    let widget = widget.map(str::parse::<challenge::ChallengeWidget>).transpose();
    if widget.is_err() {
        let must = "must be turnstile:SITE_KEY or hcaptcha:SITE_KEY";
        check.fail("USHER_CHALLENGE_WIDGET", must);
    }
    let (widget, secret) = (widget.ok()?, secret?.into());
    Some(challenge::ChallengeSettings { url: url?, secret, timeout, fail_open, widget })
}
