//! The ledger of a wallet, newest first: MySQL's lines and those that it does not have yet, each once.

use std::collections::BTreeMap;

use super::{Error, LedgerEntry, WalletService, sql};
use crate::ids::UserId;
use crate::outbox::event::{EntryKind, LedgerEntryEvent, OutboxEvent};
use crate::outbox::pending_events;

/// A line with its place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PositionedLedgerEntry {
    /// Its position in its partition's history; grows with time.
    pub position: i64,
    /// Which way the amount went.
    pub kind: EntryKind,
    /// The line.
    pub entry: LedgerEntry,
}

impl WalletService {
    /// Up to `limit` lines before a position, newest first, and whether there are more.
    pub async fn entries(
        &self,
        user: UserId,
        before: Option<i64>,
        limit: usize,
    ) -> Result<(Vec<PositionedLedgerEntry>, bool), Error> {
        let partition = self.redis.keys().partition(user.slot());
        let before = before.unwrap_or(i64::MAX);
        // The tail first: what leaves it afterwards is in MySQL by then.
        let tail = pending_events::load(&self.redis, &self.mysql, &self.nudge, partition).await?;
        let unwritten = tail.into_iter().filter_map(|(position, event)| match event {
            OutboxEvent::Entry(entry) if entry.user == user && position < before => {
                Some(line(position, &entry))
            }
            _ => None,
        });
        let written = sql::before(&self.mysql, user, before, limit + 1).await?;
        Ok(merge(unwritten.chain(written), limit))
    }
}

fn line(position: i64, entry: &LedgerEntryEvent) -> PositionedLedgerEntry {
    let LedgerEntryEvent { id, kind, amount, balance, at, .. } = entry;
    let entry =
        LedgerEntry { id: *id, amount: *amount, balance: *balance, at: at.timestamp_millis() };
    PositionedLedgerEntry { position, kind: *kind, entry }
}

/// One line for each position, the newest `limit`, and whether there are more.
fn merge(
    lines: impl Iterator<Item = PositionedLedgerEntry>,
    limit: usize,
) -> (Vec<PositionedLedgerEntry>, bool) {
    let by_position: BTreeMap<i64, PositionedLedgerEntry> =
        lines.map(|line| (line.position, line)).collect();
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
    fn a_line_that_is_in_both_stores_is_there_once() {
        let line = |position| PositionedLedgerEntry {
            position,
            kind: EntryKind::Charge,
            entry: LedgerEntry {
                id: EntryId::new(HashSlot::from_low_bits(1)),
                amount: Money::ZERO,
                balance: Money::ZERO,
                at: 0,
            },
        };
        let lines = [line(512), line(768), line(256), line(512)];
        let positions = |limit| {
            let (lines, more) = merge(lines.into_iter(), limit);
            (lines.into_iter().map(|line| line.position).collect::<Vec<_>>(), more)
        };
        assert_eq!(positions(3), (vec![768, 512, 256], false));
        assert_eq!(positions(2), (vec![768, 512], true));
    }
}
