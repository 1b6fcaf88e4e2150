//! Settings of events for other systems.

use clap::Args;

use super::check::SettingsChecker;

/// Settings of events and webhooks.
#[derive(Args, Clone, Default)]
pub struct EventArgs {
    /// How long events for other systems are kept, 1 to 8760 [default: 72]
    #[arg(long, env = "USHER_EVENT_RETENTION_HOURS", hide_env_values = true, value_name = "HOURS")]
    pub event_retention_hours: Option<String>,
    /// Whether webhooks may lead to private, loopback and link-local addresses: true or false
    /// [default: false]
    #[arg(long, env = "USHER_WEBHOOK_ALLOW_PRIVATE", hide_env_values = true, value_name = "BOOL")]
    pub webhook_allow_private: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventSettings {
    /// How long events are kept.
    pub retention_hours: u32,
    /// Whether webhooks may lead to addresses that are not public.
    pub allow_private: bool,
}

impl Default for EventSettings {
    fn default() -> Self {
        Self { retention_hours: 72, allow_private: false }
    }
}

impl EventSettings {
    pub(super) fn read(args: &EventArgs, check: &mut SettingsChecker) -> Self {
        let default = Self::default().retention_hours;
        let hours = args.event_retention_hours.as_deref();
        let allow_private = args.webhook_allow_private.as_deref();
        Self {
            retention_hours: check.number("USHER_EVENT_RETENTION_HOURS", hours, 1..=8_760, default),
            allow_private: check.flag("USHER_WEBHOOK_ALLOW_PRIVATE", allow_private),
        }
    }
}
