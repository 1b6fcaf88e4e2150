//! Pure functions of a queue: which settings are valid, how long a wait is, when to poll again.

use std::time::Duration;

use super::settings::{QueueMode, QueueOrder, QueueSettings};
use super::snapshot::QueueState;
use crate::definition::DefinitionViolation;
use crate::time::{MUST_BE_STORABLE, is_storable};

/// The window in which `lua/lib/admission_rate.lua` counts admissions.
const RATE_WINDOW_SECONDS: f64 = 30.0;
/// The poll interval of a user near the front.
const MIN_POLL_INTERVAL_MS: f64 = 1_000.0;
/// The poll interval of a user far behind the front.
const MAX_POLL_INTERVAL_MS: f64 = 10_000.0;
/// The poll interval while the wait is unknown.
const DEFAULT_POLL_INTERVAL_MS: f64 = 5_000.0;

/// Checks settings against their ranges and against each other.
pub(super) fn violations(settings: &QueueSettings) -> Vec<DefinitionViolation> {
    let mut violations = Vec::new();
    let mut range = |field: &str, value: u32, from: u32, to: u32| {
        if !(from..=to).contains(&value) {
            let message = format!("must be from {from} to {to}");
            violations.push(DefinitionViolation::new(field, message));
        }
    };
    range("promote_per_interval", settings.promote_per_interval, 1, 1_000_000);
    range("interval_ms", settings.interval_ms, 100, 3_600_000);
    range("max_active", settings.max_active, 1, 10_000_000);
    range("active_seconds", settings.active_seconds, 1, 86_400);
    range("claim_seconds", settings.claim_seconds, 1, 86_400);
    range("restore_seconds", settings.restore_seconds, 0, 3_600);
    if let Some(max) = settings.max_waiting {
        range("max_waiting", max, 1, 100_000_000);
    }
    let times = [
        ("opens_at", settings.opens_at),
        ("closes_at", settings.closes_at),
        ("prequeue_starts_at", settings.prequeue_starts_at),
    ];
    for (field, time) in times {
        if time.is_some_and(|time| !is_storable(time)) {
            violations.push(DefinitionViolation::new(field, MUST_BE_STORABLE));
        }
    }
    if let (Some(opens), Some(closes)) = (settings.opens_at, settings.closes_at)
        && closes <= opens
    {
        violations.push(DefinitionViolation::new("closes_at", "must be after opens_at"));
    }
    match (settings.prequeue_starts_at, settings.opens_at) {
        (Some(_), None) => {
            violations.push(DefinitionViolation::new("prequeue_starts_at", "requires opens_at"));
        }
        (Some(starts), Some(opens)) if starts >= opens => {
            let message = "must be before opens_at";
            violations.push(DefinitionViolation::new("prequeue_starts_at", message));
        }
        _ => {}
    }
    if settings.order == QueueOrder::Lottery
        && settings.opens_at.is_none()
        && settings.mode != QueueMode::Prequeue
    {
        let message = "lottery requires opens_at: places are assigned before the opening";
        violations.push(DefinitionViolation::new("order", message));
    }
    violations
}

/// Seconds until the user at a position is admitted. `None` while no user is admitted.
///
/// The rate is the highest that was measured over 30 seconds since the settings last changed, but
/// not more than the settings allow. This rate never decreases and a position never increases. So
/// an estimate never increases while the settings stay the same: when admissions slow down, it
/// only stops decreasing.
pub(super) fn estimated_wait_seconds(
    position: u64,
    state: &QueueState,
    settings: &QueueSettings,
) -> Option<u64> {
    if state.mode != QueueMode::Open || state.recent == 0 {
        return None;
    }
    let measured = state.peak.max(state.recent) as f64 / RATE_WINDOW_SECONDS;
    let allowed =
        f64::from(settings.promote_per_interval) * 1_000.0 / f64::from(settings.interval_ms);
    let seconds = (position as f64 / measured.min(allowed)).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the value is positive, and a cast saturates"
    )]
    Some(seconds as u64)
}

/// When a waiting user should poll again: after a tenth of the wait, within the limits above.
///
/// `jitter` is from −1 to 1. It shifts the result by up to 10 %, so that clients do not poll in
/// step.
pub(super) fn poll_after(wait_seconds: Option<u64>, jitter: f64) -> Duration {
    let tenth =
        |seconds: u64| (seconds as f64 * 100.0).clamp(MIN_POLL_INTERVAL_MS, MAX_POLL_INTERVAL_MS);
    let base = wait_seconds.map_or(DEFAULT_POLL_INTERVAL_MS, tenth);
    Duration::from_secs_f64(base * (1.0 + 0.1 * jitter.clamp(-1.0, 1.0)) / 1_000.0)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta, Utc};

    use super::*;

    fn fields(settings: &QueueSettings) -> Vec<String> {
        violations(settings).into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn defaults_are_valid() {
        assert!(violations(&QueueSettings::default()).is_empty());
    }

    #[test]
    fn values_outside_a_range_are_violations() {
        let zero = QueueSettings {
            promote_per_interval: 0,
            interval_ms: 99,
            max_active: 0,
            active_seconds: 0,
            claim_seconds: 0,
            max_waiting: Some(0),
            ..QueueSettings::default()
        };
        let all = [
            "promote_per_interval",
            "interval_ms",
            "max_active",
            "active_seconds",
            "claim_seconds",
            "max_waiting",
        ];
        assert_eq!(fields(&zero), all);
        let huge = QueueSettings {
            promote_per_interval: u32::MAX,
            interval_ms: u32::MAX,
            max_active: u32::MAX,
            active_seconds: u32::MAX,
            claim_seconds: u32::MAX,
            max_waiting: Some(u32::MAX),
            ..QueueSettings::default()
        };
        assert_eq!(fields(&huge), all);
    }

    #[test]
    fn times_must_be_in_order() {
        let now = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::days(20_000);
        let hour = TimeDelta::hours(1);
        let mut settings =
            QueueSettings { opens_at: Some(now), closes_at: Some(now), ..QueueSettings::default() };
        assert_eq!(fields(&settings), ["closes_at"]);
        settings.closes_at = Some(now + hour);
        settings.prequeue_starts_at = Some(now);
        assert_eq!(fields(&settings), ["prequeue_starts_at"]);
        settings.prequeue_starts_at = Some(now - hour);
        assert!(fields(&settings).is_empty());
        settings.opens_at = None;
        assert_eq!(fields(&settings), ["prequeue_starts_at"]);
        let lottery = QueueSettings { order: QueueOrder::Lottery, ..QueueSettings::default() };
        assert_eq!(fields(&lottery), ["order"]);
    }

    fn state(mode: QueueMode, recent: u64, peak: u64) -> QueueState {
        QueueState { now: 0, mode, waiting: 100, active: 0, recent, peak, sold_out: false }
    }

    #[test]
    fn wait_is_unknown_while_no_user_is_admitted() {
        let settings = QueueSettings {
            promote_per_interval: 10,
            interval_ms: 1_000,
            ..QueueSettings::default()
        };
        let wait =
            |mode, recent, peak| estimated_wait_seconds(100, &state(mode, recent, peak), &settings);
        assert_eq!(wait(QueueMode::Open, 0, 300), None);
        assert_eq!(wait(QueueMode::Paused, 300, 300), None);
        assert_eq!(wait(QueueMode::Open, 300, 300), Some(10));
        assert_eq!(wait(QueueMode::Open, 30, 30), Some(100));
        // The estimate does not increase when admissions slow down.
        assert_eq!(wait(QueueMode::Open, 30, 300), Some(10));
        // A burst in the window does not raise the rate above the one the settings allow.
        assert_eq!(wait(QueueMode::Open, 3_000, 3_000), Some(10));
    }

    #[test]
    fn poll_interval_follows_the_wait() {
        assert_eq!(poll_after(Some(0), 0.0), Duration::from_secs(1));
        assert_eq!(poll_after(Some(50), 0.0), Duration::from_secs(5));
        assert_eq!(poll_after(Some(100_000), 0.0), Duration::from_secs(10));
        assert_eq!(poll_after(None, 0.0), Duration::from_secs(5));
        assert_eq!(poll_after(Some(0), 1.0), Duration::from_millis(1_100));
        assert_eq!(poll_after(Some(0), -9.0), Duration::from_millis(900));
    }
}
