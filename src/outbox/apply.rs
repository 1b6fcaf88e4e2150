//! Many entries folded into what MySQL has to change. No IO, so that what a batch means can be tested without a server.
//!
//! Of a reservation, a payment, a wallet, the use of a coupon and a user's facts only the last state counts; ledger lines,
//! promotions, issues and claims count each. An entity lives
//! in one partition and a partition's entries are folded in order, so "last" is well defined whichever partitions share a batch.
//! Everything is kept sorted by key: transactions that touch the same rows then take their locks in the same order.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::event::{
    self, CouponIssuesEvent, CouponRedemptionEvent, EventDecodeError, LedgerEntryEvent,
    OutboxEvent, PaymentEvent, PromotionEvent, ReservationEvent, ReservationEventStatus,
    RewardClaimEvent, UserFactsEvent,
};
use crate::ids::{CouponId, IssueId, PaymentId, ReservationId, ScheduleId, UserId};
use crate::money::Money;
use crate::mysql;
use crate::mysql::checkpoint::Checkpoint;
use crate::partition::Partition;
use crate::redis;

/// Events of one outbox entry that have a position of their own: a script takes at most 256 requests.
const MAX_EVENTS_PER_ENTRY: u64 = 256;

/// Why a partition can't go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    /// Entries are missing, so what follows must not be applied.
    #[error("a gap in the outbox: entry {expected} should come next, but {found} does")]
    Gap { expected: u64, found: u64 },
    /// The entry isn't of a schema that this release knows.
    #[error("outbox entry {n}: {error}")]
    Unreadable { n: u64, error: EventDecodeError },
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
pub(super) struct WalletState {
    pub(super) balance: Money,
    pub(super) at: DateTime<Utc>,
}

/// A ledger line and its place in its partition's history.
pub(super) struct LedgerRow {
    pub(super) position: i64,
    pub(super) entry: LedgerEntryEvent,
}

/// A promotion and its place in the outbox.
pub(super) struct PromotionRow {
    pub(super) partition: Partition,
    pub(super) n: u64,
    pub(super) idx: u16,
    pub(super) promotion: PromotionEvent,
}

/// A seat of a reservation.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct SeatRow<'a> {
    pub(super) schedule: &'a ScheduleId,
    pub(super) number: u32,
    pub(super) reservation: ReservationId,
}

/// A coupon in a user's hands.
pub(super) struct IssueState<'a> {
    pub(super) id: IssueId,
    pub(super) coupon: &'a CouponId,
    pub(super) user: UserId,
    pub(super) issued_at: DateTime<Utc>,
}

/// What one transaction brings to MySQL.
#[derive(Default)]
pub(super) struct FlushBatch {
    pub(super) reservations: BTreeMap<ReservationId, ReservationEvent>,
    pub(super) payments: BTreeMap<PaymentId, PaymentEvent>,
    pub(super) wallets: BTreeMap<UserId, WalletState>,
    pub(super) ledger_rows: Vec<LedgerRow>,
    pub(super) promotions: Vec<PromotionRow>,
    pub(super) issues: Vec<CouponIssuesEvent>,
    pub(super) redemptions: BTreeMap<IssueId, CouponRedemptionEvent>,
    pub(super) claims: Vec<RewardClaimEvent>,
    pub(super) facts: BTreeMap<UserId, UserFactsEvent>,
    /// Outbox entries taken in.
    pub(super) entries: usize,
    /// Events in them.
    pub(super) events: usize,
    /// When the newest of them happened.
    pub(super) newest: Option<DateTime<Utc>>,
}

impl ApplyError {
    /// Whether the entry itself is at fault, and will be for ever. A newer release may read what this one can't.
    pub(super) fn is_poison(&self) -> bool {
        match self {
            Self::Unreadable { error, .. } => !matches!(error, EventDecodeError::Version(_)),
            Self::Position { .. } => true,
            Self::Gap { .. } | Self::Refused(_) | Self::Outbox(_) => false,
        }
    }
}

impl FlushBatch {
    /// Some events of one entry.
    pub(super) fn of(partition: Partition, n: u64, events: Vec<(u16, i64, OutboxEvent)>) -> Self {
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
        entries: &[redis::OutboxEntry],
        share: usize,
    ) -> (u64, Option<ApplyError>) {
        let mut through = from.n;
        let before = self.events;
        for entry in entries {
            if through > from.n && self.events - before >= share {
                break;
            }
            match decode_entry(through + 1, entry) {
                Ok(events) => self.fold(from.partition, entry.n, events),
                Err(fault) => return (through, Some(fault)),
            }
            through = entry.n;
        }
        (through, None)
    }

    fn fold(&mut self, partition: Partition, n: u64, events: Vec<(u16, i64, OutboxEvent)>) {
        self.entries += 1;
        self.events += events.iter().map(|(_, _, event)| event.count()).sum::<usize>();
        for (idx, position, event) in events {
            self.newest = self.newest.max(Some(event.at()));
            match event {
                OutboxEvent::Entry(entry) => {
                    self.wallets
                        .insert(entry.user, WalletState { balance: entry.balance, at: entry.at });
                    self.ledger_rows.push(LedgerRow { position, entry });
                }
                OutboxEvent::Reservation(reservation) => {
                    self.reservations.insert(reservation.id, reservation);
                }
                OutboxEvent::Payment(payment) => {
                    self.payments.insert(payment.id, payment);
                }
                OutboxEvent::Promotion(promotion) => {
                    self.promotions.push(PromotionRow { partition, n, idx, promotion })
                }
                OutboxEvent::Issues(issues) => self.issues.push(issues),
                OutboxEvent::Use(issue_use) => {
                    self.redemptions.insert(issue_use.id, issue_use);
                }
                OutboxEvent::Claim(claim) => self.claims.push(claim),
                OutboxEvent::Facts(facts) => {
                    self.facts.insert(facts.user, facts);
                }
            }
        }
    }

    /// What counts each, in the order of the primary keys.
    pub(super) fn sort(&mut self) {
        self.ledger_rows.sort_unstable_by_key(|line| line.entry.id);
        self.promotions.sort_unstable_by_key(|run| (run.partition, run.n, run.idx));
        self.claims.sort_unstable_by_key(|claim| claim.id);
    }

    /// The issues, in the order of their primary key.
    pub(super) fn issues(&self) -> Vec<IssueState<'_>> {
        let mut all = Vec::new();
        for CouponIssuesEvent { coupon, issued_at, pairs } in &self.issues {
            all.extend(pairs.iter().map(|&(user, id)| IssueState {
                id,
                coupon,
                user,
                issued_at: *issued_at,
            }));
        }
        all.sort_unstable_by_key(|issue| issue.id);
        all
    }

    /// The seats of the reservations that ended this batch in that status, in the order of the seats' primary key.
    pub(super) fn seats(&self, status: ReservationEventStatus) -> Vec<SeatRow<'_>> {
        let those = self.reservations.values().filter(|reservation| reservation.status == status);
        let mut seats: Vec<_> = those
            .flat_map(|r| {
                r.seats.iter().map(|&number| SeatRow {
                    schedule: &r.schedule,
                    number,
                    reservation: r.id,
                })
            })
            .collect();
        seats.sort_unstable();
        seats
    }
}

/// The entry's events with their index and position. All or nothing: an entry that is half sound must not be half folded.
pub(super) fn decode_entry(
    expected: u64,
    entry: &redis::OutboxEntry,
) -> Result<Vec<(u16, i64, OutboxEvent)>, ApplyError> {
    let n = entry.n;
    if n != expected {
        return Err(ApplyError::Gap { expected, found: n });
    }
    let events = event::decode(&entry.version, &entry.payload)
        .map_err(|error| ApplyError::Unreadable { n, error })?;
    let places = events.into_iter().enumerate().map(|(index, event)| {
        let idx = u16::try_from(index).ok();
        let position =
            position(n, index).or_else(|| (!matches!(event, OutboxEvent::Entry(_))).then_some(0));
        idx.zip(position)
            .map(|(idx, position)| (idx, position, event))
            .ok_or(ApplyError::Position { n, index })
    });
    places.collect()
}

/// n × 256 + index; `None` where that would run into the next entry's positions or out of a BIGINT.
fn position(n: u64, index: usize) -> Option<i64> {
    let index = u64::try_from(index).ok().filter(|index| *index < MAX_EVENTS_PER_ENTRY)?;
    i64::try_from(n.checked_mul(MAX_EVENTS_PER_ENTRY)?.checked_add(index)?).ok()
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
