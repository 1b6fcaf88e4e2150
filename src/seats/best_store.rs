//! The script of the best adjacent seats.

use super::store::{HoldTerms, seat_number};
use crate::catalogue::{ScheduledConcert, SeatSection};
use crate::ids::{ReservationId, UserId};
use crate::redis::{
    self, BatchOperation, LuaScript, RedisClient, ReplyReader, ScriptReply, scripts,
};

/// Where a search goes on: section (from 1), number, and the second best of that section or 0. The script tells and reads it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BestSearchCursor {
    section: u32,
    number: u32,
    second: u32,
}

/// Where a search begins.
pub(super) const START: BestSearchCursor = BestSearchCursor { section: 1, number: 0, second: 0 };

/// One search.
#[derive(Clone)]
pub(super) struct BestSearch {
    pub(super) date: ScheduledConcert,
    pub(super) id: ReservationId,
    pub(super) user: UserId,
    pub(super) score: u64,
    pub(super) quantity: u32,
    pub(super) from: BestSearchCursor,
}

/// What came of a search.
#[derive(Debug)]
pub(super) enum BestSearchOutcome {
    Held { now: i64, held_until: i64, section: u32, first: u32 },
    LimitExceeded,
    NotOpen,
    Waiting,
    SlotGone,
    NotEnough,
    GoOn(BestSearchCursor),
}

/// `seats/best`. Searches of a call have their date and the sections that they look at in common.
pub(super) struct BestSearchBatch(pub(super) RedisClient);

impl BatchOperation for BestSearchBatch {
    type Entity = (HoldTerms, Option<String>);
    type Request = BestSearch;
    type Answer = BestSearchOutcome;

    fn script(&self) -> &'static LuaScript {
        &scripts::SEATS_BEST
    }

    async fn call(
        &self,
        (terms, name): &Self::Entity,
        searches: &[BestSearch],
    ) -> Result<Vec<BestSearchOutcome>, redis::Error> {
        let sections = searches.first().map(|search| sections(&search.date, name.as_deref()));
        let sections = sections.unwrap_or_default();
        let mut args = terms.args();
        args.int(i64::try_from(sections.len()).unwrap_or(i64::MAX));
        for section in sections {
            args.int(section.from.into()).int(section.to.into()).int(section.price.get());
            args.text(&tail(section)?);
        }
        for search in searches {
            args.bytes(search.id.as_bytes())
                .bytes(search.user.as_bytes())
                .text(&search.score.to_string());
            args.int(search.quantity.into()).int(search.from.section.into());
            args.int(search.from.number.into()).int(search.from.second.into());
        }
        let mut words =
            self.0.call(self.script(), terms.place(self.0.keys()), args).await?.words()?;
        let now = words.int()?;
        words.rest().map(|reply| found(now, reply)).collect()
    }
}

/// What follows its number in the JSON text of a seat; `lua/seats/best.lua` makes the same text of it as serde makes of a `Seat`.
fn tail(section: &SeatSection) -> Result<String, redis::Error> {
    let name = serde_json::to_string(&section.name)
        .map_err(|error| redis::Error::Protocol(error.to_string()))?;
    Ok(format!(",\"section\":{name},\"price\":{}}}", section.price.get()))
}

fn found(now: i64, reply: ScriptReply) -> Result<BestSearchOutcome, redis::Error> {
    let mut words = reply.words()?;
    let number = |words: &mut ReplyReader| seat_number(words.word()?);
    Ok(match words.int()? {
        1 => BestSearchOutcome::Held {
            now,
            held_until: words.int()?,
            section: number(&mut words)?,
            first: number(&mut words)?,
        },
        3 => BestSearchOutcome::LimitExceeded,
        4 => BestSearchOutcome::NotOpen,
        5 => BestSearchOutcome::Waiting,
        7 => BestSearchOutcome::NotEnough,
        8 => BestSearchOutcome::GoOn(BestSearchCursor {
            section: number(&mut words)?,
            number: number(&mut words)?,
            second: number(&mut words)?,
        }),
        _ => BestSearchOutcome::SlotGone,
    })
}

/// The sections of a date that are searched, in the operator's order.
pub(super) fn sections<'a>(date: &'a ScheduledConcert, name: Option<&str>) -> Vec<&'a SeatSection> {
    let all = date.schedule().sections.iter();
    all.filter(|section| name.is_none_or(|name| section.name == name)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::reservation::ReservedSeat;
    use super::*;
    use crate::money::Money;

    #[test]
    fn the_script_writes_a_seat_as_serde_does() {
        let name = "Räng \"1\"\\";
        let section =
            SeatSection { name: name.into(), from: 1, to: 9, price: Money::new(15_000).unwrap() };
        let text = format!("[{{\"number\":7{}]", tail(&section).unwrap());
        let seat = ReservedSeat { number: 7, section: name.into(), price: section.price };
        assert_eq!(serde_json::from_str::<Vec<ReservedSeat>>(&text).unwrap(), [seat]);
    }
}
