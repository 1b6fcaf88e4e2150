//! SQL of reservations. These functions only read: the writer of the outbox writes the rows.

use chrono::{DateTime, Utc};
use sqlx::mysql::{MySql, MySqlArguments};
use sqlx::query::QueryAs;
use sqlx::types::Json;
use sqlx::{FromRow, MySqlPool, QueryBuilder};
use uuid::Uuid;

use super::reservation::{DatedReservation, Reservation, ReservationStatus, ReservedSeat};
use crate::http::page::PageCursor;
use crate::ids::{ConcertId, ReservationId, ScheduleId, UserId};
use crate::money::Money;
use crate::mysql;
use crate::outbox::event::SeatCancellation;

#[derive(FromRow)]
struct Row {
    id: Uuid,
    user_id: Uuid,
    queue_id: String,
    concert_id: String,
    schedule_id: String,
    seats: Json<Vec<ReservedSeat>>,
    amount: i64,
    status: String,
    held_until: DateTime<Utc>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    concert_title: Option<String>,
    starts_at: Option<DateTime<Utc>>,
    payment_id: Option<Uuid>,
    paid: Option<i64>,
    discount: Option<i64>,
    cancellations: Option<Json<Vec<SeatCancellation>>>,
}

pub(super) async fn one(
    pool: &MySqlPool,
    id: ReservationId,
) -> Result<Option<Reservation>, mysql::Error> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT id, user_id, queue_id, concert_id, schedule_id, seats, amount, status, \
         held_until, created_at, updated_at, concert_title, starts_at, payment_id, paid, discount, \
         cancellations FROM reservations WHERE id = ?",
    )
    .bind(id.uuid())
    .fetch_optional(pool)
    .await?;
    Ok(row.and_then(read))
}

/// Those of the reservations that exist.
pub(super) async fn many(
    pool: &MySqlPool,
    ids: &[ReservationId],
) -> Result<Vec<Reservation>, mysql::Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut select = QueryBuilder::new(
        "SELECT id, user_id, queue_id, concert_id, schedule_id, seats, amount, status, \
         held_until, created_at, updated_at, concert_title, starts_at, payment_id, paid, discount, \
         cancellations FROM reservations WHERE id IN (",
    );
    let mut list = select.separated(", ");
    for id in ids {
        list.push_bind(id.uuid());
    }
    let rows: Vec<Row> =
        select.push(")").build_query_as().persistent(false).fetch_all(pool).await?;
    Ok(rows.into_iter().filter_map(read).collect())
}

pub(super) async fn count_sold(
    pool: &MySqlPool,
    schedule: &ScheduleId,
) -> Result<u64, mysql::Error> {
    let query = "SELECT CAST(COUNT(*) AS UNSIGNED) FROM reservation_seats WHERE schedule_id = ?";
    Ok(sqlx::query_scalar(query).bind(schedule.as_str()).fetch_one(pool).await?)
}

/// The numbers of the sold seats of a schedule, in ascending order.
pub(super) async fn sold(
    pool: &MySqlPool,
    schedule: &ScheduleId,
) -> Result<Vec<u32>, mysql::Error> {
    let query =
        "SELECT seat_number FROM reservation_seats WHERE schedule_id = ? ORDER BY seat_number";
    Ok(sqlx::query_scalar(query).bind(schedule.as_str()).fetch_all(pool).await?)
}

/// At most `limit` reservations of a user before a cursor, newest first.
pub(super) async fn of_user(
    pool: &MySqlPool,
    user: UserId,
    before: PageCursor,
    limit: usize,
) -> Result<Vec<DatedReservation>, mysql::Error> {
    let query = sqlx::query_as(
        "SELECT id, user_id, queue_id, concert_id, schedule_id, seats, amount, status, \
         held_until, created_at, updated_at, concert_title, starts_at, payment_id, paid, discount, \
         cancellations FROM reservations \
         WHERE user_id = ? AND created_at <= ? AND (created_at < ? OR id < ?) \
         ORDER BY created_at DESC, id DESC LIMIT ?",
    );
    page(pool, query.bind(user.uuid()), before, limit).await
}

/// At most `limit` reservations of a concert, or of those with this status, before a cursor,
/// newest first.
pub(super) async fn of_concert(
    pool: &MySqlPool,
    concert: &ConcertId,
    status: Option<ReservationStatus>,
    before: PageCursor,
    limit: usize,
) -> Result<Vec<DatedReservation>, mysql::Error> {
    let query = sqlx::query_as(
        "SELECT id, user_id, queue_id, concert_id, schedule_id, seats, amount, status, \
         held_until, created_at, updated_at, concert_title, starts_at, payment_id, paid, discount, \
         cancellations FROM reservations \
         WHERE concert_id = ? AND (? IS NULL OR status = ?) AND created_at <= ? AND (created_at < ? OR id < ?) \
         ORDER BY created_at DESC, id DESC LIMIT ?",
    );
    let status = status.map(ReservationStatus::as_str);
    let query = query.bind(concert.as_str()).bind(status).bind(status);
    page(pool, query, before, limit).await
}

async fn page<'q>(
    pool: &MySqlPool,
    query: QueryAs<'q, MySql, Row, MySqlArguments>,
    before: PageCursor,
    limit: usize,
) -> Result<Vec<DatedReservation>, mysql::Error> {
    // A bound value with a time zone has the type TIMESTAMP, which ends in 2038.
    let at = DateTime::from_timestamp_millis(before.at).unwrap_or_default().naive_utc();
    let query =
        query.bind(at).bind(at).bind(before.id).bind(u64::try_from(limit).unwrap_or(u64::MAX));
    let rows = query.fetch_all(pool).await?;
    let dated = |row: Row| {
        let at = row.updated_at.timestamp_millis();
        Some((at, read(row)?))
    };
    Ok(rows.into_iter().filter_map(dated).collect())
}

fn read(row: Row) -> Option<Reservation> {
    Some(Reservation {
        id: row.id.into(),
        user: row.user_id.into(),
        queue: row.queue_id.parse().ok()?,
        concert: row.concert_id.parse().ok()?,
        schedule: row.schedule_id.parse().ok()?,
        seats: row.seats.0,
        amount: Money::new(row.amount)?,
        status: status(&row.status)?,
        held_until: row.held_until.timestamp_millis(),
        created_at: row.created_at.timestamp_millis(),
        title: row.concert_title,
        starts_at: row.starts_at.map(|time| time.timestamp_millis()),
        payment: row.payment_id.map(Into::into),
        paid: row.paid.and_then(Money::new),
        discount: row.discount.and_then(Money::new),
        cancellations: row.cancellations.map(|json| json.0).unwrap_or_default(),
    })
}

fn status(word: &str) -> Option<ReservationStatus> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
}
