//! Reservations: the same in both stores; a confirmed one has its seats in both and was paid once.

use std::collections::BTreeMap;

use bytes::Bytes;
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::seat_rows::{AuditedReservation, ReservationRow, seat_values, sold_seats};
use super::{AuditContext, CheckTally, PAGE_SIZE, push_values};
use crate::ids::{ReservationId, ScheduleId};
use crate::store_error::StoreError;

/// Every reservation is the same in both stores. A confirmed one has its seats in both and was paid
/// once.
pub(super) async fn check_reservations(
    context: &AuditContext<'_>,
) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new(
        "reservations",
        "the same in both stores; confirmed means paid once and every seat sold to it",
    );
    let inspect =
        |chunk: Vec<ReservationId>| async move { inspect_reservations(context, &chunk).await };
    for partition in context.partitions() {
        let id = |field: &Bytes| {
            ReservationId::from_slice(field).filter(|id| context.partition(id.slot()) == partition)
        };
        context.walk_hash(&mut tally, (partition, "reservations"), id, &inspect).await?;
    }
    let select = "SELECT id FROM reservations WHERE id > ? ORDER BY id LIMIT 500";
    context.walk_table(&mut tally, select, &inspect).await?;
    Ok(tally)
}

async fn inspect_reservations(
    context: &AuditContext<'_>,
    ids: &[ReservationId],
) -> Result<Vec<(ReservationId, String)>, StoreError> {
    let uuids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let partition = |id: &ReservationId| context.redis.keys().partition(id.slot());
    let ids_by_partition: Vec<_> = ids.iter().map(|id| (partition(id), id.uuid())).collect();
    let records: Vec<Option<Result<AuditedReservation, String>>> =
        context.records("reservations", &ids_by_partition).await?;
    let mut query = QueryBuilder::new(
        "SELECT id, user_id, schedule_id, CAST(seats AS CHAR) AS seats, amount, status, \
         CAST(cancellations AS CHAR) AS cancellations FROM reservations WHERE id IN (",
    );
    push_values(query.separated(", "), &uuids);
    let rows: Vec<ReservationRow> =
        query.push(")").build_query_as().persistent(false).fetch_all(context.mysql).await?;
    let rows: BTreeMap<Uuid, ReservationRow> = rows.into_iter().map(|row| (row.id, row)).collect();
    let mut query = QueryBuilder::new(
        "SELECT reservation_id, user_id, amount, refunded FROM payments WHERE status = 'confirmed' AND \
         reservation_id IN (",
    );
    push_values(query.separated(", "), &uuids);
    let paid: Vec<(Uuid, Uuid, i64, i64)> =
        query.push(")").build_query_as().persistent(false).fetch_all(context.mysql).await?;
    let owned = owned_seats(context, rows.values().filter(|row| row.status == "confirmed")).await?;

    let now = context.clock(ids.first().map(|id| id.slot())).await?;
    let mut faults = Vec::new();
    for (id, record) in ids.iter().zip(records) {
        let row = rows.get(&id.uuid());
        let mut wrong = |text: String| faults.push((*id, format!("reservation {id}: {text}")));
        let record = match record.transpose() {
            Ok(record) => record,
            Err(error) => {
                wrong(format!("can't be decoded: {error}"));
                continue;
            }
        };
        // 1. The record in Redis and the row in MySQL agree.
        if let Some(record) = &record
            && let Some(text) = store_difference(record, row)
        {
            wrong(text);
        }
        // 2. An active reservation holds each of its seats in Redis.
        if let Some(record) = &record
            && (record.status == "paying" || record.status == "held" && record.held_until > now)
        {
            let lacks =
                seat_values(context, partition(id), &record.schedule, &record.seats).await?;
            for (number, mark) in record.seats.iter().zip(lacks) {
                if mark.is_none_or(|mark| !mark.starts_with(id.as_bytes())) {
                    wrong(format!("is {}, but seat {number} is not held by it", record.status));
                }
            }
        }
        // 3. Exactly the confirmed reservations were paid, once and by their user.
        let Some(row) = row else { continue };
        let payments: Vec<_> =
            paid.iter().filter(|(reservation, ..)| *reservation == id.uuid()).collect();
        if row.status != "confirmed" {
            if !payments.is_empty() {
                wrong(format!(
                    "is {}, but {} payments for it are confirmed",
                    row.status,
                    payments.len()
                ));
            }
            continue;
        }
        match payments.as_slice() {
            [(_, user, amount, refunded)] if *user == row.user_id && *amount == row.amount => {
                if *refunded != row.refunded() {
                    wrong(format!(
                        "its cancelled seats gave back {}, its payment {refunded}",
                        row.refunded()
                    ));
                }
            }
            [_] => wrong("its payment has another user or amount".to_owned()),
            other => wrong(format!("was paid {} times", other.len())),
        }
        // 4. Its seats are sold to it in MySQL.
        let mut owns: Vec<u32> =
            owned.iter().filter(|(_, owner)| *owner == id.uuid()).map(|((_, n), _)| *n).collect();
        owns.sort_unstable();
        if owns != row.numbers() {
            wrong(format!("has the seats {:?}, but {owns:?} are sold to it", row.numbers()));
        }
        // 5. Its seats are sold to it in Redis, unless the concert is archived.
        // A cancellation may have freed the seats in Redis already. Then the record differs in the
        // next inspection.
        let archived = context
            .schedules
            .iter()
            .any(|schedule| schedule.archived && schedule.id.as_str() == row.schedule_id);
        if let (false, Ok(schedule)) = (archived, row.schedule_id.parse::<ScheduleId>()) {
            let numbers = row.numbers();
            for (number, mark) in
                numbers.iter().zip(seat_values(context, partition(id), &schedule, &numbers).await?)
            {
                if mark.as_deref() != Some(&[id.as_bytes().as_slice(), b"s"].concat()) {
                    wrong(format!("seat {number} is not sold to it in Redis"));
                }
            }
        }
    }
    Ok(faults)
}

/// How the record and the row differ.
fn store_difference(record: &AuditedReservation, row: Option<&ReservationRow>) -> Option<String> {
    let expected = match record.status.as_str() {
        "held" | "paying" => None,
        "cancelling" => Some("confirmed"),
        other => Some(other),
    };
    let (expected, row) = match (expected, row) {
        (None, None) => return None,
        (None, Some(row)) => {
            return Some(format!("is {} in Redis and {} in MySQL", record.status, row.status));
        }
        (Some(expected), None) => return Some(format!("is {expected} in Redis and not in MySQL")),
        (Some(expected), Some(row)) => (expected, row),
    };
    let mut numbers = record.seats.clone();
    numbers.sort_unstable();
    let same = expected == row.status
        && record.user.uuid() == row.user_id
        && record.schedule.as_str() == row.schedule_id
        && record.amount == row.amount
        && numbers == row.numbers();
    (!same).then(|| {
        format!(
            "differs: {expected}, {} in Redis; {}, {} in MySQL",
            record.amount, row.status, row.amount
        )
    })
}

/// The owners of the seats of some reservations, by MySQL.
async fn owned_seats<'r>(
    context: &AuditContext<'_>,
    bought: impl Iterator<Item = &'r ReservationRow>,
) -> Result<Vec<((String, u32), Uuid)>, StoreError> {
    let seats: Vec<(String, u32)> = bought
        .flat_map(|row| row.numbers().into_iter().map(|number| (row.schedule_id.clone(), number)))
        .collect();
    let mut owned = Vec::new();
    for chunk in seats.chunks(PAGE_SIZE) {
        owned.extend(
            sold_seats(context, chunk).await?.into_iter().map(|seat| ((seat.0, seat.1), seat.2)),
        );
    }
    Ok(owned)
}
