//! Settings: parsed once, validated together, and passed to the modules.
//!
//! clap reads flags and environment variables; flags win. [`args`] lists them. An empty value
//! counts as not set, as in `USHER_SERVICE_KEYS=` of a compose file. All errors are reported
//! together, by the name of the setting. Each module gets its own settings; only `cli` and `app`
//! see the whole [`UsherConfig`].

mod admin_keys;
pub mod args;
mod bounds;
mod check;
pub mod dev;
pub mod events;
mod http;
mod outbox;
mod secrets;
mod stores;
mod top;
mod urls;
mod wallet;

pub use check::{InvalidSetting, InvalidSettings, flag};
pub use events::EventSettings;
pub use http::HttpSettings;
pub use outbox::{KeptEntriesSettings, WatermarkSettings};
pub use secrets::TokenKey;
pub use stores::{AckSettings, MigrateSettings, MysqlSettings, RedisSettings, StoreSettings};
pub use top::{OperatorSettings, top};

use crate::edge::admin_key::AdminKey;
use crate::http::identity;
use args::ServeArgs;
use check::SettingsChecker;

/// All settings of `usher serve`. Its `Debug` shows no secrets.
#[derive(Debug, Clone)]
pub struct UsherConfig {
    pub http: HttpSettings,
    pub identity: identity::IdentitySettings,
    /// Never empty.
    pub admin_keys: Vec<AdminKey>,
    /// The first key signs queue tokens, all of them verify. Never empty.
    pub token_keys: Vec<TokenKey>,
    pub stores: StoreSettings,
    /// Valid settings that may be a mistake, for the log.
    pub warnings: Vec<String>,
}

impl UsherConfig {
    /// Validates the settings of `usher serve`.
    ///
    /// # Errors
    /// All invalid settings.
    pub fn new(args: &ServeArgs) -> Result<Self, InvalidSettings> {
        let mut check = SettingsChecker::default();
        let http = HttpSettings::read(&args.listen, &args.http, &mut check);
        let identity = secrets::identity(&args.secrets, &mut check);
        let admin_keys = admin_keys::admin_keys(&args.secrets, &mut check);
        let token_keys = secrets::token_keys(&args.secrets, &mut check);
        secrets::check_all_differ(&identity, &admin_keys, &token_keys, &mut check);
        let stores = StoreSettings::read(&args.stores, &mut check);
        match (http, stores, check.finish()) {
            (Some(http), Some(stores), Ok(())) => {
                let mut config =
                    Self { http, identity, admin_keys, token_keys, stores, warnings: Vec::new() };
                config.warnings = config.find_warnings();
                Ok(config)
            }
            (.., outcome) => Err(outcome.err().unwrap_or_default()),
        }
    }

    fn find_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let public = self.http.listen;
        if self.identity.header && !public.ip().is_loopback() {
            warnings.push(format!(
                "USHER_AUTH includes `header` and USHER_LISTEN ({public}) is reachable from other \
                 machines: any client can call as any user unless a gateway authenticates requests"
            ));
        }
        if self.http.shutdown.deadline < self.http.requests.request_timeout {
            warnings.push(
                "USHER_DRAIN_SECONDS is shorter than USHER_REQUEST_TIMEOUT_MS: \
                 a shutdown may cut requests"
                    .to_owned(),
            );
        }
        let ack = self.stores.ack;
        if ack.durable && ack.timeout >= self.http.requests.request_timeout {
            warnings.push(
                "USHER_ACK_TIMEOUT_MS is not shorter than USHER_REQUEST_TIMEOUT_MS: \
                 a late durable response times out instead of becoming 202"
                    .to_owned(),
            );
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::args::{HttpArgs, ListenArgs, SecretArgs, StoreArgs};
    use super::*;

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    /// Valid arguments.
    pub(super) fn valid_args() -> ServeArgs {
        ServeArgs {
            listen: ListenArgs::default(),
            http: HttpArgs::default(),
            secrets: SecretArgs {
                auth: text("header, service-key, jwt"),
                jwt_key: text("7c9e6679-jwt-1d4b1f7c0a5be1d94b1f0"),
                jwt_audience: None,
                jwt_issuer: None,
                service_keys: text(
                    "5ervice-key-one-2c7c0a5be1d94b1f, 5ervice-key-two-8a1fd0c3b5e74d2a",
                ),
                admin_key: text("0ff1ce-c2b7a9d84e5f6a1b3c8d7e9f0a"),
                admin_keys: text("ann:viewer:0bserver-b7a9d84e5f6a1b3c8d7e9f0a"),
                token_keys: text(
                    "k2:d41d8cd98f00b204e9800998ecf8427e,k1:7215ee9c7d9dc229d2921a40e899ec5f",
                ),
            },
            stores: StoreArgs {
                redis_url: text("redis://127.0.0.1:6379"),
                mysql_url: text("mysql://usher:hunter2hunter2@127.0.0.1/usher"),
                ..StoreArgs::default()
            },
        }
    }

    #[test]
    fn valid_settings_get_defaults() {
        let config = UsherConfig::new(&valid_args()).unwrap();
        assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.stores.partitions, None);
        assert_eq!(config.token_keys[0].kid, "k2");
        assert!(config.identity.header);
        assert_eq!(config.identity.service_keys.len(), 2);
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }

    #[test]
    fn missing_settings_are_reported_together() {
        let bad = UsherConfig::new(&ServeArgs::default()).unwrap_err();
        let names: Vec<_> = bad.settings().iter().map(|bad| bad.setting).collect();
        let needed = [
            "USHER_AUTH",
            "USHER_ADMIN_KEY",
            "USHER_TOKEN_KEYS",
            "USHER_REDIS_URL",
            "USHER_MYSQL_URL",
        ];
        assert_eq!(names, needed);
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", UsherConfig::new(&valid_args()).unwrap());
        for secret in ["hunter2", "0ff1ce", "5ervice", "d41d8c", "7215ee", "7c9e66", "0bserver"] {
            assert!(!shown.contains(secret), "{secret}: {shown}");
        }
    }

    #[test]
    fn one_secret_in_two_roles_is_refused() {
        for (role, other) in [
            ("admin", "admins"),
            ("admins", "token"),
            ("admin", "service"),
            ("admin", "token"),
            ("service", "token"),
            ("jwt", "token"),
        ] {
            let mut args = valid_args();
            let shared = "f3a1c95be07d4286a1b0c9d8e7f60514";
            for role in [role, other] {
                match role {
                    "admin" => args.secrets.admin_key = text(shared),
                    "admins" => args.secrets.admin_keys = Some(format!("ann:viewer:{shared}")),
                    "service" => args.secrets.service_keys = text(shared),
                    "jwt" => args.secrets.jwt_key = text(shared),
                    _ => args.secrets.token_keys = Some(format!("k1:{shared}")),
                }
            }
            let bad = UsherConfig::new(&args).unwrap_err();
            assert!(bad.to_string().contains("must differ"), "{bad}");
            assert!(!bad.to_string().contains(shared), "{bad}");
        }
    }

    #[test]
    fn risky_settings_cause_warnings() {
        let mut args = valid_args();
        args.listen.listen = text("0.0.0.0:8080");
        args.http.drain_seconds = text("1");
        let warnings = UsherConfig::new(&args).unwrap().warnings;
        assert!(
            warnings[0].contains("USHER_AUTH") && warnings[1].contains("USHER_DRAIN_SECONDS"),
            "{warnings:?}"
        );
        args.secrets.auth = text("service-key,jwt");
        assert_eq!(UsherConfig::new(&args).unwrap().warnings.len(), 1);
    }
}
