//! Pure decisions about concerts: which are sound, and which seats a change takes away.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use super::concert::{Concert, ConcertSchedule};
use crate::ids::ScheduleId;
use crate::time::{MUST_BE_STORABLE, is_storable};

/// Seats of one schedule, at most.
const MAX_SEATS: u32 = 100_000;
/// Dates of one concert, at most.
const MAX_SCHEDULES: usize = 400;
/// Sections of one date, at most.
const MAX_SECTIONS: usize = 1_000;
/// The highest price of one seat: a hundred of them still are an amount.
const MAX_PRICE: i64 = 10_000_000_000_000;

/// One field that is not sound, and why.
pub type Flaw = (String, String);

/// Checks a concert's fields against their ranges and against each other.
pub(super) fn flaws(concert: &Concert) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    let mut check = |sound: bool, field: &str, message: &str| {
        if !sound {
            flaws.push((field.to_owned(), message.to_owned()));
        }
    };
    check(is_text(&concert.title, 255), "title", "must have 1 to 255 characters");
    check((1..=86_400).contains(&concert.hold_seconds), "hold_seconds", "must be from 1 to 86400");
    check(
        (1..=100).contains(&concert.max_seats_per_user),
        "max_seats_per_user",
        "must be from 1 to 100",
    );
    check(concert.cancel_until.is_none_or(is_storable), "cancel_until", MUST_BE_STORABLE);
    check(concert.schedules.len() <= MAX_SCHEDULES, "schedules", "must be at most 400");
    let ids: HashSet<_> = concert.schedules.iter().map(|schedule| &schedule.id).collect();
    check(ids.len() == concert.schedules.len(), "schedules", "must have different ids");
    for (at, schedule) in concert.schedules.iter().enumerate() {
        schedule_flaws(schedule, &format!("schedules[{at}]"), &mut check);
    }
    flaws
}

fn schedule_flaws(
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
        (1..=MAX_SECTIONS).contains(&schedule.sections.len()),
        &sections,
        "must be from 1 to 1000",
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
    let mut next = 1;
    for section in by_number {
        check(is_text(&section.name, 64), &sections, "must have names of 1 to 64 characters");
        check(section.price.get() <= MAX_PRICE, &sections, "must have prices up to 10000000000000");
        check(
            section.from == next && section.to >= section.from,
            &sections,
            "must cover the numbers 1…n once and without a gap",
        );
        next = section.to.saturating_add(1);
    }
    check(next <= MAX_SEATS + 1, &sections, "must have at most 100000 seats");
}

fn is_text(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// The seats that `before` had and `after` has no more; all of them when the concert moves to another queue.
pub(super) fn removed(before: &Concert, after: &Concert) -> Vec<(ScheduleId, RangeInclusive<u32>)> {
    let kept = |id: &ScheduleId| {
        let same = after.schedules.iter().find(|schedule| schedule.id == *id);
        if before.queue == after.queue { same.map_or(0, ConcertSchedule::seats) } else { 0 }
    };
    let gone = before
        .schedules
        .iter()
        .map(|schedule| (schedule.id.clone(), kept(&schedule.id) + 1..=schedule.seats()));
    gone.filter(|(_, range)| !range.is_empty()).collect()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any time will do")]
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
            max_seats_per_user: 4,
            cancel_until: None,
            archived: false,
            schedules: vec![schedule],
        }
    }

    #[test]
    fn sections_cover_the_numbers_once() {
        assert!(flaws(&concert(vec![section(11, 50), section(1, 10)])).is_empty());
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
            let found = flaws(&concert(bad.clone()));
            assert!(
                found.iter().any(|(field, _)| field == "schedules[0].sections"),
                "{bad:?}: {found:?}"
            );
        }
    }

    #[test]
    fn every_field_has_its_range() {
        let mut bad = concert(vec![section(1, 50)]);
        bad.title = String::new();
        bad.hold_seconds = 0;
        bad.max_seats_per_user = 101;
        bad.schedules.push(bad.schedules[0].clone());
        let now = Utc::now();
        bad.schedules[0].booking_opens_at = Some(now);
        bad.schedules[0].booking_closes_at = Some(now - TimeDelta::seconds(1));
        bad.schedules[0].sections[0].price = Money::new(MAX_PRICE + 1).unwrap();
        bad.schedules[1].sections[0].name = "x\ny".into();
        let fields: Vec<_> = flaws(&bad).into_iter().map(|(field, _)| field).collect();
        assert_eq!(
            fields,
            [
                "title",
                "hold_seconds",
                "max_seats_per_user",
                "schedules",
                "schedules[0].booking_closes_at",
                "schedules[0].sections",
                "schedules[1].sections",
            ]
        );
    }

    #[test]
    fn a_change_removes_what_is_not_there_any_more() {
        let before = concert(vec![section(1, 50)]);
        assert!(removed(&before, &before).is_empty());
        assert!(removed(&before, &concert(vec![section(1, 60)])).is_empty());
        assert_eq!(
            removed(&before, &concert(vec![section(1, 40)])),
            [("d1".parse().unwrap(), 41..=50)]
        );
        let gone = Concert { schedules: vec![], ..before.clone() };
        assert_eq!(removed(&before, &gone), [("d1".parse().unwrap(), 1..=50)]);
        let moved = Concert { queue: "other".parse().unwrap(), ..before.clone() };
        assert_eq!(removed(&before, &moved), [("d1".parse().unwrap(), 1..=50)]);
    }
}
