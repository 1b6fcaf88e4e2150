//! Parses `USHER_REDIS_URL`.
//!
//! ```text
//! redis://[user:password@]host[:port][/database]
//! redis-sentinel://[user:password@]host[:port][,host[:port]…]/service[?sentinelPassword=…][&sentinelUsername=…]
//! redis-cluster://[user:password@]host[:port][,host[:port]…]
//! ```
//! `rediss…` in place of `redis…` means TLS, also to the Sentinels. Further hosts may be given as
//! `?node=host:port`, and the service as `?sentinelServiceName=…`. Credentials and parameter values
//! may be percent-encoded.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use fred::types::config::{Config, Server, ServerConfig, TlsConfig, TlsConnector};

use crate::tls;

/// The kind of deployment behind the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RedisLayout {
    /// One standalone Redis.
    One,
    /// Sentinels, which report the primary of a service.
    Sentinel {
        /// The name under which the Sentinels monitor it.
        service: String,
        /// The credentials of the Sentinels themselves.
        credentials: RedisCredentials,
    },
    /// Some nodes of a Redis Cluster.
    Cluster,
}

#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct RedisCredentials {
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
}

impl std::fmt::Debug for RedisCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisAddress {
    pub(super) kind: RedisLayout,
    pub(super) hosts: Vec<Server>,
    pub(super) credentials: RedisCredentials,
    database: Option<u8>,
    encrypted: bool,
    tls: Option<TlsConfig>,
}

impl RedisAddress {
    /// Sets up TLS with the certificate authorities of a file (PEM), or those of Mozilla without
    /// one. A server's certificate must be for the host in the address; in a cluster and behind
    /// Sentinels, for the host that they announce.
    ///
    /// # Errors
    /// When the file can't be read or holds no certificates.
    pub(super) fn trusting(mut self, authorities: Option<&Path>) -> Result<Self, tls::Error> {
        if self.encrypted {
            let client = tls::client_config(authorities)?;
            let connector = TlsConnector::from(tokio_rustls::TlsConnector::from(Arc::new(client)));
            self.tls = Some(TlsConfig::from(connector));
        }
        Ok(self)
    }

    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// The driver's configuration for a server that owns partitions.
    pub(super) fn config(&self, server: Server) -> Config {
        self.config_with(server, &self.credentials, self.database)
    }

    pub(super) fn config_with(
        &self,
        server: Server,
        credentials: &RedisCredentials,
        database: Option<u8>,
    ) -> Config {
        Config {
            server: ServerConfig::Centralized { server },
            username: credentials.username.clone(),
            password: credentials.password.clone(),
            database,
            fail_fast: true,
            tls: self.tls.clone(),
            ..Config::default()
        }
    }
}

impl FromStr for RedisAddress {
    /// A message that follows the name of the setting.
    type Err = &'static str;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        const SCHEMES: &str =
            "must start with redis://, redis-sentinel:// or redis-cluster:// (rediss… for TLS)";
        let (scheme, rest) = url.trim().split_once("://").ok_or(SCHEMES)?;
        let encrypted = scheme.starts_with("rediss");
        let scheme = &scheme.replacen("rediss", "redis", 1)[..];
        let (port, several) = match scheme {
            "redis" => (6379, false),
            "redis-sentinel" => (26_379, true),
            "redis-cluster" => (6379, true),
            _ => return Err(SCHEMES),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, authority) = match authority.rsplit_once('@') {
            Some((credentials, authority)) => (read_credentials(credentials), authority),
            None => (RedisCredentials::default(), authority),
        };
        let mut hosts = authority
            .split(',')
            .map(|host| read_host(host, port))
            .collect::<Result<Vec<_>, _>>()?;
        let mut service =
            Some(path).filter(|_| scheme == "redis-sentinel").map(decoded).unwrap_or_default();
        let mut sentinels = RedisCredentials::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match (scheme, name.as_ref()) {
                ("redis-sentinel" | "redis-cluster", "node") => {
                    hosts.push(read_host(&value, port)?)
                }
                ("redis-sentinel", "sentinelServiceName") => service = value.into_owned(),
                ("redis-sentinel", "sentinelUsername") => {
                    sentinels.username = Some(value.into_owned())
                }
                ("redis-sentinel", "sentinelPassword") => {
                    sentinels.password = Some(value.into_owned())
                }
                _ => return Err("has an unknown parameter after the ?"),
            }
        }
        if hosts.len() > 1 && !several {
            return Err("names several hosts; use redis-sentinel:// or redis-cluster:// for that");
        }
        let mut database = None;
        let kind = match scheme {
            "redis-sentinel" if service.is_empty() => {
                return Err(
                    "must name the service: redis-sentinel://host:26379,host:26379/service",
                );
            }
            "redis-sentinel" => RedisLayout::Sentinel { service, credentials: sentinels },
            "redis-cluster" if !path.is_empty() => {
                return Err("names a database, but a cluster has no databases");
            }
            "redis-cluster" => RedisLayout::Cluster,
            _ => {
                if !path.is_empty() {
                    database = Some(
                        path.parse()
                            .map_err(|_| "must end with a database number, or without one")?,
                    );
                }
                RedisLayout::One
            }
        };
        Ok(Self { kind, hosts, credentials, database, encrypted, tls: None })
    }
}

fn read_host(text: &str, port: u16) -> Result<Server, &'static str> {
    const HOST: &str = "must name a host, optionally with a port: redis://host:6379";
    let (host, port) = match text.rsplit_once(':') {
        // The colons of a bracketed IPv6 address are no port separators.
        Some((host, _)) if host.contains('[') && !host.contains(']') => (text, port),
        Some((host, port)) => (host, port.parse().map_err(|_| HOST)?),
        None => (text, port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains(char::is_whitespace) || port == 0 {
        return Err(HOST);
    }
    Ok(Server::new(host, port))
}

fn read_credentials(text: &str) -> RedisCredentials {
    let some = |text: &str| Some(decoded(text)).filter(|text| !text.is_empty());
    match text.split_once(':') {
        Some((username, password)) => {
            RedisCredentials { username: some(username), password: some(password) }
        }
        None => RedisCredentials { username: some(text), password: None },
    }
}

/// Decodes percent-encoding. The separators of a query string (`+`, `&`, `=`) are taken literally.
fn decoded(text: &str) -> String {
    let escaped = text.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(escaped.as_bytes())
        .next()
        .map(|(text, _)| text.into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(address: &RedisAddress) -> Vec<String> {
        address.hosts.iter().map(|server| format!("{}:{}", server.host, server.port)).collect()
    }

    #[test]
    fn every_url_form_parses() {
        let one: RedisAddress = "redis://us%40er:p%3A+=&w@h:1/3".parse().unwrap();
        assert_eq!(
            (&one.kind, hosts(&one), one.database),
            (&RedisLayout::One, vec!["h:1".to_owned()], Some(3))
        );
        assert_eq!(one.credentials.username.as_deref(), Some("us@er"));
        assert_eq!(one.credentials.password.as_deref(), Some("p:+=&w"));
        let plain: RedisAddress = "redis://:secret@[::1]".parse().unwrap();
        assert_eq!(
            (hosts(&plain), plain.credentials.username.clone()),
            (vec!["::1:6379".to_owned()], None)
        );
        let cluster: RedisAddress = "redis-cluster://a,b:2?node=c:3".parse().unwrap();
        assert_eq!(
            (&cluster.kind, hosts(&cluster).join(" ")),
            (&RedisLayout::Cluster, "a:6379 b:2 c:3".into())
        );
        for (url, encrypted) in
            [("redis://h", false), ("rediss://h", true), ("rediss-cluster://h", true)]
        {
            let address: RedisAddress = url.parse().unwrap();
            let server = address.hosts[0].clone();
            let address = address.trusting(None).unwrap();
            assert_eq!(
                (address.is_encrypted(), address.config(server).tls.is_some()),
                (encrypted, encrypted)
            );
        }
        for url in [
            "redis-sentinel://a,b:2/main?sentinelPassword=x",
            "redis-sentinel://a?node=b:2&sentinelServiceName=main&sentinelPassword=x",
        ] {
            let sentinels: RedisAddress = url.parse().unwrap();
            assert_eq!(hosts(&sentinels).join(" "), "a:26379 b:2");
            let credentials = RedisCredentials { username: None, password: Some("x".into()) };
            assert_eq!(
                sentinels.kind,
                RedisLayout::Sentinel { service: "main".into(), credentials }
            );
        }
    }

    #[test]
    fn invalid_urls_are_rejected_with_the_cause() {
        for (url, cause) in [
            ("h:1", "must start with"),
            ("http://h", "must start with"),
            ("redisss://h", "must start with"),
            ("rediss-cluster://h/1", "a cluster has no databases"),
            ("redis://", "must name a host"),
            ("redis://h:x", "must name a host"),
            ("redis://h:0", "must name a host"),
            ("redis-cluster://a,,b", "must name a host"),
            ("redis://a,b", "several hosts"),
            ("redis://h/x", "database number"),
            ("redis-cluster://h/1", "a cluster has no databases"),
            ("redis-sentinel://h", "must name the service"),
            ("redis-cluster://h?tls=1", "unknown parameter"),
        ] {
            let error = url.parse::<RedisAddress>().unwrap_err();
            assert!(error.contains(cause), "{url}: {error}");
        }
    }
}
