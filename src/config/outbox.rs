//! Settings of the outbox: what is kept, and when work is refused.

use std::time::Duration;

use super::args::StoreArgs;
use super::check::SettingsChecker;

/// Which outbox entries Redis keeps after MySQL has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptEntriesSettings {
    pub period: Duration,
    /// Of all partitions together.
    pub bytes: u64,
}

impl Default for KeptEntriesSettings {
    fn default() -> Self {
        Self { period: Duration::from_secs(3_600), bytes: 256 << 20 }
    }
}

/// When new work is refused. Each pair is the warning and the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatermarkSettings {
    /// Outbox entries that wait for MySQL.
    pub backlog: [u64; 2],
    /// Percent of Redis' `maxmemory` in use.
    pub memory_percent: [u64; 2],
}

impl Default for WatermarkSettings {
    fn default() -> Self {
        Self { backlog: [100_000, 500_000], memory_percent: [70, 85] }
    }
}

pub(super) fn parse_watermarks(args: &StoreArgs, check: &mut SettingsChecker) -> WatermarkSettings {
    let WatermarkSettings { backlog, memory_percent } = WatermarkSettings::default();
    let mut pair = |settings: [&'static str; 2],
                    values: [&Option<String>; 2],
                    max: u64,
                    defaults: [u64; 2]| {
        let warn = check.number(settings[0], values[0].as_deref(), 1..=max, defaults[0]);
        let limit = check.number(settings[1], values[1].as_deref(), 1..=max, defaults[1]);
        if warn >= limit {
            check.fail(settings[0], format!("must be below {}", settings[1]));
        }
        [warn, limit]
    };
    WatermarkSettings {
        backlog: pair(
            ["USHER_BACKLOG_WARN", "USHER_BACKLOG_LIMIT"],
            [&args.backlog_warn, &args.backlog_limit],
            1_000_000_000,
            backlog,
        ),
        memory_percent: pair(
            ["USHER_REDIS_MEMORY_WARN_PERCENT", "USHER_REDIS_MEMORY_LIMIT_PERCENT"],
            [&args.redis_memory_warn_percent, &args.redis_memory_limit_percent],
            100,
            memory_percent,
        ),
    }
}

pub(super) fn parse_kept_entries(
    args: &StoreArgs,
    check: &mut SettingsChecker,
) -> KeptEntriesSettings {
    let KeptEntriesSettings { period, bytes } = KeptEntriesSettings::default();
    let seconds = args.outbox_keep_seconds.as_deref();
    let seconds = check.number("USHER_OUTBOX_KEEP_SECONDS", seconds, 0..=604_800, period.as_secs());
    let megabytes = args.outbox_keep_megabytes.as_deref();
    let megabytes =
        check.number("USHER_OUTBOX_KEEP_MEGABYTES", megabytes, 0..=1_000_000, bytes >> 20);
    KeptEntriesSettings { period: Duration::from_secs(seconds), bytes: megabytes << 20 }
}
