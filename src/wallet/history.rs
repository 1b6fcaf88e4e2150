//! The ledger of a wallet, newest first: the entries of MySQL and those that MySQL does not have
//! yet, each once.

use std::collections::BTreeMap;

use super::{Error, LedgerEntry, WalletService, sql};
use crate::ids::{ClaimId, PaymentId, ReservationId, UserId};
use crate::outbox::event::{EntryKind, LedgerEntryEvent, OutboxEvent};
use crate::outbox::pending_events;

/// A ledger entry with its position in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionedLedgerEntry {
    /// The position in the history of the partition. Increases with time.
    pub position: i64,
    pub kind: EntryKind,
    pub entry: LedgerEntry,
    pub subject: EntrySubject,
}

/// What a ledger entry belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntrySubject {
    pub payment: Option<PaymentId>,
    pub reservation: Option<ReservationId>,
    pub claim: Option<ClaimId>,
    /// The caller's reference of a charge or a use.
    pub reference: Option<String>,
}

impl WalletService {
    /// Up to `limit` entries before a position, newest first, and whether there are more.
    pub async fn entries(
        &self,
        user: UserId,
        before: Option<i64>,
        limit: usize,
    ) -> Result<(Vec<PositionedLedgerEntry>, bool), Error> {
        let partition = self.redis.keys().partition(user.slot());
        let before = before.unwrap_or(i64::MAX);
        // The outbox first: an event that leaves it in the meantime is in MySQL by the second read.
        let (redis, mysql, writer) = (&self.redis, &self.mysql, &self.writer);
        let pending =
            pending_events::load(redis, mysql, writer, partition, user.as_bytes()).await?;
        let unwritten = pending.into_iter().filter_map(|(position, event)| match event {
            OutboxEvent::Entry(entry) if entry.user == user && position < before => {
                Some(to_entry(position, &entry))
            }
            _ => None,
        });
        let written = sql::entries_before(&self.mysql, user, before, limit + 1).await?;
        Ok(merge(unwritten.chain(written), limit))
    }
}

pub(super) fn to_entry(position: i64, event: &LedgerEntryEvent) -> PositionedLedgerEntry {
    let LedgerEntryEvent { id, kind, amount, balance, at, .. } = event;
    let entry =
        LedgerEntry { id: *id, amount: *amount, balance: *balance, at: at.timestamp_millis() };
    let subject = EntrySubject {
        payment: event.payment,
        reservation: event.reservation,
        claim: event.claim,
        reference: event.reference.clone(),
    };
    PositionedLedgerEntry { position, kind: *kind, entry, subject }
}

/// The newest `limit` entries, one for each position, and whether there are more.
fn merge(
    entries: impl Iterator<Item = PositionedLedgerEntry>,
    limit: usize,
) -> (Vec<PositionedLedgerEntry>, bool) {
    let by_position: BTreeMap<i64, PositionedLedgerEntry> =
        entries.map(|entry| (entry.position, entry)).collect();
    let more = by_position.len() > limit;
    (by_position.into_values().rev().take(limit).collect(), more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::EntryId;
    use crate::money::Money;
    use crate::partition::HashSlot;

    #[test]
    fn entry_in_both_stores_is_listed_once() {
        let entry = |position| PositionedLedgerEntry {
            position,
            kind: EntryKind::Charge,
            subject: EntrySubject::default(),
            entry: LedgerEntry {
                id: EntryId::new(HashSlot::from_low_bits(1)),
                amount: Money::ZERO,
                balance: Money::ZERO,
                at: 0,
            },
        };
        let entries = [entry(512), entry(768), entry(256), entry(512)];
        let positions = |limit| {
            let (merged, more) = merge(entries.iter().cloned(), limit);
            (merged.into_iter().map(|entry| entry.position).collect::<Vec<_>>(), more)
        };
        assert_eq!(positions(3), (vec![768, 512, 256], false));
        assert_eq!(positions(2), (vec![768, 512], true));
    }
}
