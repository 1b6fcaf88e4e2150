//! The best adjacent seats, chosen by the script that holds them.
//!
//! Rows are not known, so adjacent means consecutive numbers of one section. One call of the script looks at about 2,000 numbers, however large the
//! schedule; a search that is not done by then goes on in another call, together with everybody who searches meanwhile. So a date of 50,000 seats that
//! is all but sold out costs some 25 calls for up to 256 searches. Between two calls seats may come free behind a search: it then misses them, as
//! if it had been made a moment earlier.

use crate::catalogue::{Date, Section};
use crate::ids::{ReservationId, ScheduleId, UserId};
use crate::money::Money;
use crate::queue::Claims;
use crate::redis::{self, Batch, Redis, Reply, Script, Words, scripts};

use super::reservation::{Reservation, Seat, Status};
use super::store::{Terms, seat_number};
use super::{Error, Seats, TRIES};

/// Calls that one search may take: a schedule has at most 100,000 seats, and a call in which others used up the looking may bring it no further.
const CALLS: u32 = 1_000;

/// Where a search goes on: section (from 1), number, and the second best of that section or 0. The script tells and reads it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor {
    section: u32,
    number: u32,
    second: u32,
}

const START: Cursor = Cursor { section: 1, number: 0, second: 0 };

/// One search.
#[derive(Clone)]
pub(super) struct Search {
    date: Date,
    id: ReservationId,
    user: UserId,
    score: u64,
    quantity: u32,
    from: Cursor,
}

/// What came of a search.
#[derive(Debug)]
pub(super) enum Found {
    Held { now: i64, held_until: i64, section: u32, first: u32 },
    LimitExceeded,
    NotOpen,
    Waiting,
    SlotGone,
    NotEnough,
    GoOn(Cursor),
}

/// `seats/best`. Searches of a call have their date and the sections that they look at in common.
pub(super) struct Best(pub(super) Redis);

impl Batch for Best {
    type Entity = (Terms, Option<String>);
    type Request = Search;
    type Answer = Found;

    fn script(&self) -> &'static Script {
        &scripts::SEATS_BEST
    }

    async fn call(
        &self,
        (terms, name): &Self::Entity,
        searches: &[Search],
    ) -> Result<Vec<Found>, redis::Error> {
        let sections = searches.first().map(|search| sections(&search.date, name.as_deref()));
        let sections = sections.unwrap_or_default();
        let mut args = terms.args();
        args.int(i64::try_from(sections.len()).unwrap_or(i64::MAX));
        for section in sections {
            args.int(section.from.into()).int(section.to.into()).int(section.price.get());
            args.text(&tail(section)?);
        }
        for search in searches {
            args.bytes(search.id.as_bytes()).bytes(search.user.as_bytes()).text(&search.score.to_string());
            args.int(search.quantity.into()).int(search.from.section.into());
            args.int(search.from.number.into()).int(search.from.second.into());
        }
        let mut words = self.0.call(self.script(), terms.place(self.0.keys()), args).await?.words()?;
        let now = words.int()?;
        words.rest().map(|reply| found(now, reply)).collect()
    }
}

/// What follows its number in the JSON text of a seat; `lua/seats/best.lua` makes the same text of it as serde makes of a [`Seat`].
fn tail(section: &Section) -> Result<String, redis::Error> {
    let name =
        serde_json::to_string(&section.name).map_err(|error| redis::Error::Protocol(error.to_string()))?;
    Ok(format!(",\"section\":{name},\"price\":{}}}", section.price.get()))
}

fn found(now: i64, reply: Reply) -> Result<Found, redis::Error> {
    let mut words = reply.words()?;
    let number = |words: &mut Words| seat_number(words.word()?);
    Ok(match words.int()? {
        1 => Found::Held {
            now,
            held_until: words.int()?,
            section: number(&mut words)?,
            first: number(&mut words)?,
        },
        3 => Found::LimitExceeded,
        4 => Found::NotOpen,
        5 => Found::Waiting,
        7 => Found::NotEnough,
        8 => Found::GoOn(Cursor {
            section: number(&mut words)?,
            number: number(&mut words)?,
            second: number(&mut words)?,
        }),
        _ => Found::SlotGone,
    })
}

/// The sections of a date that are searched, in the operator's order.
fn sections<'a>(date: &'a Date, name: Option<&str>) -> Vec<&'a Section> {
    let all = date.schedule().sections.iter();
    all.filter(|section| name.is_none_or(|name| section.name == name)).collect()
}

impl Seats {
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
            let date = self.date(claims, schedule)?;
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
            let mut search =
                Search { date, id, user: claims.user, score: claims.score, quantity, from: START };
            let found = match self.search(&mut search, section).await {
                Err(redis::Error::NotLaid) => {
                    self.catalogue.renew(&search.date.concert).await?;
                    continue;
                }
                other => other?,
            };
            return match found {
                Found::Held { now, held_until, section: place, first } => {
                    let chosen = sections(&search.date, section);
                    let chosen = usize::try_from(place).ok().and_then(|place| chosen.get(place - 1));
                    let chosen = chosen
                        .ok_or_else(|| redis::Error::Protocol("a section that was not named".into()))?;
                    held(claims, &search, chosen, first, (now, held_until))
                }
                Found::LimitExceeded => Err(Error::LimitExceeded(max_seats)),
                Found::NotOpen => Err(Error::BookingNotOpen),
                Found::Waiting => Err(crate::queue::Error::NotAdmitted { poll_after_ms: 1_000 }.into()),
                Found::SlotGone => Err(crate::queue::Error::TokenExpired.into()),
                Found::NotEnough => Err(Error::NotEnough),
                Found::GoOn(_) => Err(redis::Error::Overloaded.into()),
            };
        }
        Err(redis::Error::NotLaid.into())
    }

    /// One call after another, until the search is done.
    async fn search(&self, search: &mut Search, section: Option<&str>) -> Result<Found, redis::Error> {
        let entity = (Terms::of(&search.date), section.map(str::to_owned));
        for _ in 0..CALLS {
            match self.best.submit(entity.clone(), search.clone()).await? {
                Found::GoOn(from) => search.from = from,
                done => return Ok(done),
            }
        }
        Err(redis::Error::Overloaded)
    }
}

fn held(
    claims: &Claims,
    search: &Search,
    section: &Section,
    first: u32,
    (now, held_until): (i64, i64),
) -> Result<Reservation, Error> {
    let seat = |number| Seat { number, section: section.name.clone(), price: section.price };
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
        status: Status::Held,
        held_until,
        created_at: now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_writes_a_seat_as_serde_does() {
        let name = "Räng \"1\"\\";
        let section = Section { name: name.into(), from: 1, to: 9, price: Money::new(15_000).unwrap() };
        let text = format!("[{{\"number\":7{}]", tail(&section).unwrap());
        let seat = Seat { number: 7, section: name.into(), price: section.price };
        assert_eq!(serde_json::from_str::<Vec<Seat>>(&text).unwrap(), [seat]);
    }
}
