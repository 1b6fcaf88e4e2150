//! The rules for the settings of a queue.

use super::settings::{LocalizedText, QueueMode, QueueOrder, QueueSettings};
use crate::definition::DefinitionViolation;
use crate::time::{MUST_BE_STORABLE, is_storable};

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
    if let Some(limit) = settings.visit_limit_seconds {
        range("visit_limit_seconds", limit, 60, 86_400);
    }
    if let Some(after) = settings.abandon_after_seconds {
        range("abandon_after_seconds", after, 30, 86_400);
    }
    if let Some(message) = &settings.message {
        violations.extend(text_violation("message", message, MAX_MESSAGE_CHARACTERS));
    }
    if let Some(page) = &settings.page {
        violations.extend(page.violations());
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

const MAX_MESSAGE_CHARACTERS: usize = 500;
const MAX_TEXT_LANGUAGES: usize = 50;

/// Checks the length of each text, in characters, and the language tags.
pub(super) fn text_violation(
    field: &str,
    text: &LocalizedText,
    max_characters: usize,
) -> Option<DefinitionViolation> {
    let is_long = |text: &String| text.chars().count() > max_characters;
    let is_tag = |tag: &String| {
        (2..=35).contains(&tag.len())
            && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let problem = match text {
        LocalizedText::Text(text) => {
            is_long(text).then(|| format!("must have at most {max_characters} characters"))
        }
        LocalizedText::ByLanguage(texts) if !(1..=MAX_TEXT_LANGUAGES).contains(&texts.len()) => {
            Some(format!("must have from 1 to {MAX_TEXT_LANGUAGES} languages"))
        }
        LocalizedText::ByLanguage(texts) if texts.values().any(is_long) => {
            Some(format!("each text must have at most {max_characters} characters"))
        }
        LocalizedText::ByLanguage(texts) => {
            (!texts.keys().all(is_tag)).then(|| "each key must be a language tag".to_owned())
        }
    };
    problem.map(|problem| DefinitionViolation::new(field, problem))
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

    #[test]
    fn message_is_short_and_its_keys_are_languages() {
        let with = |message| QueueSettings { message: Some(message), ..QueueSettings::default() };
        let texts =
            |tag: &str, text: String| LocalizedText::ByLanguage([(tag.into(), text)].into());
        let (good, long) = ("가".repeat(500), "가".repeat(501));
        for message in [LocalizedText::Text(good.clone()), texts("ko", good)] {
            assert_eq!(fields(&with(message)), Vec::<String>::new());
        }
        let none = LocalizedText::ByLanguage(std::collections::BTreeMap::new());
        for message in
            [LocalizedText::Text(long.clone()), texts("ko", long), texts("k o", "x".into()), none]
        {
            assert_eq!(fields(&with(message)), ["message"]);
        }
    }

    #[test]
    fn draw_goes_on_unless_the_opening_changes() {
        let opens = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::days(20_000);
        let now = opens.timestamp_millis() - 60_000;
        let lottery = QueueSettings {
            order: QueueOrder::Lottery,
            opens_at: Some(opens),
            ..QueueSettings::default()
        };
        let paused = QueueSettings { mode: QueueMode::Paused, max_active: 7, ..lottery.clone() };
        assert!(paused.continues_draw(&lottery, now) && lottery.continues_draw(&paused, now));
        let later =
            QueueSettings { opens_at: Some(opens + TimeDelta::hours(1)), ..lottery.clone() };
        let closed = QueueSettings { mode: QueueMode::Closed, ..lottery.clone() };
        let fifo = QueueSettings { order: QueueOrder::Fifo, ..lottery.clone() };
        for other in [later, closed, fifo] {
            assert!(!other.continues_draw(&lottery, now) && !lottery.continues_draw(&other, now));
        }
        assert!(!lottery.is_lottery(opens.timestamp_millis()));
    }
}
