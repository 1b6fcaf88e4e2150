//! Where Redis is: `USHER_REDIS_URL`, read.
//!
//! ```text
//! redis://[user:password@]host[:port][/database]
//! redis-sentinel://[user:password@]host[:port][,host[:port]…]/service[?sentinelPassword=…][&sentinelUsername=…]
//! redis-cluster://[user:password@]host[:port][,host[:port]…]
//! ```
//!
//! With an `s` after `redis` each of them speaks TLS, Sentinels too. Further hosts may also be given as `?node=host:port`, and the service as `?sentinelServiceName=…`. What stands in the authority before `@` and
//! after `=` may be percent-encoded.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use fred::types::config::{Config, Server, ServerConfig, TlsConfig, TlsConnector};

use crate::tls;

/// What answers at the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RedisLayout {
    /// One Redis.
    One,
    /// Sentinels, who know which Redis is the primary of this service.
    Sentinel {
        /// The name under which they watch it.
        service: String,
        /// How they are spoken to, when they want to know.
        credentials: RedisCredentials,
    },
    /// Some nodes of a cluster.
    Cluster,
}

/// A user and a password, if any.
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

/// Where Redis is.
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
    /// The same, where TLS is spoken trusting the authorities in a file (PEM), or Mozilla's without one. The name that the address has for a server is
    /// the one that its certificate must have; of a cluster and behind Sentinels it is what they call each other.
    ///
    /// # Errors
    /// When the file can't be used.
    pub(super) fn trusting(mut self, authorities: Option<&Path>) -> Result<Self, tls::Error> {
        if self.encrypted {
            let client = tls::client(authorities)?;
            let connector = TlsConnector::from(tokio_rustls::TlsConnector::from(Arc::new(client)));
            self.tls = Some(TlsConfig::from(connector));
        }
        Ok(self)
    }

    /// Whether TLS is spoken.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// The driver's configuration for one of the servers that hold data.
    pub(super) fn config(&self, server: Server) -> Config {
        self.config_with(server, &self.credentials, self.database)
    }

    /// The driver's configuration for some server.
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
    /// What is wrong, to be read after the setting's name.
    type Err = &'static str;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        const SCHEMES: &str =
            "must begin with redis://, redis-sentinel:// or redis-cluster:// (rediss… with TLS)";
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
                _ => return Err("has a parameter after its ? that is not known"),
            }
        }
        if hosts.len() > 1 && !several {
            return Err("names several hosts: that is redis-sentinel:// or redis-cluster://");
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
                return Err("names a database, which a cluster has none of");
            }
            "redis-cluster" => RedisLayout::Cluster,
            _ => {
                if !path.is_empty() {
                    database = Some(
                        path.parse()
                            .map_err(|_| "must end in the number of a database, or nothing")?,
                    );
                }
                RedisLayout::One
            }
        };
        Ok(Self { kind, hosts, credentials, database, encrypted, tls: None })
    }
}

fn read_host(text: &str, port: u16) -> Result<Server, &'static str> {
    const HOST: &str = "must name a host, and after it perhaps a port: redis://host:6379";
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an address in brackets are its own.
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

/// Without percent signs. A form's own signs mean themselves here.
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
    fn every_form_is_read() {
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
    fn what_is_wrong_is_said() {
        for (url, said) in [
            ("h:1", "must begin with"),
            ("http://h", "must begin with"),
            ("redisss://h", "must begin with"),
            ("rediss-cluster://h/1", "a cluster has none"),
            ("redis://", "must name a host"),
            ("redis://h:x", "must name a host"),
            ("redis://h:0", "must name a host"),
            ("redis-cluster://a,,b", "must name a host"),
            ("redis://a,b", "several hosts"),
            ("redis://h/x", "number of a database"),
            ("redis-cluster://h/1", "a cluster has none"),
            ("redis-sentinel://h", "must name the service"),
            ("redis-cluster://h?tls=1", "not known"),
        ] {
            let wrong = url.parse::<RedisAddress>().unwrap_err();
            assert!(wrong.contains(said), "{url}: {wrong}");
        }
    }
}
