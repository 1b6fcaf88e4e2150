//! Tests of merging entries into a batch.

use chrono::DateTime;

use super::*;
use crate::outbox::event::{ReservationEventStatus, SeatCancellation};
use crate::outbox::lua_packer::LuaPacker;
use crate::partition::PartitionCount;

fn checkpoint(n: u64) -> Checkpoint {
    let partition = PartitionCount::new(64).and_then(|partitions| partitions.nth(3)).unwrap();
    Checkpoint { partition, n, epoch: None }
}

/// An outbox entry with `events` promotions, packed as `cmsgpack` does.
fn entry(n: u64, events: u8) -> redis::OutboxEntry {
    let mut packed = LuaPacker::default().array(events);
    for _ in 0..events {
        packed = packed.array(2).str("promotion").map(7).str("queue").str("q");
        packed = packed.str("limit").int(9).str("interval").int(9);
        packed = packed.str("from").int(1).str("to").int(2).str("count").int(2).str("at").int(7);
    }
    redis::OutboxEntry { n, version: "v1".into(), payload: packed.0.into() }
}

fn wallet_entry(index: u8, balance: i64) -> OutboxEvent {
    OutboxEvent::Entry(LedgerEntryEvent {
        id: uuid::Uuid::from_bytes([255 - index; 16]).into(),
        user: uuid::Uuid::from_bytes([7; 16]).into(),
        kind: event::EntryKind::Charge,
        amount: Money::new(1).unwrap(),
        balance: Money::new(balance).unwrap(),
        at: DateTime::from_timestamp_millis(i64::from(index)).unwrap(),
        key: None,
        fingerprint: None,
        payment: None,
        attempt: None,
        reservation: None,
        claim: None,
        cancelled_seats: None,
        ends_payment: None,
        reference: None,
    })
}

fn reservation(id: u8, seats: &[u32], status: ReservationEventStatus) -> OutboxEvent {
    OutboxEvent::Reservation(ReservationEvent {
        id: uuid::Uuid::from_bytes([id; 16]).into(),
        user: uuid::Uuid::from_bytes([7; 16]).into(),
        queue: "q".parse().unwrap(),
        concert: "c".parse().unwrap(),
        schedule: "s".parse().unwrap(),
        seats: seats.to_vec(),
        detail: "[]".into(),
        amount: Money::ZERO,
        status,
        held_until: DateTime::UNIX_EPOCH,
        created_at: DateTime::UNIX_EPOCH,
        at: DateTime::UNIX_EPOCH,
        score: None,
        title: None,
        starts_at: None,
        payment: None,
        paid: None,
        discount: None,
        cancellations: None,
    })
}

fn folded(events: Vec<OutboxEvent>) -> FlushBatch {
    let events = events
        .into_iter()
        .zip(0_u8..)
        .map(|(event, idx)| (idx.into(), idx.into(), event))
        .collect();
    FlushBatch::of(checkpoint(0).partition, 1, events)
}

#[test]
fn entries_are_taken_in_order_and_up_to_the_limit() {
    let entries = [entry(6, 2), entry(7, 2), entry(8, 2)];
    let mut batch = FlushBatch::default();
    assert!(matches!(batch.take(&checkpoint(5), &entries, 100), (8, None)));
    assert_eq!((batch.entries, batch.events, batch.promotions.len()), (3, 6, 6));
    assert_eq!((batch.promotions[3].n, batch.promotions[3].idx), (7, 1));
    assert!(matches!(FlushBatch::default().take(&checkpoint(5), &entries, 3), (7, None)));
    // At least one entry, or a large one would never be written.
    assert!(matches!(FlushBatch::default().take(&checkpoint(5), &entries, 0), (6, None)));
    assert!(matches!(FlushBatch::default().take(&checkpoint(8), &[], 1), (8, None)));
}

#[test]
fn entries_before_a_gap_are_taken() {
    let mut batch = FlushBatch::default();
    let (n, fault) = batch.take(&checkpoint(5), &[entry(6, 1), entry(8, 1)], 100);
    assert!(matches!((n, fault), (6, Some(ApplyError::Gap { expected: 7, found: 8 }))));
    assert_eq!(batch.entries, 1);
    // A repeated entry is an error like a missing one.
    for first in [1, 5, 7] {
        let (n, fault) = FlushBatch::default().take(&checkpoint(5), &[entry(first, 1)], 100);
        assert!(matches!((n, fault), (5, Some(ApplyError::Gap { expected: 6, .. }))));
    }
}

#[test]
fn entries_before_an_unreadable_entry_are_taken() {
    let bad = redis::OutboxEntry { payload: vec![0xc1].into(), ..entry(7, 1) };
    let newer = redis::OutboxEntry { version: "v9".into(), ..entry(7, 1) };
    for seventh in [bad, newer] {
        let (n, fault) = FlushBatch::default().take(&checkpoint(5), &[entry(6, 1), seventh], 100);
        assert!(matches!((n, fault), (6, Some(ApplyError::Unreadable { n: 7, .. }))));
    }
}

#[test]
fn only_the_last_balance_and_every_ledger_entry_is_written() {
    let batch = folded(vec![wallet_entry(0, 10), wallet_entry(1, 5), wallet_entry(2, 7)]);
    let wallets: Vec<_> = batch.wallets.values().map(|wallet| wallet.balance.get()).collect();
    assert_eq!(wallets, [7]);
    // Sorted by id; each keeps its position.
    assert_eq!(batch.ledger_rows.iter().map(|row| row.position).collect::<Vec<_>>(), [2, 1, 0]);
    assert_eq!(batch.newest, DateTime::from_timestamp_millis(2));
}

/// A reservation with these seats left after each of the others was cancelled.
fn cancelled(id: u8, seats: &[u32], gone: &[u32]) -> OutboxEvent {
    let status = if seats.is_empty() {
        ReservationEventStatus::Cancelled
    } else {
        ReservationEventStatus::Confirmed
    };
    let cancellation = |&number: &u32| SeatCancellation {
        key: "k".into(),
        fingerprint: String::new(),
        seats: vec![number],
        refund: Money::ZERO,
        at: 0,
    };
    let OutboxEvent::Reservation(mut event) = reservation(id, seats, status) else {
        unreachable!()
    };
    event.cancellations = Some(gone.iter().map(cancellation).collect());
    OutboxEvent::Reservation(event)
}

#[test]
fn payments_add_to_the_paid_total_and_refunds_subtract() {
    let of_attempt = |index, kind, amount, attempt| {
        let OutboxEvent::Entry(entry) = wallet_entry(index, 9) else { unreachable!() };
        let amount = Money::new(amount).unwrap();
        OutboxEvent::Entry(LedgerEntryEvent { kind, amount, attempt, ..entry })
    };
    let of_kind = |index, kind, amount| of_attempt(index, kind, amount, None);
    let batch = folded(vec![
        of_kind(0, EntryKind::Charge, 100),
        of_kind(1, EntryKind::Payment, 30),
        of_kind(2, EntryKind::Payment, 20),
        of_kind(3, EntryKind::Use, 7),
        of_attempt(4, EntryKind::Refund, 30, Some(1)),
        // Some seats were cancelled. The payment still counts.
        of_kind(5, EntryKind::Refund, 5),
    ]);
    let totals = |batch: FlushBatch| {
        let wallets = batch.wallets.into_values();
        wallets.map(|wallet| (wallet.paid_total, wallet.paid_count)).collect::<Vec<_>>()
    };
    assert_eq!(totals(batch), [(15, 1)]);
    let OutboxEvent::Entry(last) = of_kind(6, EntryKind::Refund, 15) else { unreachable!() };
    let last = OutboxEvent::Entry(LedgerEntryEvent { ends_payment: Some(true), ..last });
    assert_eq!(totals(folded(vec![of_kind(2, EntryKind::Payment, 20), last])), [(5, 0)]);
}

#[test]
fn seat_that_is_freed_and_sold_again_has_one_owner() {
    use ReservationEventStatus::{Confirmed, Released};
    let batch = folded(vec![
        reservation(1, &[12, 3], Confirmed),
        cancelled(1, &[], &[12, 3]),
        reservation(2, &[12], Confirmed),
        reservation(3, &[9], Released),
    ]);
    let numbers = |rows: Vec<SeatRow>| rows.iter().map(|seat| seat.number).collect::<Vec<_>>();
    assert_eq!(
        (numbers(batch.sold_seats()), numbers(batch.freed_seats())),
        (vec![12], vec![3, 12])
    );
    assert_eq!(batch.reservations.len(), 3);
}

#[test]
fn seats_are_sold_once_and_cancelled_one_by_one() {
    use ReservationEventStatus::Confirmed;
    let numbers = |rows: Vec<SeatRow>| rows.iter().map(|seat| seat.number).collect::<Vec<_>>();
    // In the batch of the sale, the rest is sold.
    let sale = folded(vec![reservation(1, &[1, 2, 3], Confirmed), cancelled(1, &[1, 3], &[2])]);
    assert_eq!((numbers(sale.sold_seats()), numbers(sale.freed_seats())), (vec![1, 3], vec![2]));
    // In a later batch, nothing is sold again.
    let later = folded(vec![cancelled(1, &[3], &[2, 1])]);
    assert_eq!((numbers(later.sold_seats()), numbers(later.freed_seats())), (vec![], vec![1, 2]));
}

#[test]
fn positions_of_consecutive_entries_do_not_overlap() {
    assert_eq!(position(1, 0), Some(256));
    assert_eq!(position(1, 255), Some(511));
    assert_eq!(position(1, 256), None);
    assert_eq!(position(u64::MAX / 256, 0), None);
}
