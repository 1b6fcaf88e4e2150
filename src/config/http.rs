//! Listeners, and the bounds on what comes in by them.

use std::net::SocketAddr;
use std::time::Duration;

use super::args::{HttpArgs, ListenArgs};
use super::check::Checker;
use crate::http::{layers, limits, listener};
use crate::shutdown::Timing;

/// The highest rate or burst that can be set, in requests.
const HIGHEST_RATE: u32 = 1_000_000;

/// What both listeners run on.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// The public listener.
    pub listen: SocketAddr,
    /// The admin listener.
    pub admin_listen: SocketAddr,
    /// Bounds on connections.
    pub listener: listener::Settings,
    /// Bounds on one request.
    pub requests: layers::Settings,
    /// Bounds on callers.
    pub limits: limits::Settings,
    /// How a shutdown goes.
    pub shutdown: Timing,
}

impl HttpSettings {
    pub(super) fn read(listen: &ListenArgs, http: &HttpArgs, check: &mut Checker) -> Option<Self> {
        let must = "must be an address and a port, such as 127.0.0.1:8080";
        let public = check.parsed("USHER_LISTEN", listen.listen.as_deref(), "127.0.0.1:8080", must);
        let admin =
            check.parsed("USHER_ADMIN_LISTEN", listen.admin_listen.as_deref(), "127.0.0.1:8081", must);
        if let (Some(public), Some(admin)) = (public, admin)
            && collide(public, admin)
        {
            check.fail("USHER_ADMIN_LISTEN", "must not be where USHER_LISTEN is");
        }
        let seconds = check.number("USHER_DRAIN_SECONDS", http.drain_seconds.as_deref(), 0..=3600, 20);
        let timeout = http.request_timeout_ms.as_deref();
        let body_limit = http.body_limit_bytes.as_deref();
        let requests = layers::Settings {
            request_timeout: Duration::from_millis(check.number(
                "USHER_REQUEST_TIMEOUT_MS",
                timeout,
                100..=600_000,
                10_000,
            )),
            body_limit: check.number("USHER_BODY_LIMIT_BYTES", body_limit, 1024..=16 << 20, 64 << 10),
        };
        Some(Self {
            limits: read_limits(http, check),
            listen: public?,
            admin_listen: admin?,
            listener: listener::Settings {
                max_connections: check.number(
                    "USHER_MAX_CONNECTIONS",
                    http.max_connections.as_deref(),
                    1..=1_000_000,
                    listener::Settings::default().max_connections,
                ),
                ..listener::Settings::default()
            },
            requests,
            shutdown: Timing::within(Duration::from_secs(seconds)),
        })
    }
}

fn read_limits(http: &HttpArgs, check: &mut Checker) -> limits::Settings {
    let mut rate = |setting, value: &Option<String>, lowest, default| {
        check.number(setting, value.as_deref(), lowest..=HIGHEST_RATE, default)
    };
    limits::Settings {
        user_per_second: rate("USHER_LIMIT_USER_PER_SECOND", &http.limit_user_per_second, 0, 100),
        user_burst: rate("USHER_LIMIT_USER_BURST", &http.limit_user_burst, 1, 400),
        address_per_second: rate("USHER_LIMIT_ADDRESS_PER_SECOND", &http.limit_address_per_second, 0, 0),
        global_per_second: rate("USHER_LIMIT_GLOBAL_PER_SECOND", &http.limit_global_per_second, 0, 0),
        trusted_proxies: check.number("USHER_TRUSTED_PROXIES", http.trusted_proxies.as_deref(), 0..=16, 0),
    }
}

/// Port 0 is any free port, so it never collides; an unspecified address takes its port on all of them.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let overlap = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && overlap
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn bad(listen: &ListenArgs, http: &HttpArgs) -> Vec<&'static str> {
        let mut check = Checker::default();
        HttpSettings::read(listen, http, &mut check);
        check
            .finish()
            .map_or_else(|bad| bad.settings().iter().map(|bad| bad.setting).collect(), |()| Vec::new())
    }

    #[test]
    fn addresses_must_be_addresses_and_differ() {
        for (listen, admin, wrong) in [
            ("127.0.0.1:0", "127.0.0.1:0", &[][..]),
            ("0.0.0.0:80", "127.0.0.1:81", &[]),
            ("[::1]:80", "127.0.0.1:80", &[]),
            ("127.0.0.1:80", "127.0.0.1:80", &["USHER_ADMIN_LISTEN"]),
            ("0.0.0.0:80", "127.0.0.1:80", &["USHER_ADMIN_LISTEN"]),
            ("localhost:80", ":80", &["USHER_LISTEN", "USHER_ADMIN_LISTEN"]),
            ("80", "127.0.0.1:65536", &["USHER_LISTEN", "USHER_ADMIN_LISTEN"]),
        ] {
            let args = ListenArgs { listen: text(listen), admin_listen: text(admin) };
            assert_eq!(bad(&args, &HttpArgs::default()), wrong, "{listen} {admin}");
        }
    }

    #[test]
    fn every_bound_is_bounded() {
        let http = HttpArgs {
            trusted_proxies: text("17"),
            limit_user_per_second: text("1000001"),
            limit_user_burst: text("0"),
            limit_address_per_second: text("-1"),
            limit_global_per_second: text("many"),
            max_connections: text("0"),
            drain_seconds: text("3601"),
            request_timeout_ms: text("99"),
            body_limit_bytes: text("1023"),
        };
        assert_eq!(bad(&ListenArgs::default(), &http).len(), 9);
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let mut check = Checker::default();
        let settings = HttpSettings::read(&ListenArgs::default(), &HttpArgs::default(), &mut check).unwrap();
        check.finish().unwrap();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(settings.admin_listen.to_string(), "127.0.0.1:8081");
        assert_eq!(settings.limits.user_per_second, 100);
        assert_eq!(settings.limits.user_burst, 400);
        assert_eq!((settings.limits.address_per_second, settings.limits.global_per_second), (0, 0));
        assert_eq!(settings.requests.body_limit, 65_536);
        assert_eq!(settings.requests.request_timeout, Duration::from_secs(10));
        assert_eq!(settings.shutdown.deadline, Duration::from_secs(20));
    }
}
