//! Merges many outbox entries into the rows that MySQL must change. No IO, so it can be tested
//! without a server.
//!
//! Of a reservation, a payment, a wallet balance, a coupon redemption and a user's facts only the
//! last state is written. Ledger entries, promotions, coupon issues and reward claims are written
//! each. An entity belongs to one partition, and the entries of a partition are merged in order, so
//! "last" is well defined for any set of partitions. Everything is sorted by primary key:
//! transactions that touch the same rows then lock them in the same order.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::event::{
    self, CouponIssuesEvent, CouponRedemptionEvent, DrawEvent, EntryKind, EventDecodeError,
    LedgerEntryEvent, OutboxEvent, PaymentEvent, PendingPaymentEvent, PromotionEvent,
    ReservationEvent, UserFactsEvent, UserRecordedEvent,
};
use super::event_log::LoggedEntry;
use super::reward_claims::RewardClaimChanges;
use crate::coupon_terms::CouponTerms;
use crate::ids::{CouponId, IssueId, PaymentId, ReservationId, ScheduleId, UserId};
use crate::money::Money;
use crate::mysql;
use crate::mysql::checkpoint::Checkpoint;
use crate::partition::Partition;
use crate::redis;

/// The most events that one entry may have, because a position is `n` × 256 + index. A script takes
/// at most 256 requests.
const MAX_EVENTS_PER_ENTRY: u64 = 256;

/// Why a partition can't continue.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    /// Entries are missing, so the following ones must not be applied.
    #[error("the outbox has a gap: expected entry {expected}, found {found}")]
    Gap { expected: u64, found: u64 },
    /// The entry does not have a schema that this release knows.
    #[error("outbox entry {n}: {error}")]
    Unreadable { n: u64, error: EventDecodeError },
    /// A ledger entry would get a position of the next outbox entry.
    #[error("outbox entry {n}: event {index} exceeds the 256 ledger positions of an entry")]
    Position { n: u64, index: usize },
    /// A statement fails every time: a seat with two owners, a value out of range.
    #[error("MySQL rejects the entries after the checkpoint: {0}")]
    Refused(mysql::Error),
    /// The stream in Redis does not have the form of an outbox.
    #[error("the outbox can't be read: {0}")]
    Outbox(redis::Error),
}

/// The balance of a wallet after the last event, and what all events add to its paid total.
pub(super) struct WalletState {
    pub(super) balance: Money,
    pub(super) at: DateTime<Utc>,
    pub(super) paid_total: i64,
    pub(super) paid_count: i64,
}

/// A ledger entry and its position in the partition's history.
pub(super) struct LedgerRow {
    pub(super) position: i64,
    pub(super) entry: LedgerEntryEvent,
}

/// A promotion and where it is in the outbox.
pub(super) struct PromotionRow {
    pub(super) partition: Partition,
    pub(super) n: u64,
    pub(super) idx: u16,
    pub(super) promotion: PromotionEvent,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct SeatRow<'a> {
    pub(super) schedule: &'a ScheduleId,
    pub(super) number: u32,
    pub(super) reservation: ReservationId,
}

/// One coupon issue.
pub(super) struct IssueState<'a> {
    pub(super) id: IssueId,
    pub(super) coupon: &'a CouponId,
    pub(super) user: UserId,
    pub(super) issued_at: DateTime<Utc>,
    pub(super) terms: CouponTerms,
}

/// The rows of one transaction.
#[derive(Default)]
pub(super) struct FlushBatch {
    pub(super) reservations: BTreeMap<ReservationId, ReservationEvent>,
    /// The reservations that were sold in this batch.
    sales: BTreeSet<ReservationId>,
    pub(super) payments: BTreeMap<PaymentId, PaymentEvent>,
    /// The external payments that wait after this batch, and those that have ended in it.
    pub(super) pending: BTreeMap<PaymentId, PendingPaymentEvent>,
    pub(super) ended_waits: BTreeSet<PaymentId>,
    pub(super) wallets: BTreeMap<UserId, WalletState>,
    pub(super) ledger_rows: Vec<LedgerRow>,
    pub(super) promotions: Vec<PromotionRow>,
    pub(super) draws: Vec<DrawEvent>,
    pub(super) issues: Vec<CouponIssuesEvent>,
    pub(super) redemptions: BTreeMap<IssueId, CouponRedemptionEvent>,
    pub(super) claims: RewardClaimChanges,
    pub(super) facts: BTreeMap<UserId, UserFactsEvent>,
    pub(super) users: BTreeMap<UserId, UserRecordedEvent>,
    /// The entries with events that are delivered to other systems.
    pub(super) log: Vec<LoggedEntry>,
    /// Outbox entries merged so far.
    pub(super) entries: usize,
    pub(super) events: usize,
    /// The time of the newest event.
    pub(super) newest: Option<DateTime<Utc>>,
}

impl ApplyError {
    /// Whether the entry itself can never be applied. An unknown schema version is not that: a
    /// newer release can read it.
    pub(super) fn is_permanent(&self) -> bool {
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

    /// Merges the entries that follow a checkpoint until there is a gap, an entry that can't be
    /// decoded, or `share` events (but always at least one entry). Returns the new checkpoint, and
    /// the error that stopped it, if any. The entries before the error are valid and are written.
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
                Ok(events) => {
                    self.log.extend(LoggedEntry::of(from.partition, entry, &events));
                    self.fold(from.partition, entry.n, events);
                }
                Err(error) => return (through, Some(error)),
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
                    let (balance, at) = (entry.balance, entry.at);
                    let new = WalletState { balance, at, paid_total: 0, paid_count: 0 };
                    let wallet = self.wallets.entry(entry.user).or_insert(new);
                    (wallet.balance, wallet.at) = (balance, at);
                    // A cancellation has no attempt. The payment counts until its last seats are
                    // refunded.
                    let ends = entry.attempt.is_some() || entry.ends_payment == Some(true);
                    let (sign, count) = match entry.kind {
                        EntryKind::Payment => (1, 1),
                        EntryKind::Refund => (-1, -i64::from(ends)),
                        EntryKind::Charge
                        | EntryKind::Use
                        | EntryKind::Reward
                        | EntryKind::RewardReversal => (0, 0),
                    };
                    wallet.paid_total += sign * entry.amount.get();
                    wallet.paid_count += count;
                    self.ledger_rows.push(LedgerRow { position, entry });
                }
                OutboxEvent::Reservation(reservation) => {
                    if reservation.is_sale() {
                        self.sales.insert(reservation.id);
                    }
                    self.reservations.insert(reservation.id, reservation);
                }
                OutboxEvent::Payment(payment) => {
                    if payment.external.is_some() {
                        self.pending.remove(&payment.id);
                        self.ended_waits.insert(payment.id);
                    }
                    self.payments.insert(payment.id, payment);
                }
                OutboxEvent::Pending(pending) => {
                    self.pending.insert(pending.id, pending);
                }
                OutboxEvent::Promotion(promotion) => {
                    self.promotions.push(PromotionRow { partition, n, idx, promotion })
                }
                OutboxEvent::Draw(draw) => self.draws.push(draw),
                OutboxEvent::Issues(issues) => self.issues.push(issues),
                OutboxEvent::Use(issue_use) => {
                    self.redemptions.insert(issue_use.id, issue_use);
                }
                OutboxEvent::Claim(claim) => self.claims.add(claim),
                OutboxEvent::Facts(facts) => {
                    self.facts.insert(facts.user, facts);
                }
                OutboxEvent::User(user) => {
                    self.users.insert(user.user, user);
                }
            }
        }
    }

    /// Sorts the rows that are not in a map by their primary keys.
    pub(super) fn sort(&mut self) {
        self.ledger_rows.sort_unstable_by_key(|row| row.entry.id);
        self.promotions.sort_unstable_by_key(|run| (run.partition, run.n, run.idx));
        self.draws.sort_unstable_by(|a, b| (&a.queue, a.draw).cmp(&(&b.queue, b.draw)));
        self.claims.sort();
    }

    /// The coupon issues, ordered by primary key.
    pub(super) fn issues(&self) -> Vec<IssueState<'_>> {
        let mut all = Vec::new();
        for CouponIssuesEvent { coupon, issued_at, terms, pairs } in &self.issues {
            all.extend(pairs.iter().map(|&(user, id)| IssueState {
                id,
                coupon,
                user,
                issued_at: *issued_at,
                terms: *terms,
            }));
        }
        all.sort_unstable_by_key(|issue| issue.id);
        all
    }

    /// The seats that were sold in this batch and not cancelled in it, ordered by primary key.
    pub(super) fn sold_seats(&self) -> Vec<SeatRow<'_>> {
        let sold = self.sales.iter().filter_map(|id| self.reservations.get(id));
        seat_rows(sold.flat_map(|sold| sold.seats.iter().map(move |number| (sold, *number))))
    }

    /// The seats that are cancelled, ordered by primary key. An earlier batch may have freed some
    /// of them.
    pub(super) fn freed_seats(&self) -> Vec<SeatRow<'_>> {
        seat_rows(self.reservations.values().flat_map(|reservation| {
            let cancelled = reservation.cancellations.iter().flatten();
            cancelled.flat_map(|it| &it.seats).map(move |number| (reservation, *number))
        }))
    }
}

fn seat_rows<'a>(seats: impl Iterator<Item = (&'a ReservationEvent, u32)>) -> Vec<SeatRow<'a>> {
    let row = |(reservation, number): (&'a ReservationEvent, u32)| SeatRow {
        schedule: &reservation.schedule,
        number,
        reservation: reservation.id,
    };
    let mut rows: Vec<_> = seats.map(row).collect();
    rows.sort_unstable();
    rows
}

/// Decodes an entry into its events with index and position. All or nothing: an entry must not be
/// applied in part.
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
    let decoded = events.into_iter().enumerate().map(|(index, event)| {
        let idx = u16::try_from(index).ok();
        let position =
            position(n, index).or_else(|| (!matches!(event, OutboxEvent::Entry(_))).then_some(0));
        idx.zip(position)
            .map(|(idx, position)| (idx, position, event))
            .ok_or(ApplyError::Position { n, index })
    });
    decoded.collect()
}

/// `n` × 256 + index; `None` where that would reach the positions of the next entry or overflow a
/// BIGINT.
fn position(n: u64, index: usize) -> Option<i64> {
    let index = u64::try_from(index).ok().filter(|index| *index < MAX_EVENTS_PER_ENTRY)?;
    i64::try_from(n.checked_mul(MAX_EVENTS_PER_ENTRY)?.checked_add(index)?).ok()
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
