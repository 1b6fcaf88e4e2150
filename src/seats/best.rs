//! The best adjacent seats, chosen by the script that holds them.
//!
//! Rows are not known, so adjacent means consecutive numbers of one section. One call of the script looks at about 2,000 numbers, however large the
//! schedule; a search that is not done by then goes on in another call, together with everybody who searches meanwhile. So a date of 50,000 seats that
//! is all but sold out costs some 25 calls for up to 256 searches. Between two calls seats may come free behind a search: it then misses them, as
//! if it had been made a moment earlier.

use crate::catalogue::SeatSection;
use crate::ids::{ReservationId, ScheduleId};
use crate::money::Money;
use crate::queue::Claims;
use crate::redis;

use super::best_store::{BestSearch, BestSearchOutcome, START, sections};
use super::reservation::{Reservation, ReservationStatus, ReservedSeat};
use super::store::HoldTerms;
use super::{Error, SeatService, TRIES};

/// Calls that one search may take: a schedule has at most 100,000 seats, and a call in which others used up the looking may bring it no further.
const CALLS: u32 = 1_000;

impl SeatService {
    /// Holds the best adjacent seats.
    pub async fn hold_best(
        &self,
        claims: &Claims,
        schedule: &ScheduleId,
        quantity: u32,
        section: Option<&str>,
    ) -> Result<Reservation, Error> {
        let outcome = self.try_best(claims, schedule, quantity, section).await;
        super::count(&outcome);
        outcome
    }

    async fn try_best(
        &self,
        claims: &Claims,
        schedule: &ScheduleId,
        quantity: u32,
        section: Option<&str>,
    ) -> Result<Reservation, Error> {
        for _ in 0..TRIES {
            let date = self.bookable(claims, schedule)?;
            let max_seats = date.concert.max_seats_per_user;
            if quantity == 0 {
                return Err(Error::Unsound("quantity", "must be at least 1".into()));
            }
            if sections(&date, section).is_empty() {
                return Err(Error::Unsound("section", "names a section that is not there".into()));
            }
            if quantity > max_seats {
                return Err(Error::LimitExceeded(max_seats));
            }
            let id = ReservationId::new(claims.queue.slot());
            let mut search = BestSearch {
                date,
                id,
                user: claims.user,
                score: claims.score,
                quantity,
                from: START,
            };
            let found = match self.search(&mut search, section).await {
                Err(redis::Error::NotLaid) => {
                    Box::pin(self.catalogue.renew(&search.date.concert)).await?;
                    continue;
                }
                other => other?,
            };
            return match found {
                BestSearchOutcome::Held { now, held_until, section: place, first } => {
                    let chosen = sections(&search.date, section);
                    let chosen =
                        usize::try_from(place).ok().and_then(|place| chosen.get(place - 1));
                    let chosen = chosen.ok_or_else(|| {
                        redis::Error::Protocol("a section that was not named".into())
                    })?;
                    held(claims, &search, chosen, first, (now, held_until))
                }
                BestSearchOutcome::LimitExceeded => Err(Error::LimitExceeded(max_seats)),
                BestSearchOutcome::NotOpen => Err(Error::BookingNotOpen),
                BestSearchOutcome::Waiting => {
                    Err(crate::queue::Error::NotAdmitted { poll_after_ms: 1_000 }.into())
                }
                BestSearchOutcome::SlotGone => Err(crate::queue::Error::TokenExpired.into()),
                BestSearchOutcome::NotEnough => Err(Error::NotEnough),
                BestSearchOutcome::GoOn(_) => Err(redis::Error::Overloaded.into()),
            };
        }
        Err(redis::Error::NotLaid.into())
    }

    /// One call after another, until the search is done.
    async fn search(
        &self,
        search: &mut BestSearch,
        section: Option<&str>,
    ) -> Result<BestSearchOutcome, redis::Error> {
        let entity = (HoldTerms::of(&search.date), section.map(str::to_owned));
        for _ in 0..CALLS {
            match self.best.submit(entity.clone(), search.clone()).await? {
                BestSearchOutcome::GoOn(from) => search.from = from,
                done => return Ok(done),
            }
        }
        Err(redis::Error::Overloaded)
    }
}

fn held(
    claims: &Claims,
    search: &BestSearch,
    section: &SeatSection,
    first: u32,
    (now, held_until): (i64, i64),
) -> Result<Reservation, Error> {
    let seat =
        |number| ReservedSeat { number, section: section.name.clone(), price: section.price };
    let amount = Money::new(section.price.get() * i64::from(search.quantity))
        .ok_or_else(|| Error::Unsound("quantity", "costs more than an amount holds".into()))?;
    Ok(Reservation {
        id: search.id,
        user: search.user,
        queue: claims.queue.clone(),
        concert: search.date.concert.id.clone(),
        schedule: search.date.schedule().id.clone(),
        seats: (first..first + search.quantity).map(seat).collect(),
        amount,
        status: ReservationStatus::Held,
        held_until,
        created_at: now,
    })
}
