//! Holds the best adjacent seats, which the script selects.
//!
//! Rows are unknown, so adjacent seats have consecutive numbers in one section. One call of the
//! script reads about 2,000 seats. A longer search continues in another call, in a batch with other
//! searches. A schedule of 50,000 seats that is almost sold out needs about 25 calls for up to 256
//! searches.
//!
//! A search misses seats that become free behind its cursor between two calls, as if it had been
//! made a little earlier.

use crate::catalogue::SeatSection;
use crate::idempotency::KeyedRequest;
use crate::ids::{ReservationId, ScheduleId};
use crate::money::Money;
use crate::queue::Claims;
use crate::redis;

use super::best_store::{BestSearch, BestSearchOutcome, SEARCH_START, sections};
use super::reservation::{Reservation, ReservationStatus, ReservedSeat};
use super::rules::TOTAL_TOO_HIGH;
use super::store::HoldTerms;
use super::{Error, HeldReservation, HoldId, MAX_HOLD_ATTEMPTS, SeatService};

/// A schedule of 100,000 seats needs about 50 calls, but other searches of a batch may use up its
/// limit.
const MAX_SEARCH_CALLS: u32 = 1_000;

impl SeatService {
    /// Holds `quantity` adjacent seats, in one section if it is given. The key works as for
    /// [`Self::hold`].
    pub async fn hold_best(
        &self,
        claims: &Claims,
        schedule: &ScheduleId,
        quantity: u32,
        section: Option<&str>,
        keyed: Option<KeyedRequest>,
    ) -> Result<HeldReservation, Error> {
        match self.hold_id(claims, keyed).await? {
            HoldId::Existing(held) => Ok(*held),
            HoldId::New { id, keyed } => {
                let outcome =
                    self.try_hold_best(claims, schedule, (quantity, section), (id, keyed)).await;
                super::count_hold(&outcome);
                outcome
            }
        }
    }

    async fn try_hold_best(
        &self,
        claims: &Claims,
        schedule: &ScheduleId,
        (quantity, section): (u32, Option<&str>),
        (id, keyed): (ReservationId, bool),
    ) -> Result<HeldReservation, Error> {
        for _ in 0..MAX_HOLD_ATTEMPTS {
            let scheduled = self.bookable_schedule(claims, schedule).await?;
            let max_seats = scheduled.concert.max_seats_per_user;
            if quantity == 0 {
                return Err(Error::InvalidField("quantity", "must be at least 1".into()));
            }
            if sections(&scheduled, section).is_empty() {
                return Err(Error::InvalidField("section", "does not exist".into()));
            }
            if quantity > max_seats {
                return Err(Error::LimitExceeded(max_seats));
            }
            let mut search = BestSearch {
                scheduled,
                id,
                user: claims.user,
                score: claims.score,
                quantity,
                cursor: SEARCH_START,
                keyed,
            };
            let outcome = match self.search(&mut search, section).await {
                Err(redis::Error::NotPublished) => {
                    Box::pin(self.catalogue.refresh(&search.scheduled.concert)).await?;
                    continue;
                }
                other => other?,
            };
            return match outcome {
                BestSearchOutcome::Held { now, held_until, section: number, first } => {
                    let searched = sections(&search.scheduled, section);
                    let found =
                        usize::try_from(number).ok().and_then(|number| searched.get(number - 1));
                    let found = found
                        .ok_or_else(|| redis::Error::Protocol("unknown section number".into()))?;
                    let reservation =
                        reservation(claims, &search, found, first, (now, held_until))?;
                    Ok(HeldReservation { reservation, now, replayed: false })
                }
                BestSearchOutcome::Repeated => self.repeated(id, claims.user).await,
                BestSearchOutcome::LimitExceeded => Err(Error::LimitExceeded(max_seats)),
                BestSearchOutcome::NotOpen => Err(Error::BookingNotOpen),
                BestSearchOutcome::VisitOver => Err(Error::VisitOver),
                BestSearchOutcome::Waiting => {
                    Err(crate::queue::Error::NotAdmitted { poll_after_ms: 1_000 }.into())
                }
                BestSearchOutcome::SlotExpired => Err(crate::queue::Error::TokenExpired.into()),
                BestSearchOutcome::NotEnough => Err(Error::NotEnoughSeats),
                BestSearchOutcome::Continue(_) => Err(redis::Error::Overloaded.into()),
            };
        }
        Err(redis::Error::NotPublished.into())
    }

    /// Calls the script until the search is complete.
    async fn search(
        &self,
        search: &mut BestSearch,
        section: Option<&str>,
    ) -> Result<BestSearchOutcome, redis::Error> {
        let entity = (HoldTerms::of(&search.scheduled), section.map(str::to_owned));
        for _ in 0..MAX_SEARCH_CALLS {
            match self.best.submit(entity.clone(), search.clone()).await? {
                BestSearchOutcome::Continue(from) => search.cursor = from,
                outcome => return Ok(outcome),
            }
        }
        Err(redis::Error::Overloaded)
    }
}

fn reservation(
    claims: &Claims,
    search: &BestSearch,
    section: &SeatSection,
    first: u32,
    (now, held_until): (i64, i64),
) -> Result<Reservation, Error> {
    let seat =
        |number| ReservedSeat { number, section: section.name.clone(), price: section.price };
    let amount = Money::new(section.price.get() * i64::from(search.quantity))
        .ok_or_else(|| Error::InvalidField("quantity", TOTAL_TOO_HIGH.into()))?;
    Ok(Reservation {
        id: search.id,
        user: search.user,
        queue: claims.queue.clone(),
        concert: search.scheduled.concert.id.clone(),
        schedule: search.scheduled.schedule().id.clone(),
        seats: (first..first + search.quantity).map(seat).collect(),
        amount,
        status: ReservationStatus::Held,
        held_until,
        created_at: now,
        title: Some(search.scheduled.concert.title.clone()),
        starts_at: Some(search.scheduled.schedule().starts_at.timestamp_millis()),
        payment: None,
        paid: None,
        discount: None,
        cancellations: Vec::new(),
    })
}
