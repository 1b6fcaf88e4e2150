//! Concerts that are not archived: sold seats, seats per user, the number of sold seats, and the
//! reservations of the last day.
//!
//! A concert can move to another queue when none of its seats is held or sold. So its seats are in
//! the partition of its queue, but a reservation is in the partition that its id names.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::{FromRow, MySqlConnection};
use uuid::Uuid;

use super::writer::{FencedWriter, RowBuffer};
use crate::ids::{QueueId, ScheduleId};
use crate::outbox::event::SeatCancellation;
use crate::recovery::Error;
use crate::redis::{KeyScope, ScriptArgs, scripts};

#[derive(FromRow)]
struct Row {
    id: Uuid,
    user_id: Uuid,
    queue_id: String,
    concert_id: String,
    schedule_id: String,
    seats: String,
    amount: i64,
    status: String,
    held_until: DateTime<Utc>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    score: Option<i64>,
    payment: Option<Uuid>,
    concert_title: Option<String>,
    starts_at: Option<DateTime<Utc>>,
    paid: Option<i64>,
    discount: Option<i64>,
    cancellations: Option<String>,
}

#[derive(serde::Deserialize)]
struct RestoredSeat {
    number: i64,
}

pub(super) async fn restore(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    let list = "SELECT id, queue_id FROM concerts WHERE archived_at IS NULL ORDER BY id";
    let concerts: Vec<(String, String)> = sqlx::query_as(list).fetch_all(&mut *mysql).await?;
    for (concert, queue) in concerts {
        let queue: QueueId =
            queue.parse().map_err(|_| Error::InvalidRow("concerts", queue.clone()))?;
        if writer.redis.keys().partition(queue.slot()) != writer.partition {
            continue;
        }
        let list = "SELECT id FROM schedules WHERE concert_id = ? ORDER BY id";
        let schedules: Vec<String> =
            sqlx::query_scalar(list).bind(&concert).fetch_all(&mut *mysql).await?;
        let mut sold = 0;
        for name in schedules {
            let schedule: ScheduleId =
                name.parse().map_err(|_| Error::InvalidRow("schedules", name.clone()))?;
            sold += restore_seats(writer, mysql, &queue, &schedule).await?;
        }
        let scope = KeyScope::queue(writer.redis.keys(), &queue);
        let mut args = ScriptArgs::new();
        args.int(sold);
        writer.call(&scripts::RECOVERY_RESTORE_SALES, scope, args, Vec::new()).await?;
        restore_bought_counts(writer, mysql, &queue, &concert).await?;
    }
    restore_reservations(writer, mysql).await
}

/// Returns the number of sold seats.
async fn restore_seats(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
    queue: &QueueId,
    schedule: &ScheduleId,
) -> Result<i64, Error> {
    let list = "SELECT seat_number, reservation_id FROM reservation_seats WHERE schedule_id = ?";
    let mut rows = sqlx::query_as(list).bind(schedule.as_str()).fetch(mysql);
    let mut buffer =
        writer.hash_rows(KeyScope::schedule(writer.redis.keys(), queue, schedule), "s:seats");
    let mut sold = 0;
    while let Some((number, reservation)) = rows.try_next().await? {
        let (number, reservation): (u32, Uuid) = (number, reservation);
        let value = [reservation.as_bytes().as_slice(), b"s"].concat();
        buffer
            .add(writer, |args| {
                args.int(number.into()).bytes(&value);
            })
            .await?;
        sold += 1;
    }
    buffer.write(writer).await?;
    Ok(sold)
}

async fn restore_bought_counts(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
    queue: &QueueId,
    concert: &str,
) -> Result<(), Error> {
    let list = "SELECT r.user_id, COUNT(*) FROM schedules d JOIN reservation_seats s ON \
                s.schedule_id = d.id \
                JOIN reservations r ON r.id = s.reservation_id WHERE d.concert_id = ? GROUP BY \
                r.user_id";
    let mut rows = sqlx::query_as(list).bind(concert).fetch(mysql);
    let mut buffer = writer.hash_rows(KeyScope::queue(writer.redis.keys(), queue), "q:bought");
    while let Some((user, seats)) = rows.try_next().await? {
        let (user, seats): (Uuid, i64) = (user, seats);
        let field = [concert.as_bytes(), b":", user.as_bytes().as_slice()].concat();
        buffer
            .add(writer, |args| {
                args.bytes(&field).int(seats);
            })
            .await?;
    }
    buffer.write(writer).await
}

/// Reservations that ended within a day, because a repeated request may ask for them that long.
async fn restore_reservations(
    writer: &mut FencedWriter<'_>,
    mysql: &mut MySqlConnection,
) -> Result<(), Error> {
    let mut query = writer.slot_query(
        "SELECT r.id, r.user_id, r.queue_id, r.concert_id, r.schedule_id, CAST(r.seats AS CHAR) AS \
         seats, r.amount, r.status, r.held_until, r.created_at, \
         r.updated_at, r.score, COALESCE(r.payment_id, p.id) AS payment, \
         r.concert_title, r.starts_at, r.paid, r.discount, \
         CAST(r.cancellations AS CHAR) AS cancellations \
         FROM reservations r LEFT JOIN concerts c ON c.id = r.concert_id LEFT JOIN payments p ON \
         p.reservation_id = r.id AND p.status IN ('confirmed', 'refunded') WHERE r.slot IN (",
        ") AND r.updated_at > UTC_TIMESTAMP(3) - INTERVAL 25 HOUR AND c.archived_at IS NULL",
    );
    let mut rows = query.build_query_as().fetch(mysql);
    let mut head = ScriptArgs::new();
    head.text(&writer.checkpoint.to_string());
    let mut buffer = RowBuffer::new(&scripts::RECOVERY_RESTORE_RESERVATIONS, writer.scope(), head);
    while let Some(row) = rows.try_next().await? {
        let row: Row = row;
        let seats: Vec<RestoredSeat> = serde_json::from_str(&row.seats)
            .map_err(|error| Error::InvalidRow("reservations", error.to_string()))?;
        let cancelled: Vec<SeatCancellation> =
            serde_json::from_str(row.cancellations.as_deref().unwrap_or("[]"))
                .map_err(|error| Error::InvalidRow("reservations", error.to_string()))?;
        let is_cancelled = |number: i64| {
            let all = cancelled.iter().flat_map(|it| &it.seats);
            all.map(|seat| i64::from(*seat)).any(|seat| seat == number)
        };
        let left: Vec<i64> =
            seats.iter().map(|seat| seat.number).filter(|number| !is_cancelled(*number)).collect();
        let add = |args: &mut ScriptArgs| {
            args.bytes(row.id.as_bytes())
                .bytes(row.user_id.as_bytes())
                .text(&row.queue_id)
                .text(&row.concert_id);
            args.text(&row.schedule_id).text(&row.seats).int(row.amount).text(&row.status);
            args.int(row.held_until.timestamp_millis()).int(row.created_at.timestamp_millis());
            args.int(row.updated_at.timestamp_millis()).optional_int(row.score);
            args.bytes(row.payment.as_ref().map_or(&[], |id| id.as_bytes()));
            args.text(row.concert_title.as_deref().unwrap_or(""));
            args.optional_int(row.starts_at.map(|time| time.timestamp_millis()));
            args.optional_int(row.paid).optional_int(row.discount);
            args.text(row.cancellations.as_deref().unwrap_or("[]"));
            args.int(i64::try_from(left.len()).unwrap_or(i64::MAX));
            for number in &left {
                args.int(*number);
            }
        };
        buffer.add(writer, add).await?;
    }
    buffer.write(writer).await
}
