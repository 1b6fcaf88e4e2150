//! Pure functions of seats: which selection is valid and what it costs.

use std::collections::HashSet;

use super::reservation::ReservedSeat;
use crate::catalogue::{ConcertSchedule, ScheduledConcert};
use crate::money::Money;

pub(super) const TOTAL_TOO_HIGH: &str = "costs more than the maximum amount";

/// Why a selection of seats is refused without a call to Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SeatRefusal {
    /// No numbers, a repeated or an unknown one, or too high an amount.
    Invalid(String),
    LimitExceeded,
}

/// Whether seats of a schedule can be held at a time, regardless of what is sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SalePhase {
    NotOpen,
    Open,
    /// Not any more.
    Over,
    /// Never again, because the schedule is called off.
    Cancelled,
}

/// `now` is in milliseconds since 1970. `lua/lib/hold.lua` decides the same.
pub(super) fn sale_phase(scheduled: &ScheduledConcert, now: i64) -> SalePhase {
    let schedule = scheduled.schedule();
    if scheduled.is_cancelled() {
        SalePhase::Cancelled
    } else if scheduled.concert.archived || schedule.closes_at().timestamp_millis() <= now {
        SalePhase::Over
    } else if schedule.booking_opens_at.is_some_and(|opens| now < opens.timestamp_millis()) {
        SalePhase::NotOpen
    } else {
        SalePhase::Open
    }
}

/// Checks a selection of seats of a schedule. Returns the seats with their prices, and the total.
pub(super) fn price_seats(
    schedule: &ConcertSchedule,
    numbers: &[u32],
    max_seats: u32,
) -> Result<(Vec<ReservedSeat>, Money), SeatRefusal> {
    if numbers.is_empty() {
        return Err(SeatRefusal::Invalid("must contain at least one seat".into()));
    }
    let mut seen = HashSet::new();
    if let Some(number) = numbers.iter().find(|number| !seen.insert(**number)) {
        return Err(SeatRefusal::Invalid(format!("contains seat {number} twice")));
    }
    let mut seats = Vec::new();
    let mut amount = Money::ZERO;
    for &number in numbers {
        let Some(section) = schedule.section_of(number) else {
            let message = format!("contains seat {number}, which does not exist");
            return Err(SeatRefusal::Invalid(message));
        };
        amount = amount
            .plus(section.price)
            .ok_or_else(|| SeatRefusal::Invalid(TOTAL_TOO_HIGH.into()))?;
        seats.push(ReservedSeat { number, section: section.name.clone(), price: section.price });
    }
    if numbers.len() > max_seats as usize {
        Err(SeatRefusal::LimitExceeded)
    } else {
        Ok((seats, amount))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the tests do not depend on the time")]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::catalogue::SeatSection;
    use crate::money;

    fn schedule(price: i64) -> ConcertSchedule {
        let section = |name: &str, from, to, price| SeatSection {
            name: name.into(),
            from,
            to,
            price: Money::new(price).unwrap(),
        };
        ConcertSchedule {
            id: "d1".parse().unwrap(),
            starts_at: Utc::now(),
            booking_opens_at: None,
            booking_closes_at: None,
            sections: vec![section("A", 1, 10, 7_000), section("B", 11, 50, price)],
        }
    }

    #[test]
    fn selection_costs_the_sum_of_its_seats() {
        let (seats, amount) = price_seats(&schedule(5_000), &[11, 10], 4).unwrap();
        assert_eq!(amount.get(), 12_000);
        assert_eq!(
            seats[0],
            ReservedSeat { number: 11, section: "B".into(), price: Money::new(5_000).unwrap() }
        );
    }

    #[test]
    fn invalid_selection_is_explained() {
        for (numbers, message) in [
            (vec![], "at least one"),
            (vec![3, 4, 3], "seat 3 twice"),
            (vec![0], "seat 0, which does not exist"),
            (vec![51], "seat 51, which does not exist"),
        ] {
            match price_seats(&schedule(1), &numbers, 4) {
                Err(SeatRefusal::Invalid(text)) => assert!(text.contains(message), "{text}"),
                other => panic!("{numbers:?}: {other:?}"),
            }
        }
        let dear = price_seats(&schedule(money::MAX), &[11, 12], 4);
        assert!(matches!(dear, Err(SeatRefusal::Invalid(_))), "{dear:?}");
    }

    #[test]
    fn limit_is_inclusive() {
        assert!(price_seats(&schedule(1), &[1, 2, 3, 4], 4).is_ok());
        assert_eq!(price_seats(&schedule(1), &[1, 2, 3, 4, 5], 4), Err(SeatRefusal::LimitExceeded));
    }
}
