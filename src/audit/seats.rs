//! Seats: every sold seat has one confirmed reservation, the same in both stores.

use std::collections::BTreeSet;

use bytes::Bytes;
use uuid::Uuid;

use super::seat_rows::{AuditedReservation, ReservationRow, seat_values, sold_seats};
use super::{AuditContext, AuditedSchedule, CheckTally};
use crate::ids::QueueId;
use crate::store_error::StoreError;

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
        if let Some((schedule_id, _, id, status, seats, cancellations)) = row {
            let owner = ReservationRow {
                id: *id,
                user_id: Uuid::nil(),
                schedule_id: schedule_id.clone(),
                seats: seats.clone().unwrap_or_default(),
                amount: 0,
                status: status.clone().unwrap_or_else(|| "missing".to_owned()),
                cancellations: cancellations.clone(),
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
