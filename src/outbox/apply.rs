//! Many entries folded into what MySQL has to change. No IO, so that what a batch means can be tested without a server.
//!
//! Of a reservation, a payment, a wallet, the use of a coupon and a user's facts only the last state counts; ledger lines,
//! promotions, issues and claims count each. An entity lives
//! in one partition and a partition's entries are folded in order, so "last" is well defined whichever partitions share a batch.
//! Everything is kept sorted by key: transactions that touch the same rows then take their locks in the same order.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::event::{
    self, Claim, DecodeError, Event, Facts, IssueUse, Issues, Payment, Promotion, Reservation,
    ReservationStatus, WalletEntry,
};
use crate::ids::{CouponId, IssueId, PaymentId, ReservationId, ScheduleId, UserId};
use crate::money::Money;
use crate::mysql;
use crate::mysql::generation::Checkpoint;
use crate::partition::Partition;
use crate::redis;

/// Events of one outbox entry that have a position of their own: a script takes at most 256 requests.
const POSITIONS: u64 = 256;

/// Why a partition can't go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// Entries are missing, so what follows must not be applied.
    #[error("a gap in the outbox: entry {expected} should come next, but {found} does")]
    Gap { expected: u64, found: u64 },
    /// The entry isn't of a schema that this release knows.
    #[error("outbox entry {n}: {error}")]
    Unreadable { n: u64, error: DecodeError },
    /// A ledger line would share its position with one of the next entry.
    #[error("outbox entry {n}: its event {index} has no position in the ledger")]
    Position { n: u64, index: usize },
    /// A statement failed in a way that doing it again won't change: a seat with two owners, a value that doesn't fit.
    #[error("MySQL refuses what follows the checkpoint: {0}")]
    Refused(mysql::Error),
    /// Redis answered with something that isn't an outbox.
    #[error("the outbox can't be read: {0}")]
    Outbox(redis::Error),
}

/// What stands in a wallet.
pub(super) struct Wallet {
    pub(super) balance: Money,
    pub(super) at: DateTime<Utc>,
}

/// A ledger line and its place in its partition's history.
pub(super) struct Line {
    pub(super) position: i64,
    pub(super) entry: WalletEntry,
}

/// A promotion and its place in the outbox.
pub(super) struct Run {
    pub(super) partition: Partition,
    pub(super) n: u64,
    pub(super) idx: u16,
    pub(super) promotion: Promotion,
}

/// A seat of a reservation.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Seat<'a> {
    pub(super) schedule: &'a ScheduleId,
    pub(super) number: u32,
    pub(super) reservation: ReservationId,
}

/// A coupon in a user's hands.
pub(super) struct Issue<'a> {
    pub(super) id: IssueId,
    pub(super) coupon: &'a CouponId,
    pub(super) user: UserId,
    pub(super) issued_at: DateTime<Utc>,
}

/// What one transaction brings to MySQL.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) reservations: BTreeMap<ReservationId, Reservation>,
    pub(super) payments: BTreeMap<PaymentId, Payment>,
    pub(super) wallets: BTreeMap<UserId, Wallet>,
    pub(super) lines: Vec<Line>,
    pub(super) runs: Vec<Run>,
    pub(super) issues: Vec<Issues>,
    pub(super) uses: BTreeMap<IssueId, IssueUse>,
    pub(super) claims: Vec<Claim>,
    pub(super) facts: BTreeMap<UserId, Facts>,
    /// Outbox entries taken in.
    pub(super) entries: usize,
    /// Events in them.
    pub(super) events: usize,
    /// When the newest of them happened.
    pub(super) newest: Option<DateTime<Utc>>,
}

impl Fault {
    /// Whether the entry itself is at fault, and will be for ever. A newer release may read what this one can't.
    pub(super) fn is_poison(&self) -> bool {
        match self {
            Self::Unreadable { error, .. } => !matches!(error, DecodeError::Version(_)),
            Self::Position { .. } => true,
            Self::Gap { .. } | Self::Refused(_) | Self::Outbox(_) => false,
        }
    }
}

impl Batch {
    /// Some events of one entry.
    pub(super) fn of(partition: Partition, n: u64, events: Vec<(u16, i64, Event)>) -> Self {
        let mut batch = Self::default();
        batch.fold(partition, n, events);
        batch.sort();
        batch
    }

    /// Takes in the entries that follow a checkpoint, as long as there is no gap among them, each can be read, and no more than
    /// `share` events were taken (but always one entry). Answers where the checkpoint moves to, and why it can't move on, if so:
    /// what stands before the fault is sound and gets written.
    pub(super) fn take(
        &mut self,
        from: &Checkpoint,
        entries: &[redis::Entry],
        share: usize,
    ) -> (u64, Option<Fault>) {
        let mut through = from.n;
        let before = self.events;
        for entry in entries {
            if through > from.n && self.events - before >= share {
                break;
            }
            match read(through + 1, entry) {
                Ok(events) => self.fold(from.partition, entry.n, events),
                Err(fault) => return (through, Some(fault)),
            }
            through = entry.n;
        }
        (through, None)
    }

    fn fold(&mut self, partition: Partition, n: u64, events: Vec<(u16, i64, Event)>) {
        self.entries += 1;
        self.events += events.iter().map(|(_, _, event)| event.count()).sum::<usize>();
        for (idx, position, event) in events {
            self.newest = self.newest.max(Some(event.at()));
            match event {
                Event::Entry(entry) => {
                    self.wallets.insert(entry.user, Wallet { balance: entry.balance, at: entry.at });
                    self.lines.push(Line { position, entry });
                }
                Event::Reservation(reservation) => {
                    self.reservations.insert(reservation.id, reservation);
                }
                Event::Payment(payment) => {
                    self.payments.insert(payment.id, payment);
                }
                Event::Promotion(promotion) => self.runs.push(Run { partition, n, idx, promotion }),
                Event::Issues(issues) => self.issues.push(issues),
                Event::Use(issue_use) => {
                    self.uses.insert(issue_use.id, issue_use);
                }
                Event::Claim(claim) => self.claims.push(claim),
                Event::Facts(facts) => {
                    self.facts.insert(facts.user, facts);
                }
            }
        }
    }

    /// What counts each, in the order of the primary keys.
    pub(super) fn sort(&mut self) {
        self.lines.sort_unstable_by_key(|line| line.entry.id);
        self.runs.sort_unstable_by_key(|run| (run.partition, run.n, run.idx));
        self.claims.sort_unstable_by_key(|claim| claim.id);
    }

    /// The issues, in the order of their primary key.
    pub(super) fn issues(&self) -> Vec<Issue<'_>> {
        let mut all = Vec::new();
        for Issues { coupon, issued_at, pairs } in &self.issues {
            all.extend(pairs.iter().map(|&(user, id)| Issue { id, coupon, user, issued_at: *issued_at }));
        }
        all.sort_unstable_by_key(|issue| issue.id);
        all
    }

    /// The seats of the reservations that ended this batch in that status, in the order of the seats' primary key.
    pub(super) fn seats(&self, status: ReservationStatus) -> Vec<Seat<'_>> {
        let those = self.reservations.values().filter(|reservation| reservation.status == status);
        let mut seats: Vec<_> = those
            .flat_map(|r| {
                r.seats.iter().map(|&number| Seat { schedule: &r.schedule, number, reservation: r.id })
            })
            .collect();
        seats.sort_unstable();
        seats
    }
}

/// The entry's events with their index and position. All or nothing: an entry that is half sound must not be half folded.
pub(super) fn read(expected: u64, entry: &redis::Entry) -> Result<Vec<(u16, i64, Event)>, Fault> {
    let n = entry.n;
    if n != expected {
        return Err(Fault::Gap { expected, found: n });
    }
    let events =
        event::decode(&entry.version, &entry.payload).map_err(|error| Fault::Unreadable { n, error })?;
    let places = events.into_iter().enumerate().map(|(index, event)| {
        let idx = u16::try_from(index).ok();
        let position = position(n, index).or_else(|| (!matches!(event, Event::Entry(_))).then_some(0));
        idx.zip(position).map(|(idx, position)| (idx, position, event)).ok_or(Fault::Position { n, index })
    });
    places.collect()
}

/// n × 256 + index; `None` where that would run into the next entry's positions or out of a BIGINT.
fn position(n: u64, index: usize) -> Option<i64> {
    let index = u64::try_from(index).ok().filter(|index| *index < POSITIONS)?;
    i64::try_from(n.checked_mul(POSITIONS)?.checked_add(index)?).ok()
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
