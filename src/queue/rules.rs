//! Pure decisions about the line: what settings are sound, how long a wait is, when to ask again.

use std::time::Duration;

use super::settings::{QueueMode, QueueOrder, QueueSettings};
use super::snapshot::QueueState;
use crate::time::{MUST_BE_STORABLE, is_storable};

/// The span over which admissions are counted for the estimate, in seconds. `lua/lib/bucket.lua` keeps it.
const RATE_WINDOW_SECONDS: f64 = 30.0;
/// How often a waiting user near the front should ask.
const NEAR: f64 = 1_000.0;
/// How often a waiting user far behind should ask.
const FAR: f64 = 10_000.0;

/// One field of a queue's settings that is not sound, and why.
pub type Flaw = (&'static str, String);

/// Checks settings against their ranges and against each other.
pub(super) fn flaws(settings: &QueueSettings) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    let mut range = |field, value: u32, from: u32, to: u32| {
        if !(from..=to).contains(&value) {
            flaws.push((field, format!("must be from {from} to {to}")));
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
            flaws.push((field, MUST_BE_STORABLE.into()));
        }
    }
    if let (Some(opens), Some(closes)) = (settings.opens_at, settings.closes_at)
        && closes <= opens
    {
        flaws.push(("closes_at", "must be after opens_at".into()));
    }
    match (settings.prequeue_starts_at, settings.opens_at) {
        (Some(_), None) => flaws.push(("prequeue_starts_at", "needs opens_at".into())),
        (Some(starts), Some(opens)) if starts >= opens => {
            flaws.push(("prequeue_starts_at", "must be before opens_at".into()));
        }
        _ => {}
    }
    if settings.order == QueueOrder::Lottery
        && settings.opens_at.is_none()
        && settings.mode != QueueMode::Prequeue
    {
        flaws.push(("order", "lottery needs opens_at: places are dealt before the opening".into()));
    }
    flaws
}

/// Seconds until the user at a position is let in. `None` while nobody is being let in: an unknown wait is not a number.
///
/// The pace is the best that was measured over 30 seconds since the settings last changed, and never faster than they allow. Since that only grows and a
/// position only falls, an estimate never goes up while the settings stand still; when the line slows down, it stops falling.
pub(super) fn estimated_wait_seconds(
    position: u64,
    line: &QueueState,
    settings: &QueueSettings,
) -> Option<u64> {
    if line.mode != QueueMode::Open || line.recent == 0 {
        return None;
    }
    let measured = line.peak.max(line.recent) as f64 / RATE_WINDOW_SECONDS;
    let allowed =
        f64::from(settings.promote_per_interval) * 1_000.0 / f64::from(settings.interval_ms);
    let seconds = (position as f64 / measured.min(allowed)).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and saturating is right"
    )]
    Some(seconds as u64)
}

/// When a waiting user should ask again: a tenth of the wait, from one second near the front to ten far behind (and while the wait
/// is unknown, five), ±10 % so that a crowd does not ask in step.
///
/// `jitter` is from −1 to 1.
pub(super) fn poll_after(wait_seconds: Option<u64>, jitter: f64) -> Duration {
    let base = wait_seconds.map_or(5_000.0, |seconds| (seconds as f64 * 100.0).clamp(NEAR, FAR));
    Duration::from_secs_f64(base * (1.0 + 0.1 * jitter.clamp(-1.0, 1.0)) / 1_000.0)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta, Utc};

    use super::*;

    fn fields(settings: &QueueSettings) -> Vec<&'static str> {
        flaws(settings).into_iter().map(|(field, _)| field).collect()
    }

    #[test]
    fn the_defaults_are_sound() {
        assert!(flaws(&QueueSettings::default()).is_empty());
    }

    #[test]
    fn every_range_has_two_ends() {
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
    fn times_stand_in_order() {
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

    fn line(mode: QueueMode, recent: u64, peak: u64) -> QueueState {
        QueueState { now: 0, mode, waiting: 100, active: 0, recent, peak, sold_out: false }
    }

    #[test]
    fn a_wait_is_known_only_while_people_are_let_in() {
        let settings = QueueSettings {
            promote_per_interval: 10,
            interval_ms: 1_000,
            ..QueueSettings::default()
        };
        let wait =
            |mode, recent, peak| estimated_wait_seconds(100, &line(mode, recent, peak), &settings);
        assert_eq!(wait(QueueMode::Open, 0, 300), None);
        assert_eq!(wait(QueueMode::Paused, 300, 300), None);
        assert_eq!(wait(QueueMode::Open, 300, 300), Some(10));
        assert_eq!(wait(QueueMode::Open, 30, 30), Some(100));
        // A line that slows down does not make those who wait wait longer than they were told.
        assert_eq!(wait(QueueMode::Open, 30, 300), Some(10));
        // A burst in the window does not promise more than the settings allow.
        assert_eq!(wait(QueueMode::Open, 3_000, 3_000), Some(10));
    }

    #[test]
    fn the_pace_of_polls_follows_the_wait() {
        assert_eq!(poll_after(Some(0), 0.0), Duration::from_secs(1));
        assert_eq!(poll_after(Some(50), 0.0), Duration::from_secs(5));
        assert_eq!(poll_after(Some(100_000), 0.0), Duration::from_secs(10));
        assert_eq!(poll_after(None, 0.0), Duration::from_secs(5));
        assert_eq!(poll_after(Some(0), 1.0), Duration::from_millis(1_100));
        assert_eq!(poll_after(Some(0), -9.0), Duration::from_millis(900));
    }
}
