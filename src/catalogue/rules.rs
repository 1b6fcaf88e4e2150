//! Pure functions of concerts: which definitions are valid, and which seats a change removes.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use super::concert::{Concert, ConcertSchedule};
use crate::definition::DefinitionViolation;
use crate::ids::ScheduleId;
use crate::time::{MUST_BE_STORABLE, is_storable};

const MAX_SEATS_PER_SCHEDULE: u32 = 100_000;
const MAX_SCHEDULES_PER_CONCERT: usize = 400;
const MAX_SECTIONS_PER_SCHEDULE: usize = 1_000;
/// Keeps the largest definition below `USHER_ADMIN_BODY_LIMIT_BYTES`.
const MAX_SECTIONS_PER_CONCERT: usize = 20_000;
/// The highest price of one seat. A hundred seats at this price are still a valid amount.
const MAX_PRICE: i64 = 10_000_000_000_000;

/// Checks the fields of a concert against their ranges and against each other.
pub(super) fn violations(concert: &Concert) -> Vec<DefinitionViolation> {
    let mut violations = Vec::new();
    let mut check = |valid: bool, field: &str, message: &str| {
        if !valid {
            violations.push(DefinitionViolation::new(field, message));
        }
    };
    check(is_text(&concert.title, 255), "title", "must have 1 to 255 characters");
    check((1..=86_400).contains(&concert.hold_seconds), "hold_seconds", "must be from 1 to 86400");
    check(
        (60..=3_600).contains(&concert.payment_seconds),
        "payment_seconds",
        "must be from 60 to 3600",
    );
    check(
        (1..=100).contains(&concert.max_seats_per_user),
        "max_seats_per_user",
        "must be from 1 to 100",
    );
    check(concert.cancel_until.is_none_or(is_storable), "cancel_until", MUST_BE_STORABLE);
    check(
        concert.schedules.len() <= MAX_SCHEDULES_PER_CONCERT,
        "schedules",
        "must contain at most 400 schedules",
    );
    let sections: usize = concert.schedules.iter().map(|schedule| schedule.sections.len()).sum();
    check(
        sections <= MAX_SECTIONS_PER_CONCERT,
        "schedules",
        "must contain at most 20000 sections in all",
    );
    let ids: HashSet<_> = concert.schedules.iter().map(|schedule| &schedule.id).collect();
    check(ids.len() == concert.schedules.len(), "schedules", "must have different ids");
    for (at, schedule) in concert.schedules.iter().enumerate() {
        check_schedule(schedule, &format!("schedules[{at}]"), &mut check);
    }
    violations
}

fn check_schedule(
    schedule: &ConcertSchedule,
    path: &str,
    check: &mut impl FnMut(bool, &str, &str),
) {
    let times = [
        ("starts_at", Some(schedule.starts_at)),
        ("booking_opens_at", schedule.booking_opens_at),
        ("booking_closes_at", schedule.booking_closes_at),
    ];
    for (name, time) in times {
        check(time.is_none_or(is_storable), &format!("{path}.{name}"), MUST_BE_STORABLE);
    }
    let sections = format!("{path}.sections");
    check(
        (1..=MAX_SECTIONS_PER_SCHEDULE).contains(&schedule.sections.len()),
        &sections,
        "must contain 1 to 1000 sections",
    );
    if let (Some(opens), Some(closes)) = (schedule.booking_opens_at, schedule.booking_closes_at) {
        check(
            opens < closes,
            &format!("{path}.booking_closes_at"),
            "must be after booking_opens_at",
        );
    }
    let mut by_number: Vec<_> = schedule.sections.iter().collect();
    by_number.sort_by_key(|section| section.from);
    // The seat number at which the next section must start.
    let mut next = 1;
    for section in by_number {
        check(is_text(&section.name, 64), &sections, "must have names of 1 to 64 characters");
        check(section.price.get() <= MAX_PRICE, &sections, "must have prices up to 10000000000000");
        check(
            section.from == next && section.to >= section.from,
            &sections,
            "must cover the numbers 1…n without gaps or overlaps",
        );
        next = section.to.saturating_add(1);
    }
    check(next <= MAX_SEATS_PER_SCHEDULE + 1, &sections, "must have at most 100000 seats");
}

fn is_text(text: &str, max_chars: usize) -> bool {
    (1..=max_chars).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// The seats that exist in `before` and not in `after`. A concert that moves to another queue loses
/// all its seats, because they are stored in the partition of its queue.
pub(super) fn removed_seats(
    before: &Concert,
    after: &Concert,
) -> Vec<(ScheduleId, RangeInclusive<u32>)> {
    let kept = |id: &ScheduleId| {
        let same = after.schedules.iter().find(|schedule| schedule.id == *id);
        if before.queue == after.queue { same.map_or(0, ConcertSchedule::seats) } else { 0 }
    };
    let removed = before
        .schedules
        .iter()
        .map(|schedule| (schedule.id.clone(), kept(&schedule.id) + 1..=schedule.seats()));
    removed.filter(|(_, range)| !range.is_empty()).collect()
}

/// Whether a schedule of `before` could be sold through another queue after the change: its concert
/// moves, or it is removed and may be added to another concert.
pub(super) fn schedule_leaves_queue(before: &Concert, after: &Concert) -> bool {
    let stays = |id: &ScheduleId| after.schedules.iter().any(|schedule| schedule.id == *id);
    before.queue != after.queue || !before.schedules.iter().all(|schedule| stays(&schedule.id))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the tests work at any time")]
mod tests {
    use chrono::{TimeDelta, Utc};

    use super::super::concert::SeatSection;
    use super::*;
    use crate::money::Money;

    fn section(from: u32, to: u32) -> SeatSection {
        SeatSection { name: "A".into(), from, to, price: Money::new(5_000).unwrap() }
    }

    fn concert(sections: Vec<SeatSection>) -> Concert {
        let schedule = ConcertSchedule {
            id: "d1".parse().unwrap(),
            starts_at: Utc::now(),
            booking_opens_at: None,
            booking_closes_at: None,
            sections,
        };
        Concert {
            id: "demo".parse().unwrap(),
            version: 1,
            title: "Demo".into(),
            queue: "demo".parse().unwrap(),
            hold_seconds: 300,
            payment_seconds: 600,
            max_seats_per_user: 4,
            cancel_until: None,
            archived: false,
            cancelled: std::collections::BTreeSet::new(),
            schedules: vec![schedule],
        }
    }

    #[test]
    fn sections_must_cover_each_seat_number_once() {
        assert!(violations(&concert(vec![section(11, 50), section(1, 10)])).is_empty());
        for bad in [
            vec![],
            vec![section(0, 10)],
            vec![section(2, 10)],
            vec![section(1, 10), section(12, 20)],
            vec![section(1, 10), section(10, 20)],
            vec![section(1, 0)],
            vec![section(1, 100_001)],
            vec![section(1, u32::MAX)],
        ] {
            let found = violations(&concert(bad.clone()));
            assert!(
                found.iter().any(|violation| violation.field == "schedules[0].sections"),
                "{bad:?}: {found:?}"
            );
        }
    }

    #[test]
    fn largest_concert_fits_the_default_body_limit() {
        let name = "\u{1f3ad}".repeat(64);
        let price = Money::new(MAX_PRICE).unwrap();
        let section = |number| SeatSection { name: name.clone(), from: number, to: number, price };
        let mut largest = concert(Vec::new());
        let date = ConcertSchedule {
            booking_opens_at: Some(Utc::now()),
            booking_closes_at: Some(Utc::now() + TimeDelta::days(1)),
            sections: (1..=50).map(section).collect(),
            ..largest.schedules[0].clone()
        };
        largest.schedules = (0..MAX_SCHEDULES_PER_CONCERT)
            .map(|at| ConcertSchedule { id: format!("{at:064}").parse().unwrap(), ..date.clone() })
            .collect();
        assert!(violations(&largest).is_empty());
        assert!(serde_json::to_vec(&largest.schedules).unwrap().len() < 8 << 20);
        largest.schedules[0].sections.push(section(51));
        assert_eq!(violations(&largest)[0].message, "must contain at most 20000 sections in all");
    }

    #[test]
    fn values_out_of_range_are_violations() {
        let mut bad = concert(vec![section(1, 50)]);
        bad.title = String::new();
        bad.hold_seconds = 0;
        bad.payment_seconds = 59;
        bad.max_seats_per_user = 101;
        bad.schedules.push(bad.schedules[0].clone());
        let now = Utc::now();
        bad.schedules[0].booking_opens_at = Some(now);
        bad.schedules[0].booking_closes_at = Some(now - TimeDelta::seconds(1));
        bad.schedules[0].sections[0].price = Money::new(MAX_PRICE + 1).unwrap();
        bad.schedules[1].sections[0].name = "x\ny".into();
        let fields: Vec<_> =
            violations(&bad).into_iter().map(|violation| violation.field).collect();
        assert_eq!(
            fields,
            [
                "title",
                "hold_seconds",
                "payment_seconds",
                "max_seats_per_user",
                "schedules",
                "schedules[0].booking_closes_at",
                "schedules[0].sections",
                "schedules[1].sections",
            ]
        );
    }

    #[test]
    fn removed_seats_are_those_missing_after_a_change() {
        let before = concert(vec![section(1, 50)]);
        assert!(removed_seats(&before, &before).is_empty());
        assert!(removed_seats(&before, &concert(vec![section(1, 60)])).is_empty());
        assert_eq!(
            removed_seats(&before, &concert(vec![section(1, 40)])),
            [("d1".parse().unwrap(), 41..=50)]
        );
        let gone = Concert { schedules: vec![], ..before.clone() };
        assert_eq!(removed_seats(&before, &gone), [("d1".parse().unwrap(), 1..=50)]);
        let moved = Concert { queue: "other".parse().unwrap(), ..before.clone() };
        assert_eq!(removed_seats(&before, &moved), [("d1".parse().unwrap(), 1..=50)]);
    }
}
