//! Reservations and seats: the same in both stores, and every sold seat has one reservation that
//! was paid.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::Deserialize;
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{AuditContext, AuditedSchedule, CheckTally, PAGE_SIZE, push_values};
use crate::ids::{QueueId, ReservationId, ScheduleId, UserId};
use crate::partition::Partition;
use crate::store_error::StoreError;

/// The record in Redis.
#[derive(Deserialize)]
struct AuditedReservation {
    user: UserId,
    schedule: ScheduleId,
    seats: Vec<u32>,
    amount: i64,
    status: String,
    held_until: i64,
}

/// The row in MySQL.
#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    user_id: Uuid,
    schedule_id: String,
    seats: String,
    amount: i64,
    status: String,
}

impl Row {
    /// The seat numbers in order.
    fn numbers(&self) -> Vec<u32> {
        #[derive(Deserialize)]
        struct AuditedSeat {
            number: u32,
        }
        let seats: Vec<AuditedSeat> = serde_json::from_str(&self.seats).unwrap_or_default();
        let mut numbers: Vec<_> = seats.into_iter().map(|seat| seat.number).collect();
        numbers.sort_unstable();
        numbers
    }
}

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
        "SELECT id, user_id, schedule_id, CAST(seats AS CHAR) AS seats, amount, status FROM \
         reservations WHERE id IN (",
    );
    push_values(query.separated(", "), &uuids);
    let rows: Vec<Row> =
        query.push(")").build_query_as().persistent(false).fetch_all(context.mysql).await?;
    let rows: BTreeMap<Uuid, Row> = rows.into_iter().map(|row| (row.id, row)).collect();
    let mut query = QueryBuilder::new(
        "SELECT reservation_id, user_id, amount FROM payments WHERE status = 'confirmed' AND \
         reservation_id IN (",
    );
    push_values(query.separated(", "), &uuids);
    let paid: Vec<(Uuid, Uuid, i64)> =
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
            [(_, user, amount)] if *user == row.user_id && *amount == row.amount => {}
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
fn store_difference(record: &AuditedReservation, row: Option<&Row>) -> Option<String> {
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
    bought: impl Iterator<Item = &'r Row>,
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

/// A sold seat in MySQL: schedule, number, reservation, and the status and seats of that
/// reservation.
type SoldSeats = (String, u32, Uuid, Option<String>, Option<String>);

async fn sold_seats(
    context: &AuditContext<'_>,
    seats: &[(String, u32)],
) -> Result<Vec<SoldSeats>, StoreError> {
    if seats.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = QueryBuilder::new(
        "SELECT s.schedule_id, s.seat_number, s.reservation_id, r.status, CAST(r.seats AS CHAR) \
         FROM reservation_seats s LEFT JOIN reservations r ON r.id = s.reservation_id WHERE \
         (s.schedule_id, s.seat_number) IN (",
    );
    let mut pairs = query.separated(", ");
    for (schedule, number) in seats {
        pairs.push("(").push_bind_unseparated(schedule.clone());
        pairs.push_unseparated(", ").push_bind_unseparated(*number).push_unseparated(")");
    }
    Ok(query.push(")").build_query_as().persistent(false).fetch_all(context.mysql).await?)
}

async fn seat_values(
    context: &AuditContext<'_>,
    partition: Partition,
    schedule: &ScheduleId,
    numbers: &[u32],
) -> Result<Vec<Option<Bytes>>, StoreError> {
    let fields: Vec<Bytes> = numbers.iter().map(|number| number.to_string().into()).collect();
    Ok(context.redis.hash_fields(partition, &format!("s:{schedule}:seats"), &fields).await?)
}

/// Every sold seat belongs to one confirmed reservation that contains it, the same in both stores.
pub(super) async fn check_seats(context: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new(
        "seats",
        "sold to one confirmed reservation that contains the seat, the same in both stores and as \
         many \
         as counted; held by an active reservation",
    );
    let queues: BTreeSet<QueueId> =
        context.schedules.iter().map(|schedule| schedule.queue.clone()).collect();
    let inspect = |chunk: Vec<QueueId>| async move { inspect_sold_counts(context, &chunk).await };
    context.inspect(&mut tally, queues.into_iter().collect(), &inspect).await?;
    for schedule in &context.schedules {
        let inspect =
            |chunk: Vec<u32>| async move { inspect_seats(context, schedule, &chunk).await };
        if !schedule.archived {
            let number = |field: &Bytes| std::str::from_utf8(field).ok()?.parse().ok();
            context
                .walk_hash(
                    &mut tally,
                    (schedule.partition, &format!("s:{}:seats", schedule.id)),
                    number,
                    &inspect,
                )
                .await?;
        }
        let mut after = 0_u32;
        loop {
            let page: Vec<u32> = sqlx::query_scalar(
                "SELECT seat_number FROM reservation_seats WHERE schedule_id = ? AND seat_number > \
                 ? ORDER BY seat_number LIMIT 500",
            )
            .bind(schedule.id.as_str())
            .bind(after)
            .fetch_all(context.mysql)
            .await?;
            let Some(last) = page.last() else { break };
            after = *last;
            tally.count_mysql(page.len());
            context.inspect(&mut tally, page, &inspect).await?;
        }
    }
    Ok(tally)
}

/// The number of sold seats per queue, which Redis counts to know when everything is sold.
async fn inspect_sold_counts(
    context: &AuditContext<'_>,
    queues: &[QueueId],
) -> Result<Vec<(QueueId, String)>, StoreError> {
    let mut faults = Vec::new();
    for queue in queues {
        let (sales, sold) = (format!("q:{queue}:sales"), [Bytes::from_static(b"sold")]);
        let here = context
            .redis
            .hash_fields(context.partition(queue.slot()), &sales, &sold)
            .await?
            .remove(0);
        let here = here.map_or("0".into(), |text| String::from_utf8_lossy(&text).into_owned());
        let rows: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM concerts c JOIN schedules d ON d.concert_id = c.id JOIN \
             reservation_seats s ON s.schedule_id = d.id \
             WHERE c.queue_id = ? AND c.archived_at IS NULL",
        )
        .bind(queue.as_str())
        .fetch_one(context.mysql)
        .await?;
        if here != rows.to_string() {
            faults.push((
                queue.clone(),
                format!("{here} sold seats of {queue} counted in Redis, {rows} in MySQL"),
            ));
        }
    }
    Ok(faults)
}

async fn inspect_seats(
    context: &AuditContext<'_>,
    schedule: &AuditedSchedule,
    numbers: &[u32],
) -> Result<Vec<(u32, String)>, StoreError> {
    let pairs: Vec<_> = numbers.iter().map(|number| (schedule.id.to_string(), *number)).collect();
    let sold = sold_seats(context, &pairs).await?;
    let marks = seat_values(context, schedule.partition, &schedule.id, numbers).await?;
    let now = context.redis.clock(schedule.partition).await?;
    let holders: Vec<_> = marks
        .iter()
        .map(|mark| {
            (
                schedule.partition,
                mark.as_ref()
                    .and_then(|mark| Uuid::from_slice(mark.get(..16)?).ok())
                    .unwrap_or_default(),
            )
        })
        .collect();
    let holders: Vec<Option<Result<AuditedReservation, String>>> =
        context.records("reservations", &holders).await?;
    let mut faults = Vec::new();
    for ((number, mark), holder) in numbers.iter().zip(marks).zip(holders) {
        // In MySQL the seat must belong to a confirmed reservation that contains it.
        let row = sold.iter().find(|row| row.1 == *number);
        let mut wrong = |text: String| {
            faults.push((*number, format!("seat {number} of {}: {text}", schedule.id)))
        };
        if let Some((schedule_id, _, id, status, seats)) = row {
            let owner = Row {
                id: *id,
                user_id: Uuid::nil(),
                schedule_id: schedule_id.clone(),
                seats: seats.clone().unwrap_or_default(),
                amount: 0,
                status: status.clone().unwrap_or_else(|| "missing".to_owned()),
            };
            if owner.status != "confirmed" || !owner.numbers().contains(number) {
                wrong(format!(
                    "sold to {id}, which is {} and contains {:?}",
                    owner.status,
                    owner.numbers()
                ));
            }
        }
        // In Redis it must be sold to the same reservation: 16 bytes of its id, followed by `s`.
        let in_redis =
            mark.as_ref().and_then(|mark| mark.strip_suffix(b"s").filter(|id| id.len() == 16));
        let in_redis = in_redis.and_then(|id| Uuid::from_slice(id).ok());
        if !schedule.archived && in_redis != row.map(|row| row.2) {
            let name = |id: Option<Uuid>| {
                id.map_or_else(|| "no reservation".to_owned(), |id| id.to_string())
            };
            wrong(format!(
                "sold to {} in Redis, to {} in MySQL",
                name(in_redis),
                name(row.map(|row| row.2))
            ));
        }
        // Otherwise it is held: the id is followed by the end of the hold.
        if let (Some(mark), None) = (&mark, in_redis) {
            let until: i64 = mark
                .get(16..)
                .and_then(|text| std::str::from_utf8(text).ok()?.parse().ok())
                .unwrap_or(i64::MAX);
            let holds = match &holder {
                Some(Ok(record)) => {
                    let is_active = ["held", "paying"].contains(&record.status.as_str());
                    is_active && record.seats.contains(number)
                }
                _ => false,
            };
            if until > now && !holds {
                wrong("held by a reservation that is not active".to_owned());
            }
        }
    }
    Ok(faults)
}
