//! Calls of `lua/seats/best.lua`.

use super::store::{HoldTerms, seat_number};
use crate::catalogue::{ScheduledConcert, SeatSection};
use crate::ids::{ReservationId, UserId};
use crate::redis::codes::SeatsBestCode;
use crate::redis::{
    BatchScript, Error, KeyBuilder, KeyScope, LuaScript, ReplyReader, ScriptArgs, ScriptReply,
    scripts,
};

/// Where a search continues. The script returns it, and the next call passes it back.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BestSearchCursor {
    /// The number of the section among the searched ones, from 1.
    section: u32,
    /// The number of the seat.
    number: u32,
    /// The first seat of the second best choice in this section, or 0.
    second_best: u32,
}

pub(super) const SEARCH_START: BestSearchCursor =
    BestSearchCursor { section: 1, number: 0, second_best: 0 };

#[derive(Clone)]
pub(super) struct BestSearch {
    pub(super) scheduled: ScheduledConcert,
    pub(super) id: ReservationId,
    pub(super) user: UserId,
    pub(super) score: u64,
    pub(super) quantity: u32,
    pub(super) cursor: BestSearchCursor,
    /// Whether the request has an idempotency key, so that the hold may exist already.
    pub(super) keyed: bool,
}

#[derive(Debug)]
pub(super) enum BestSearchOutcome {
    /// An earlier request with the same idempotency key made the hold.
    Repeated,
    /// Times in milliseconds since 1970. `section` is its number among the searched ones, from 1.
    /// `first` is the lowest seat number.
    Held {
        now: i64,
        held_until: i64,
        section: u32,
        first: u32,
    },
    LimitExceeded,
    NotOpen,
    /// The visit's own time is over.
    VisitOver,
    Waiting,
    SlotExpired,
    NotEnough,
    Continue(BestSearchCursor),
}

/// `seats/best`. All searches of a call have the same schedule and search the same sections.
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
        let sections =
            requests.first().map(|search| sections(&search.scheduled, section.as_deref()));
        let sections = sections.unwrap_or_default();
        terms.write_args(args);
        args.int(i64::try_from(sections.len()).unwrap_or(i64::MAX));
        for section in sections {
            args.int(section.from.into()).int(section.to.into()).int(section.price.get());
            args.text(&seat_json_suffix(section)?);
        }
        for search in requests {
            args.bytes(search.id.as_bytes()).bytes(search.user.as_bytes());
            args.text(&search.score.to_string());
            args.int(search.quantity.into()).int(search.cursor.section.into());
            args.int(search.cursor.number.into()).int(search.cursor.second_best.into());
            args.int(search.keyed.into());
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

/// The JSON of a seat after its number. With it, `lua/seats/best.lua` writes the JSON that serde
/// writes for a [`ReservedSeat`](super::ReservedSeat).
fn seat_json_suffix(section: &SeatSection) -> Result<String, Error> {
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
        SeatsBestCode::VisitOver => BestSearchOutcome::VisitOver,
        SeatsBestCode::Waiting => BestSearchOutcome::Waiting,
        SeatsBestCode::NotEnough => BestSearchOutcome::NotEnough,
        SeatsBestCode::Continue => BestSearchOutcome::Continue(BestSearchCursor {
            section: number(&mut words)?,
            number: number(&mut words)?,
            second_best: number(&mut words)?,
        }),
        SeatsBestCode::Repeated => BestSearchOutcome::Repeated,
        SeatsBestCode::Expired => BestSearchOutcome::SlotExpired,
    })
}

/// The searched sections in the order of the definition: the one with this name, or all.
pub(super) fn sections<'a>(
    scheduled: &'a ScheduledConcert,
    name: Option<&str>,
) -> Vec<&'a SeatSection> {
    let all = scheduled.schedule().sections.iter();
    all.filter(|section| name.is_none_or(|name| section.name == name)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::reservation::ReservedSeat;
    use super::*;
    use crate::money::Money;

    #[test]
    fn script_writes_the_json_of_a_seat_that_serde_reads() {
        let name = "Räng \"1\"\\";
        let section =
            SeatSection { name: name.into(), from: 1, to: 9, price: Money::new(15_000).unwrap() };
        let text = format!("[{{\"number\":7{}]", seat_json_suffix(&section).unwrap());
        let seat = ReservedSeat { number: 7, section: name.into(), price: section.price };
        assert_eq!(serde_json::from_str::<Vec<ReservedSeat>>(&text).unwrap(), [seat]);
    }
}
