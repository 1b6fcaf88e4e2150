//! Pure decisions about seats: which choice is sound and what it costs.

use std::collections::HashSet;

use super::reservation::ReservedSeat;
use crate::catalogue::ConcertSchedule;
use crate::money::Money;

/// Why a choice of seats is refused before anybody is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SeatRefusal {
    /// Empty, repeated or unknown numbers.
    Unsound(String),
    /// More than a user may have.
    Limit,
}

/// Checks a choice of seats against its schedule; gives the seats with their prices, and the amount.
pub(super) fn choose(
    schedule: &ConcertSchedule,
    numbers: &[u32],
    max_seats: u32,
) -> Result<(Vec<ReservedSeat>, Money), SeatRefusal> {
    if numbers.is_empty() {
        return Err(SeatRefusal::Unsound("must name at least one seat".into()));
    }
    let mut seen = HashSet::new();
    if let Some(number) = numbers.iter().find(|number| !seen.insert(**number)) {
        return Err(SeatRefusal::Unsound(format!("names seat {number} twice")));
    }
    let mut seats = Vec::new();
    let mut amount = Money::ZERO;
    for &number in numbers {
        let Some(section) = schedule.section_of(number) else {
            return Err(SeatRefusal::Unsound(format!("names seat {number}, which is not there")));
        };
        amount = amount
            .plus(section.price)
            .ok_or_else(|| SeatRefusal::Unsound("costs more than an amount holds".into()))?;
        seats.push(ReservedSeat { number, section: section.name.clone(), price: section.price });
    }
    if numbers.len() > max_seats as usize { Err(SeatRefusal::Limit) } else { Ok((seats, amount)) }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any time will do")]
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
    fn a_choice_costs_the_sum_of_its_seats() {
        let (seats, amount) = choose(&schedule(5_000), &[11, 10], 4).unwrap();
        assert_eq!(amount.get(), 12_000);
        assert_eq!(
            seats[0],
            ReservedSeat { number: 11, section: "B".into(), price: Money::new(5_000).unwrap() }
        );
    }

    #[test]
    fn an_unsound_choice_says_why() {
        for (numbers, why) in [
            (vec![], "at least one"),
            (vec![3, 4, 3], "seat 3 twice"),
            (vec![0], "seat 0, which is not there"),
            (vec![51], "seat 51, which is not there"),
        ] {
            match choose(&schedule(1), &numbers, 4) {
                Err(SeatRefusal::Unsound(text)) => assert!(text.contains(why), "{text}"),
                other => panic!("{numbers:?}: {other:?}"),
            }
        }
        let dear = choose(&schedule(money::MAX), &[11, 12], 4);
        assert!(matches!(dear, Err(SeatRefusal::Unsound(_))), "{dear:?}");
    }

    #[test]
    fn the_limit_is_the_last_seat_allowed() {
        assert!(choose(&schedule(1), &[1, 2, 3, 4], 4).is_ok());
        assert_eq!(choose(&schedule(1), &[1, 2, 3, 4, 5], 4), Err(SeatRefusal::Limit));
    }
}
