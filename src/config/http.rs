//! Settings of the listeners and of the edge.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::HeaderValue;

use super::args::{HttpArgs, ListenArgs};
use super::bounds::{
    read_challenge, read_files, read_limits, read_listener, read_login_url, read_origins,
    read_streams,
};
use super::check::SettingsChecker;
use crate::edge::{challenge, layers, limits, listener, stream_permits};
use crate::shutdown::ShutdownTiming;

/// Settings of both listeners.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Address of the public listener.
    pub listen: SocketAddr,
    /// Address of the admin listener.
    pub admin_listen: SocketAddr,
    /// The certificate of the public listener. `None`: no TLS.
    pub tls: Option<listener::CertificateFiles>,
    pub listener: listener::ListenerSettings,
    pub streams: stream_permits::StreamLimits,
    pub requests: layers::RequestLimits,
    pub cors: Vec<HeaderValue>,
    /// `None`: joins need no challenge.
    pub challenge: Option<challenge::ChallengeSettings>,
    /// The sign-in page of the site, an absolute URL.
    pub login_url: Option<String>,
    /// Requests in flight at which all requests are refused; 0 disables shedding.
    pub shed_in_flight: usize,
    pub limits: limits::RateLimitSettings,
    pub shutdown: ShutdownTiming,
}

impl HttpSettings {
    pub(super) fn read(
        listen: &ListenArgs,
        http: &HttpArgs,
        check: &mut SettingsChecker,
    ) -> Option<Self> {
        let must = "must be an address and a port, such as 127.0.0.1:8080";
        let public = check.parsed("USHER_LISTEN", listen.listen.as_deref(), "127.0.0.1:8080", must);
        let admin = check.parsed(
            "USHER_ADMIN_LISTEN",
            listen.admin_listen.as_deref(),
            "127.0.0.1:8081",
            must,
        );
        if let (Some(public), Some(admin)) = (public, admin)
            && collide(public, admin)
        {
            check.fail("USHER_ADMIN_LISTEN", "must differ from USHER_LISTEN");
        }
        let seconds =
            check.number("USHER_DRAIN_SECONDS", http.drain_seconds.as_deref(), 0..=3600, 20);
        let timeout = http.request_timeout_ms.as_deref();
        let body_limit = http.body_limit_bytes.as_deref();
        let requests = layers::RequestLimits {
            request_timeout: Duration::from_millis(check.number(
                "USHER_REQUEST_TIMEOUT_MS",
                timeout,
                100..=600_000,
                10_000,
            )),
            body_limit: check.number(
                "USHER_BODY_LIMIT_BYTES",
                body_limit,
                1024..=16 << 20,
                64 << 10,
            ),
            admin_body_limit: check.number(
                "USHER_ADMIN_BODY_LIMIT_BYTES",
                http.admin_body_limit_bytes.as_deref(),
                1024..=64 << 20,
                8 << 20,
            ),
        };
        let listener = read_listener(http, check);
        Some(Self {
            streams: read_streams(http, listener.max_connections, check),
            cors: read_origins(http, check),
            challenge: read_challenge(http, check),
            login_url: read_login_url(http, check),
            limits: read_limits(http, check),
            shed_in_flight: check.number(
                "USHER_SHED_IN_FLIGHT",
                http.shed_in_flight.as_deref(),
                0..=10_000_000,
                20_000,
            ),
            listen: public?,
            admin_listen: admin?,
            tls: read_files(listen, check),
            listener,
            requests,
            shutdown: ShutdownTiming::within(Duration::from_secs(seconds)),
        })
    }
}

/// Port 0 means any free port, so it never collides. An unspecified address collides with every
/// address.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let overlap =
        one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && overlap
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn bad(listen: &ListenArgs, http: &HttpArgs) -> Vec<&'static str> {
        let mut check = SettingsChecker::default();
        HttpSettings::read(listen, http, &mut check);
        check.finish().map_or_else(
            |bad| bad.settings().iter().map(|bad| bad.setting).collect(),
            |()| Vec::new(),
        )
    }

    #[test]
    fn addresses_must_be_valid_and_differ() {
        for (listen, admin, wrong) in [
            ("127.0.0.1:0", "127.0.0.1:0", &[][..]),
            ("0.0.0.0:80", "127.0.0.1:81", &[]),
            ("[::1]:80", "127.0.0.1:80", &[]),
            ("127.0.0.1:80", "127.0.0.1:80", &["USHER_ADMIN_LISTEN"]),
            ("0.0.0.0:80", "127.0.0.1:80", &["USHER_ADMIN_LISTEN"]),
            ("localhost:80", ":80", &["USHER_LISTEN", "USHER_ADMIN_LISTEN"]),
            ("80", "127.0.0.1:65536", &["USHER_LISTEN", "USHER_ADMIN_LISTEN"]),
        ] {
            let args = ListenArgs {
                listen: text(listen),
                admin_listen: text(admin),
                ..ListenArgs::default()
            };
            assert_eq!(bad(&args, &HttpArgs::default()), wrong, "{listen} {admin}");
        }
    }

    #[test]
    fn every_limit_is_range_checked() {
        let http = HttpArgs {
            trusted_proxies: text("17"),
            limit_user_per_second: text("1000001"),
            limit_user_burst: text("0"),
            limit_address_per_second: text("-1"),
            limit_global_per_second: text("many"),
            limit_join_per_second: text("-1"),
            limit_poll_per_second: text("x"),
            limit_book_per_second: text("1000001"),
            limit_pay_per_second: text("1.5"),
            limit_global_joins_per_second: text("-1"),
            shed_in_flight: text("10000001"),
            cors_origins: text("*"),
            challenge_url: text("ftp://x"),
            challenge_secret: None,
            challenge_timeout_ms: text("99"),
            challenge_fail_open: text("yes"),
            login_url: text("/login"),
            challenge_widget: text("turnstile"),
            max_connections: text("0"),
            max_connections_per_address: text("-1"),
            max_streams: text("0"),
            max_streams_per_user: text("-1"),
            header_timeout_ms: text("99"),
            idle_timeout_seconds: text("0"),
            drain_seconds: text("3601"),
            request_timeout_ms: text("99"),
            body_limit_bytes: text("1023"),
            admin_body_limit_bytes: text("67108865"),
        };
        assert_eq!(bad(&ListenArgs::default(), &http).len(), 28);
    }

    #[test]
    fn streams_leave_connections_for_other_requests() {
        for (streams, connections, wrong) in [
            ("99", "100", &[][..]),
            ("100", "100", &["USHER_MAX_STREAMS"]),
            ("25000", "", &["USHER_MAX_STREAMS"]),
            ("", "1", &[]),
        ] {
            let http = HttpArgs {
                max_streams: text(streams),
                max_connections: text(connections),
                ..HttpArgs::default()
            };
            assert_eq!(bad(&ListenArgs::default(), &http), wrong, "{streams} of {connections}");
        }
    }

    #[test]
    fn widget_has_a_known_provider_and_a_site_key() {
        let long = format!("turnstile:{}", "x".repeat(101));
        for (widget, url, is_good) in [
            ("", "https://a.example/siteverify", true),
            ("turnstile:0x4AAA-b_1", "https://a.example/siteverify", true),
            ("hcaptcha:10000000-ffff", "https://a.example/siteverify", true),
            ("turnstile:0x4AAA", "", false),
            ("turnstile", "https://a.example/siteverify", false),
            ("turnstile:", "https://a.example/siteverify", false),
            ("recaptcha:0x4AAA", "https://a.example/siteverify", false),
            ("turnstile:\"><script>", "https://a.example/siteverify", false),
            (&long, "https://a.example/siteverify", false),
        ] {
            let http = HttpArgs {
                challenge_url: text(url),
                challenge_secret: if url.is_empty() { None } else { text("0x123") },
                challenge_widget: text(widget),
                ..HttpArgs::default()
            };
            let wrong: &[&str] = if is_good { &[] } else { &["USHER_CHALLENGE_WIDGET"] };
            assert_eq!(bad(&ListenArgs::default(), &http), wrong, "{widget}");
        }
    }

    #[test]
    fn login_page_is_an_absolute_url() {
        for (url, is_good) in [
            ("https://login.example/?next=%2F", true),
            ("http://login.example", true),
            ("", true),
            ("/login", false),
            ("login.example", false),
            ("javascript:alert(1)", false),
            ("https://", false),
        ] {
            let http = HttpArgs { login_url: text(url), ..HttpArgs::default() };
            let wrong: &[&str] = if is_good { &[] } else { &["USHER_LOGIN_URL"] };
            assert_eq!(bad(&ListenArgs::default(), &http), wrong, "{url}");
        }
    }

    #[test]
    fn challenge_needs_both_url_and_secret() {
        let with = |url: &str, secret: &str| HttpArgs {
            challenge_url: text(url),
            challenge_secret: text(secret),
            cors_origins: text(" https://a.example, http://localhost:3000 "),
            ..HttpArgs::default()
        };
        for (url, secret, wrong) in [
            ("", "", &[][..]),
            ("https://a.example/siteverify", "0x123", &[]),
            ("http://127.0.0.1:1/", "0x123", &[]),
            ("https://a.example/siteverify", "", &["USHER_CHALLENGE_SECRET"]),
            ("", "0x123", &["USHER_CHALLENGE_URL"]),
            ("a.example", "0x123", &["USHER_CHALLENGE_URL"]),
            ("/siteverify", "0x123", &["USHER_CHALLENGE_URL"]),
        ] {
            assert_eq!(bad(&ListenArgs::default(), &with(url, secret)), wrong, "{url}");
        }
        let mut check = SettingsChecker::default();
        let settings =
            HttpSettings::read(&ListenArgs::default(), &with("http://x/", "0x123"), &mut check)
                .unwrap();
        assert_eq!(settings.cors, ["https://a.example", "http://localhost:3000"]);
        assert!(!format!("{settings:?}").contains("0x123"));
    }

    #[test]
    fn certificate_needs_its_key() {
        let here = text(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        for (chain, key, wrong) in [
            (&None, &None, &[][..]),
            (&here, &here, &[]),
            (&here, &None, &["USHER_TLS_KEY_FILE"]),
            (&None, &here, &["USHER_TLS_CERT_FILE"]),
            (&here, &text("no-such-file"), &["USHER_TLS_KEY_FILE"]),
        ] {
            let args = ListenArgs {
                tls_cert_file: chain.clone(),
                tls_key_file: key.clone(),
                ..ListenArgs::default()
            };
            assert_eq!(bad(&args, &HttpArgs::default()), wrong);
        }
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let mut check = SettingsChecker::default();
        let settings =
            HttpSettings::read(&ListenArgs::default(), &HttpArgs::default(), &mut check).unwrap();
        check.finish().unwrap();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(settings.admin_listen.to_string(), "127.0.0.1:8081");
        assert_eq!(settings.limits.user_per_second, 100);
        assert_eq!(settings.limits.user_burst, 400);
        assert_eq!((settings.limits.kinds, settings.limits.joins_per_second), ([None; 4], 0));
        assert_eq!(settings.shed_in_flight, 20_000);
        assert_eq!((settings.limits.address_per_second, settings.limits.global_per_second), (0, 0));
        assert_eq!(settings.listener, listener::ListenerSettings::default());
        assert_eq!(settings.streams, stream_permits::StreamLimits::default());
        assert!(settings.tls.is_none());
        assert_eq!(settings.requests.body_limit, 65_536);
        assert_eq!(settings.requests.admin_body_limit, 8_388_608);
        assert_eq!(settings.requests.request_timeout, Duration::from_secs(10));
        assert_eq!(settings.shutdown.deadline, Duration::from_secs(20));
    }
}
