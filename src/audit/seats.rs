//! Reservations and seats: what Redis tells is what MySQL has, and every sold seat has one owner who paid.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::Deserialize;
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::{AuditContext, AuditedSchedule, CheckTally, PAGE_SIZE, push_values};
use crate::ids::{QueueId, ReservationId, ScheduleId, UserId};
use crate::partition::Partition;
use crate::store_error::StoreError;

/// As the scripts pack it.
#[derive(Deserialize)]
struct AuditedReservation {
    user: UserId,
    schedule: ScheduleId,
    seats: Vec<u32>,
    amount: i64,
    status: String,
    held_until: i64,
}

/// As MySQL has it.
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
    /// The numbers of its seats, in order.
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

/// Every reservation: the same in both stores; a confirmed one owns its seats in both and was paid once.
pub(super) async fn check_reservations(scene: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new(
        "reservations",
        "the same in both stores; confirmed means paid once and in possession of every seat",
    );
    let inspect =
        |some: Vec<ReservationId>| async move { inspect_reservations(scene, &some).await };
    for partition in scene.partitions() {
        let id = |field: &Bytes| {
            ReservationId::from_slice(field).filter(|id| scene.partition(id.slot()) == partition)
        };
        scene.walk_hash(&mut tally, (partition, "reservations"), id, &inspect).await?;
    }
    let select = "SELECT id FROM reservations WHERE id > ? ORDER BY id LIMIT 500";
    scene.walk_table(&mut tally, select, &inspect).await?;
    Ok(tally)
}

async fn inspect_reservations(
    scene: &AuditContext<'_>,
    ids: &[ReservationId],
) -> Result<Vec<(ReservationId, String)>, StoreError> {
    let uuids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let partition = |id: &ReservationId| scene.redis.keys().partition(id.slot());
    let places: Vec<_> = ids.iter().map(|id| (partition(id), id.uuid())).collect();
    let records: Vec<Option<Result<AuditedReservation, String>>> =
        scene.records("reservations", &places).await?;
    let mut query = QueryBuilder::new(
        "SELECT id, user_id, schedule_id, CAST(seats AS CHAR) AS seats, amount, status FROM reservations WHERE id IN (",
    );
    push_values(query.separated(", "), &uuids);
    let rows: Vec<Row> =
        query.push(")").build_query_as().persistent(false).fetch_all(scene.mysql).await?;
    let rows: BTreeMap<Uuid, Row> = rows.into_iter().map(|row| (row.id, row)).collect();
    let mut query = QueryBuilder::new(
        "SELECT reservation_id, user_id, amount FROM payments WHERE status = 'confirmed' AND reservation_id IN (",
    );
    push_values(query.separated(", "), &uuids);
    let paid: Vec<(Uuid, Uuid, i64)> =
        query.push(")").build_query_as().persistent(false).fetch_all(scene.mysql).await?;
    let owned = owned_seats(scene, rows.values().filter(|row| row.status == "confirmed")).await?;

    let now = scene.clock(ids.first().map(|id| id.slot())).await?;
    let mut faults = Vec::new();
    for (id, record) in ids.iter().zip(records) {
        let row = rows.get(&id.uuid());
        let mut wrong = |text: String| faults.push((*id, format!("reservation {id}: {text}")));
        let record = match record.transpose() {
            Ok(record) => record,
            Err(error) => {
                wrong(format!("can't be read: {error}"));
                continue;
            }
        };
        if let Some(record) = &record
            && let Some(text) = store_difference(record, row)
        {
            wrong(text);
        }
        if let Some(record) = &record
            && (record.status == "paying" || record.status == "held" && record.held_until > now)
        {
            let lacks = seat_values(scene, partition(id), &record.schedule, &record.seats).await?;
            for (number, mark) in record.seats.iter().zip(lacks) {
                if mark.is_none_or(|mark| !mark.starts_with(id.as_bytes())) {
                    wrong(format!("is {}, but seat {number} is not marked with it", record.status));
                }
            }
        }
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
            [_] => wrong("its payment is of another user or amount".to_owned()),
            other => wrong(format!("was paid {} times", other.len())),
        }
        let mut owns: Vec<u32> =
            owned.iter().filter(|(_, owner)| *owner == id.uuid()).map(|((_, n), _)| *n).collect();
        owns.sort_unstable();
        if owns != row.numbers() {
            wrong(format!("bought the seats {:?} and owns {owns:?}", row.numbers()));
        }
        // What is being cancelled may have let go of its seats while MySQL does not know it yet; then it is another record a moment later.
        let archived = scene
            .schedules
            .iter()
            .any(|hall| hall.archived && hall.schedule.as_str() == row.schedule_id);
        if let (false, Ok(schedule)) = (archived, row.schedule_id.parse::<ScheduleId>()) {
            let numbers = row.numbers();
            for (number, mark) in
                numbers.iter().zip(seat_values(scene, partition(id), &schedule, &numbers).await?)
            {
                if mark.as_deref() != Some(&[id.as_bytes().as_slice(), b"s"].concat()) {
                    wrong(format!("seat {number} is not sold to it in Redis"));
                }
            }
        }
    }
    Ok(faults)
}

/// What the two stores tell differently.
fn store_difference(record: &AuditedReservation, row: Option<&Row>) -> Option<String> {
    let told = match record.status.as_str() {
        "held" | "paying" => None,
        "cancelling" => Some("confirmed"),
        other => Some(other),
    };
    let (told, row) = match (told, row) {
        (None, None) => return None,
        (None, Some(row)) => {
            return Some(format!("is {} in Redis and {} in MySQL", record.status, row.status));
        }
        (Some(told), None) => return Some(format!("is {told} in Redis and not in MySQL")),
        (Some(told), Some(row)) => (told, row),
    };
    let mut numbers = record.seats.clone();
    numbers.sort_unstable();
    let same = told == row.status
        && record.user.uuid() == row.user_id
        && record.schedule.as_str() == row.schedule_id
        && record.amount == row.amount
        && numbers == row.numbers();
    (!same).then(|| {
        format!(
            "is told differently: {told}, {} in Redis; {}, {} in MySQL",
            record.amount, row.status, row.amount
        )
    })
}

/// Who owns the seats that some reservations have bought, by MySQL.
async fn owned_seats<'r>(
    scene: &AuditContext<'_>,
    bought: impl Iterator<Item = &'r Row>,
) -> Result<Vec<((String, u32), Uuid)>, StoreError> {
    let seats: Vec<(String, u32)> = bought
        .flat_map(|row| row.numbers().into_iter().map(|number| (row.schedule_id.clone(), number)))
        .collect();
    let mut owned = Vec::new();
    for some in seats.chunks(PAGE_SIZE) {
        owned.extend(
            sold_seats(scene, some).await?.into_iter().map(|seat| ((seat.0, seat.1), seat.2)),
        );
    }
    Ok(owned)
}

/// Seats that are sold, by MySQL: schedule, number, reservation, the reservation's status and its seats.
type SoldSeats = (String, u32, Uuid, Option<String>, Option<String>);

async fn sold_seats(
    scene: &AuditContext<'_>,
    seats: &[(String, u32)],
) -> Result<Vec<SoldSeats>, StoreError> {
    if seats.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = QueryBuilder::new(
        "SELECT s.schedule_id, s.seat_number, s.reservation_id, r.status, CAST(r.seats AS CHAR) \
         FROM reservation_seats s LEFT JOIN reservations r ON r.id = s.reservation_id WHERE (s.schedule_id, s.seat_number) IN (",
    );
    let mut pairs = query.separated(", ");
    for (schedule, number) in seats {
        pairs.push("(").push_bind_unseparated(schedule.clone());
        pairs.push_unseparated(", ").push_bind_unseparated(*number).push_unseparated(")");
    }
    Ok(query.push(")").build_query_as().persistent(false).fetch_all(scene.mysql).await?)
}

async fn seat_values(
    scene: &AuditContext<'_>,
    partition: Partition,
    schedule: &ScheduleId,
    numbers: &[u32],
) -> Result<Vec<Option<Bytes>>, StoreError> {
    let fields: Vec<Bytes> = numbers.iter().map(|number| number.to_string().into()).collect();
    Ok(scene.redis.hash_fields(partition, &format!("s:{schedule}:seats"), &fields).await?)
}

/// Every seat that is sold: to one reservation, the same in both stores, which is confirmed and names it.
pub(super) async fn check_seats(scene: &AuditContext<'_>) -> Result<CheckTally, StoreError> {
    let mut tally = CheckTally::new(
        "seats",
        "sold to one confirmed reservation that names the seat, the same in both stores, and as many as are counted; held by one that runs",
    );
    let queues: BTreeSet<QueueId> = scene.schedules.iter().map(|hall| hall.queue.clone()).collect();
    let inspect = |some: Vec<QueueId>| async move { inspect_sold_counts(scene, &some).await };
    scene.inspect(&mut tally, queues.into_iter().collect(), &inspect).await?;
    for hall in &scene.schedules {
        let inspect = |some: Vec<u32>| async move { inspect_seats(scene, hall, &some).await };
        if !hall.archived {
            let number = |field: &Bytes| std::str::from_utf8(field).ok()?.parse().ok();
            scene
                .walk_hash(
                    &mut tally,
                    (hall.partition, &format!("s:{}:seats", hall.schedule)),
                    number,
                    &inspect,
                )
                .await?;
        }
        let mut after = 0_u32;
        loop {
            let page: Vec<u32> = sqlx::query_scalar(
                "SELECT seat_number FROM reservation_seats WHERE schedule_id = ? AND seat_number > ? ORDER BY seat_number LIMIT 500",
            )
            .bind(hall.schedule.as_str())
            .bind(after)
            .fetch_all(scene.mysql)
            .await?;
            let Some(last) = page.last() else { break };
            after = *last;
            tally.count_mysql(page.len());
            scene.inspect(&mut tally, page, &inspect).await?;
        }
    }
    Ok(tally)
}

/// How many seats of a queue's concerts are sold, which Redis counts to tell when nothing is left.
async fn inspect_sold_counts(
    scene: &AuditContext<'_>,
    queues: &[QueueId],
) -> Result<Vec<(QueueId, String)>, StoreError> {
    let mut faults = Vec::new();
    for queue in queues {
        let (sales, sold) = (format!("q:{queue}:sales"), [Bytes::from_static(b"sold")]);
        let here =
            scene.redis.hash_fields(scene.partition(queue.slot()), &sales, &sold).await?.remove(0);
        let here = here.map_or("0".into(), |text| String::from_utf8_lossy(&text).into_owned());
        let rows: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM concerts c JOIN schedules d ON d.concert_id = c.id JOIN reservation_seats s ON s.schedule_id = d.id \
             WHERE c.queue_id = ? AND c.archived_at IS NULL",
        )
        .bind(queue.as_str())
        .fetch_one(scene.mysql)
        .await?;
        if here != rows.to_string() {
            faults.push((
                queue.clone(),
                format!("{here} seats of {queue} are sold by Redis' count, {rows} in MySQL"),
            ));
        }
    }
    Ok(faults)
}

async fn inspect_seats(
    scene: &AuditContext<'_>,
    hall: &AuditedSchedule,
    numbers: &[u32],
) -> Result<Vec<(u32, String)>, StoreError> {
    let pairs: Vec<_> = numbers.iter().map(|number| (hall.schedule.to_string(), *number)).collect();
    let sold = sold_seats(scene, &pairs).await?;
    let marks = seat_values(scene, hall.partition, &hall.schedule, numbers).await?;
    let now = scene.redis.clock(hall.partition).await?;
    let holders: Vec<_> = marks
        .iter()
        .map(|mark| {
            (
                hall.partition,
                mark.as_ref()
                    .and_then(|mark| Uuid::from_slice(mark.get(..16)?).ok())
                    .unwrap_or_default(),
            )
        })
        .collect();
    let holders: Vec<Option<Result<AuditedReservation, String>>> =
        scene.records("reservations", &holders).await?;
    let mut faults = Vec::new();
    for ((number, mark), holder) in numbers.iter().zip(marks).zip(holders) {
        let row = sold.iter().find(|row| row.1 == *number);
        let mut wrong = |text: String| {
            faults.push((*number, format!("seat {number} of {}: {text}", hall.schedule)))
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
                    "sold to {id}, which is {} and names {:?}",
                    owner.status,
                    owner.numbers()
                ));
            }
        }
        let in_redis =
            mark.as_ref().and_then(|mark| mark.strip_suffix(b"s").filter(|id| id.len() == 16));
        let in_redis = in_redis.and_then(|id| Uuid::from_slice(id).ok());
        if !hall.archived && in_redis != row.map(|row| row.2) {
            let name =
                |id: Option<Uuid>| id.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
            wrong(format!(
                "sold to {} in Redis, to {} in MySQL",
                name(in_redis),
                name(row.map(|row| row.2))
            ));
        }
        if let (Some(mark), None) = (&mark, in_redis) {
            let until: i64 = mark
                .get(16..)
                .and_then(|text| std::str::from_utf8(text).ok()?.parse().ok())
                .unwrap_or(i64::MAX);
            let holds = matches!(&holder, Some(Ok(record)) if ["held", "paying"].contains(&record.status.as_str()) && record.seats.contains(number));
            if until > now && !holds {
                wrong("held by a reservation that does not run".to_owned());
            }
        }
    }
    Ok(faults)
}
