//! The rows of `reservations`, for what Redis keeps no more. The writer writes them.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{FromRow, MySqlPool};
use uuid::Uuid;

use super::reservation::{Reservation, Seat, Status};
use crate::ids::ReservationId;
use crate::money::Money;
use crate::mysql;

#[derive(FromRow)]
struct Row {
    id: Uuid,
    user_id: Uuid,
    queue_id: String,
    concert_id: String,
    schedule_id: String,
    seats: Json<Vec<Seat>>,
    amount: i64,
    status: String,
    held_until: DateTime<Utc>,
    created_at: DateTime<Utc>,
}

/// One reservation.
pub(super) async fn one(pool: &MySqlPool, id: ReservationId) -> Result<Option<Reservation>, mysql::Error> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT id, user_id, queue_id, concert_id, schedule_id, seats, amount, status, held_until, created_at \
         FROM reservations WHERE id = ?",
    )
    .bind(id.uuid())
    .fetch_optional(pool)
    .await?;
    Ok(row.and_then(read))
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
    })
}

fn status(word: &str) -> Option<Status> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
}
