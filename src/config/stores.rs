//! Settings of Redis, MySQL and the outbox.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::args::{MigrateArgs, MysqlArgs, StoreArgs};
use super::check::{InvalidSettings, SettingsChecker, given};
use super::events::EventSettings;
use super::outbox::{KeptEntriesSettings, WatermarkSettings, parse_kept_entries, parse_watermarks};
use super::urls::{parse_mysql_url, parse_redis_url};
use super::wallet::parse_currency;
use crate::money::{CurrencyCode, Money};
use crate::partition::PartitionCount;

#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// `redis://`, `redis-sentinel://` or `redis-cluster://`, and `rediss…` for TLS. May contain a
    /// password.
    pub url: SecretString,
    /// Certificate authorities for TLS. `None`: Mozilla's list.
    pub ca_file: Option<PathBuf>,
    /// Prefix of all keys, `[a-z0-9_-]{1,32}`.
    pub key_prefix: String,
    /// Replicas that must acknowledge a change before the response and before the write to MySQL.
    pub wait_replicas: u32,
    /// Whether the append-only files of these servers must be on disk, too.
    pub wait_aof: bool,
    /// Accept a Redis that may evict keys or has no append-only file.
    pub may_forget: bool,
}

impl RedisSettings {
    /// A Redis with default settings.
    pub fn of(url: SecretString) -> Self {
        let key_prefix = "usher".to_owned();
        Self {
            url,
            ca_file: None,
            key_prefix,
            wait_replicas: 0,
            wait_aof: false,
            may_forget: false,
        }
    }
}

#[derive(Debug, Clone)]
pub struct MysqlSettings {
    /// `mysql://` or `mariadb://` with a database. May contain a password.
    pub url: SecretString,
}

/// Settings of both stores.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    pub redis: RedisSettings,
    pub mysql: MysqlSettings,
    /// Must be equal to the number in the database. `None`: the number in the database.
    pub partitions: Option<PartitionCount>,
    pub ack: AckSettings,
    pub watermarks: WatermarkSettings,
    pub kept_entries: KeptEntriesSettings,
    pub events: EventSettings,
    pub currency: CurrencyCode,
    pub wallet_limit: Money,
}

/// When to respond to a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckSettings {
    /// Respond once MySQL has the change, not already once Redis has it.
    pub durable: bool,
    /// How long to wait for MySQL before the response is 202.
    pub timeout: Duration,
}

impl Default for AckSettings {
    fn default() -> Self {
        Self { durable: false, timeout: Duration::from_secs(3) }
    }
}

/// Settings of `usher migrate`.
#[derive(Debug, Clone)]
pub struct MigrateSettings {
    pub mysql: MysqlSettings,
    /// As [`StoreSettings::partitions`]; the first migration stores it.
    pub partitions: Option<PartitionCount>,
    /// What the first migration stores without it.
    pub default_partitions: PartitionCount,
}

impl StoreSettings {
    /// Validates the settings of a command that uses both stores.
    ///
    /// # Errors
    /// All invalid settings.
    pub fn new(args: &StoreArgs) -> Result<Self, InvalidSettings> {
        let mut check = SettingsChecker::default();
        let settings = Self::read(args, &mut check);
        check.finish()?;
        settings.ok_or_else(InvalidSettings::default)
    }

    /// Like [`Self::new`], but `USHER_PARTITIONS` is required. Returns it, too.
    ///
    /// # Errors
    /// All invalid settings.
    pub fn with_required_partitions(
        args: &StoreArgs,
    ) -> Result<(Self, PartitionCount), InvalidSettings> {
        let mut check = SettingsChecker::default();
        check.required("USHER_PARTITIONS", args.partitions.as_deref());
        let settings = Self::read(args, &mut check);
        check.finish()?;
        settings
            .and_then(|settings| settings.partitions.map(|partitions| (settings, partitions)))
            .ok_or_else(InvalidSettings::default)
    }

    pub(super) fn read(args: &StoreArgs, check: &mut SettingsChecker) -> Option<Self> {
        let redis_url = parse_redis_url(args.redis_url.as_deref(), check);
        let mysql_url =
            parse_mysql_url(args.mysql_url.as_deref(), args.mysql_ca_file.as_deref(), check);
        let ca_file = check.file("USHER_REDIS_CA_FILE", args.redis_ca_file.as_deref());
        if ca_file.is_some() && redis_url.as_ref().is_some_and(|(_, encrypted)| !encrypted) {
            check.fail("USHER_REDIS_CA_FILE", "needs a USHER_REDIS_URL that begins with rediss");
        }
        let currency = parse_currency(args, check);
        let wallet_limit = args.wallet.limit(check);
        let partitions = parse_partitions(args.partitions.as_deref(), check);
        let ack = parse_ack(args, check);
        let watermarks = parse_watermarks(args, check);
        let kept_entries = parse_kept_entries(args, check);
        let events = EventSettings::read(&args.events, check);
        let replicas = args.redis_wait_replicas.as_deref();
        let wait_replicas = check.number("USHER_REDIS_WAIT_REPLICAS", replicas, 0..=16, 0);
        let wait_aof = check.flag("USHER_REDIS_WAIT_AOF", args.redis_wait_aof.as_deref());
        let may_forget = check.flag("USHER_REDIS_MAY_FORGET", args.redis_may_forget.as_deref());
        let key_prefix = given(args.key_prefix.as_deref()).unwrap_or("usher").to_owned();
        // Neither a brace nor a colon: the prefix must not change which slot of a cluster a key is
        // in.
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-'
        };
        if key_prefix.len() > 32 || !key_prefix.bytes().all(allowed) {
            check.fail("USHER_KEY_PREFIX", "must match [a-z0-9_-]{1,32}");
        }
        Some(Self {
            redis: RedisSettings {
                ca_file,
                key_prefix,
                wait_replicas,
                wait_aof,
                may_forget,
                ..RedisSettings::of(redis_url?.0)
            },
            mysql: MysqlSettings { url: mysql_url? },
            partitions,
            ack,
            watermarks,
            kept_entries,
            events,
            currency: currency?,
            wallet_limit: wallet_limit?,
        })
    }
}

impl MysqlSettings {
    /// Validates the settings of a command that uses MySQL only.
    ///
    /// # Errors
    /// All invalid settings.
    pub fn new(args: &MysqlArgs) -> Result<Self, InvalidSettings> {
        let mut check = SettingsChecker::default();
        let settings = Self::read(args, &mut check);
        check.finish()?;
        settings.ok_or_else(InvalidSettings::default)
    }

    fn read(args: &MysqlArgs, check: &mut SettingsChecker) -> Option<Self> {
        let ca_file = args.mysql_ca_file.as_deref();
        parse_mysql_url(args.mysql_url.as_deref(), ca_file, check).map(|url| Self { url })
    }
}

impl MigrateSettings {
    /// Validates the settings of `usher migrate`.
    ///
    /// # Errors
    /// All invalid settings.
    pub fn new(args: &MigrateArgs) -> Result<Self, InvalidSettings> {
        let mut check = SettingsChecker::default();
        let mysql = MysqlSettings::read(&args.mysql, &mut check);
        let partitions = parse_partitions(args.partitions.as_deref(), &mut check);
        let is_cluster = given(args.redis_url.as_deref()).is_some_and(|url| {
            ["redis-cluster:", "rediss-cluster:"].iter().any(|scheme| url.starts_with(scheme))
        });
        check.finish()?;
        let default_partitions = match is_cluster {
            true => PartitionCount::CLUSTER_DEFAULT,
            false => PartitionCount::default(),
        };
        mysql
            .map(|mysql| Self { mysql, partitions, default_partitions })
            .ok_or_else(InvalidSettings::default)
    }
}

fn parse_partitions(value: Option<&str>, check: &mut SettingsChecker) -> Option<PartitionCount> {
    PartitionCount::new(check.number("USHER_PARTITIONS", value, 1..=4096, 0))
}

fn parse_ack(args: &StoreArgs, check: &mut SettingsChecker) -> AckSettings {
    let durable = match given(args.ack.as_deref()) {
        None | Some("accepted") => false,
        Some("durable") => true,
        Some(_) => {
            check.fail("USHER_ACK", "must be accepted or durable");
            false
        }
    };
    let millis = args.ack_timeout_ms.as_deref();
    let millis = check.number("USHER_ACK_TIMEOUT_MS", millis, 10..=60_000, 3_000);
    AckSettings { durable, timeout: Duration::from_millis(millis) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(redis: &str, mysql: &str, prefix: Option<&str>) -> Vec<&'static str> {
        let args = StoreArgs {
            redis_url: Some(redis.to_owned()),
            mysql_url: Some(mysql.to_owned()),
            key_prefix: prefix.map(str::to_owned),
            ..StoreArgs::default()
        };
        match StoreSettings::new(&args) {
            Ok(_) => Vec::new(),
            Err(bad) => bad.settings().iter().map(|bad| bad.setting).collect(),
        }
    }

    const REDIS: &str = "redis://:password@127.0.0.1:6379/0";
    const MYSQL: &str = "mysql://root@127.0.0.1/usher";

    #[test]
    fn prefix_can_not_contain_a_hash_tag() {
        assert!(with(REDIS, MYSQL, Some("test_1-a")).is_empty());
        for prefix in ["{p1}", "a:b", "Usher", "ä", &"x".repeat(33)] {
            assert_eq!(with(REDIS, MYSQL, Some(prefix)), ["USHER_KEY_PREFIX"], "{prefix}");
        }
    }

    #[test]
    fn ack_waits_for_redis_or_for_mysql() {
        let ack = |ack: &str, timeout: &str| {
            let args = StoreArgs {
                redis_url: Some(REDIS.to_owned()),
                mysql_url: Some(MYSQL.to_owned()),
                ack: Some(ack.to_owned()),
                ack_timeout_ms: Some(timeout.to_owned()),
                ..StoreArgs::default()
            };
            StoreSettings::new(&args).map(|settings| settings.ack)
        };
        assert_eq!(ack("", "").unwrap(), AckSettings::default());
        let timeout = Duration::from_millis(10);
        assert_eq!(ack("durable", "10").unwrap(), AckSettings { durable: true, timeout });
        assert_eq!(ack("accepted", "10").unwrap(), AckSettings { durable: false, timeout });
        for (when, timeout, wrong) in
            [("Durable", "", "USHER_ACK"), ("durable", "9", "USHER_ACK_TIMEOUT_MS")]
        {
            assert_eq!(ack(when, timeout).unwrap_err().settings()[0].setting, wrong);
        }
    }

    #[test]
    fn warning_must_be_below_its_limit() {
        let with = |change: fn(&mut StoreArgs)| {
            let mut args = StoreArgs {
                redis_url: Some("redis-cluster://a:1".to_owned()),
                mysql_url: Some(MYSQL.to_owned()),
                ..StoreArgs::default()
            };
            change(&mut args);
            StoreSettings::new(&args).map_err(|bad| bad.settings()[0].setting)
        };
        assert_eq!(with(|_| {}).unwrap().watermarks, WatermarkSettings::default());
        for (change, setting) in [
            (
                (|args| args.backlog_warn = Some("500000".into())) as fn(&mut StoreArgs),
                "USHER_BACKLOG_WARN",
            ),
            (|args| args.backlog_limit = Some("100000".into()), "USHER_BACKLOG_WARN"),
            (
                |args| args.redis_memory_limit_percent = Some("101".into()),
                "USHER_REDIS_MEMORY_LIMIT_PERCENT",
            ),
            (|args| args.redis_ca_file = Some("no-such-file".into()), "USHER_REDIS_CA_FILE"),
            (|args| args.redis_ca_file = Some("Cargo.toml".into()), "USHER_REDIS_CA_FILE"),
            (|args| args.redis_may_forget = Some("yes".into()), "USHER_REDIS_MAY_FORGET"),
            (|args| args.outbox_keep_seconds = Some("604801".into()), "USHER_OUTBOX_KEEP_SECONDS"),
            (|args| args.outbox_keep_megabytes = Some("-1".into()), "USHER_OUTBOX_KEEP_MEGABYTES"),
            (|args| args.redis_wait_replicas = Some("17".into()), "USHER_REDIS_WAIT_REPLICAS"),
            (|args| args.redis_wait_aof = Some("1".into()), "USHER_REDIS_WAIT_AOF"),
        ] {
            assert_eq!(with(change).unwrap_err(), setting);
        }
    }

    #[test]
    fn migrating_needs_mysql_only() {
        let mysql = MysqlArgs { mysql_url: Some(MYSQL.to_owned()), mysql_ca_file: None };
        let default_for = |redis_url: Option<&str>| {
            let redis_url = redis_url.map(str::to_owned);
            let args = MigrateArgs { mysql: mysql.clone(), redis_url, partitions: None };
            let settings = MigrateSettings::new(&args).unwrap();
            assert_eq!(settings.partitions, None);
            settings.default_partitions.count()
        };
        assert_eq!(default_for(None), 8);
        assert_eq!(default_for(Some("redis://h")), 8);
        assert_eq!(default_for(Some("redis-sentinel://h:26379/main")), 8);
        assert_eq!(default_for(Some("redis-cluster://h")), 64);
        assert_eq!(default_for(Some("rediss-cluster://h")), 64);
        let partitions = Some("16".to_owned());
        let args = MigrateArgs { mysql: mysql.clone(), partitions, ..MigrateArgs::default() };
        assert_eq!(MigrateSettings::new(&args).unwrap().partitions.unwrap().count(), 16);
        let args = MigrateArgs { partitions: Some("0".to_owned()), ..MigrateArgs::default() };
        assert_eq!(MigrateSettings::new(&args).unwrap_err().settings().len(), 2);
    }
}
