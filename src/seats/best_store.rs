//! The script of the best adjacent seats.

use super::store::{HoldTerms, seat_number};
use crate::catalogue::{ScheduledConcert, SeatSection};
use crate::ids::{ReservationId, UserId};
use crate::redis::codes::SeatsBestCode;
use crate::redis::{
    BatchScript, Error, KeyBuilder, KeyScope, LuaScript, ReplyReader, ScriptArgs, ScriptReply,
    scripts,
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
pub(super) struct BestSearchBatch;

impl BatchScript for BestSearchBatch {
    type Entity = (HoldTerms, Option<String>);
    type Request = BestSearch;
    type Answer = BestSearchOutcome;

    fn script(&self) -> &'static LuaScript {
        &scripts::SEATS_BEST
    }

    fn scope<'a>(
        &self,
        keys: &KeyBuilder,
        entity: &'a (HoldTerms, Option<String>),
    ) -> KeyScope<'a> {
        entity.0.scope(keys)
    }

    fn write_args(
        &self,
        entity: &(HoldTerms, Option<String>),
        requests: &[BestSearch],
        args: &mut ScriptArgs,
    ) -> Result<(), Error> {
        let (terms, section) = entity;
        let sections = requests.first().map(|search| sections(&search.date, section.as_deref()));
        let sections = sections.unwrap_or_default();
        terms.write_args(args);
        args.int(i64::try_from(sections.len()).unwrap_or(i64::MAX));
        for section in sections {
            args.int(section.from.into()).int(section.to.into()).int(section.price.get());
            args.text(&tail(section)?);
        }
        for search in requests {
            args.bytes(search.id.as_bytes()).bytes(search.user.as_bytes());
            args.text(&search.score.to_string());
            args.int(search.quantity.into()).int(search.from.section.into());
            args.int(search.from.number.into()).int(search.from.second.into());
        }
        Ok(())
    }

    fn read_answers(
        &self,
        _: &(HoldTerms, Option<String>),
        _: &[BestSearch],
        mut reply: ReplyReader,
    ) -> Result<Vec<BestSearchOutcome>, Error> {
        let now = reply.int()?;
        reply.rest().map(|word| search_outcome(now, word)).collect()
    }
}

/// What follows its number in the JSON text of a seat; `lua/seats/best.lua` makes the same text of it as serde makes of a `Seat`.
fn tail(section: &SeatSection) -> Result<String, Error> {
    let name =
        serde_json::to_string(&section.name).map_err(|error| Error::Protocol(error.to_string()))?;
    Ok(format!(",\"section\":{name},\"price\":{}}}", section.price.get()))
}

fn search_outcome(now: i64, reply: ScriptReply) -> Result<BestSearchOutcome, Error> {
    let mut words = reply.words()?;
    let number = |words: &mut ReplyReader| seat_number(words.word()?);
    Ok(match words.code()? {
        SeatsBestCode::Held => BestSearchOutcome::Held {
            now,
            held_until: words.int()?,
            section: number(&mut words)?,
            first: number(&mut words)?,
        },
        SeatsBestCode::LimitExceeded => BestSearchOutcome::LimitExceeded,
        SeatsBestCode::NotOpen => BestSearchOutcome::NotOpen,
        SeatsBestCode::Waiting => BestSearchOutcome::Waiting,
        SeatsBestCode::NotEnough => BestSearchOutcome::NotEnough,
        SeatsBestCode::Continue => BestSearchOutcome::GoOn(BestSearchCursor {
            section: number(&mut words)?,
            number: number(&mut words)?,
            second: number(&mut words)?,
        }),
        SeatsBestCode::Expired => BestSearchOutcome::SlotGone,
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
