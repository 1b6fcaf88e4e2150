//! Statements on the tables `concerts` and `schedules`.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{FromRow, MySqlConnection};

use super::concert::{Concert, ConcertSchedule, SeatSection};
use crate::ids::{ConcertId, ScheduleId};
use crate::mysql;
use crate::time::datetime;

#[derive(FromRow)]
struct ConcertRow {
    id: String,
    version: u64,
    title: String,
    queue_id: String,
    hold_seconds: u32,
    max_seats_per_user: u32,
    cancel_until: Option<DateTime<Utc>>,
    archived_at: Option<DateTime<Utc>>,
}

#[derive(FromRow)]
struct ScheduleRow {
    id: String,
    concert_id: String,
    starts_at: DateTime<Utc>,
    booking_opens_at: Option<DateTime<Utc>>,
    booking_closes_at: Option<DateTime<Utc>>,
    sections: Json<Vec<SeatSection>>,
}

/// All concerts with their schedules, sorted by id.
pub(super) async fn load_all(
    connection: &mut MySqlConnection,
) -> Result<Vec<Concert>, mysql::Error> {
    let concerts: Vec<ConcertRow> = sqlx::query_as(
        "SELECT id, version, title, queue_id, hold_seconds, max_seats_per_user, cancel_until, \
         archived_at FROM concerts ORDER BY id",
    )
    .fetch_all(&mut *connection)
    .await?;
    let schedules: Vec<ScheduleRow> = sqlx::query_as(
        "SELECT id, concert_id, starts_at, booking_opens_at, booking_closes_at, sections \
         FROM schedules ORDER BY starts_at, id",
    )
    .fetch_all(connection)
    .await?;
    let mut by_concert: HashMap<String, Vec<ConcertSchedule>> = HashMap::new();
    for row in schedules {
        let concert = row.concert_id.clone();
        if let Some(schedule) = read_schedule(row) {
            by_concert.entry(concert).or_default().push(schedule);
        }
    }
    Ok(concerts.into_iter().filter_map(|row| read_concert(row, &mut by_concert)).collect())
}

/// Inserts or updates a concert and replaces its schedules.
pub(super) async fn save(
    connection: &mut MySqlConnection,
    concert: &Concert,
) -> Result<(), mysql::Error> {
    sqlx::query(
        "INSERT INTO concerts (id, version, title, queue_id, hold_seconds, max_seats_per_user, \
         cancel_until) VALUES (?, ?, ?, ?, ?, ?, ?) \
         ON DUPLICATE KEY UPDATE version = VALUES(version), title = VALUES(title), \
         queue_id = VALUES(queue_id), hold_seconds = VALUES(hold_seconds), \
         max_seats_per_user = VALUES(max_seats_per_user), cancel_until = VALUES(cancel_until)",
    )
    .bind(concert.id.as_str())
    .bind(concert.version)
    .bind(&concert.title)
    .bind(concert.queue.as_str())
    .bind(concert.hold_seconds)
    .bind(concert.max_seats_per_user)
    .bind(concert.cancel_until.map(datetime))
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM schedules WHERE concert_id = ?")
        .bind(concert.id.as_str())
        .execute(&mut *connection)
        .await?;
    for schedule in &concert.schedules {
        sqlx::query(
            "INSERT INTO schedules (id, concert_id, starts_at, booking_opens_at, \
             booking_closes_at, sections) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(schedule.id.as_str())
        .bind(concert.id.as_str())
        .bind(datetime(schedule.starts_at))
        .bind(schedule.booking_opens_at.map(datetime))
        .bind(schedule.booking_closes_at.map(datetime))
        .bind(Json(&schedule.sections))
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

pub(super) async fn archive(
    connection: &mut MySqlConnection,
    concert: &ConcertId,
    version: u64,
) -> Result<(), mysql::Error> {
    sqlx::query("UPDATE concerts SET archived_at = UTC_TIMESTAMP(3), version = ? WHERE id = ?")
        .bind(version)
        .bind(concert.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// The concert that owns a schedule.
pub(super) async fn concert_of_schedule(
    connection: &mut MySqlConnection,
    schedule: &ScheduleId,
) -> Result<Option<String>, mysql::Error> {
    let sql = "SELECT concert_id FROM schedules WHERE id = ?";
    Ok(sqlx::query_scalar(sql).bind(schedule.as_str()).fetch_optional(connection).await?)
}

fn read_schedule(row: ScheduleRow) -> Option<ConcertSchedule> {
    Some(ConcertSchedule {
        id: row.id.parse().ok()?,
        starts_at: row.starts_at,
        booking_opens_at: row.booking_opens_at,
        booking_closes_at: row.booking_closes_at,
        sections: row.sections.0,
    })
}

fn read_concert(
    row: ConcertRow,
    by_concert: &mut HashMap<String, Vec<ConcertSchedule>>,
) -> Option<Concert> {
    let id: ConcertId = row.id.parse().ok()?;
    Some(Concert {
        version: row.version,
        title: row.title,
        queue: row.queue_id.parse().ok()?,
        hold_seconds: row.hold_seconds,
        max_seats_per_user: row.max_seats_per_user,
        cancel_until: row.cancel_until,
        archived: row.archived_at.is_some(),
        schedules: by_concert.remove(id.as_str()).unwrap_or_default(),
        id,
    })
}
