//! Statements on the tables `concerts` and `schedules`.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{FromRow, MySqlConnection, MySqlPool, QueryBuilder};
use uuid::Uuid;

use super::concert::{Concert, ConcertSchedule, SeatSection};
use crate::ids::{ConcertId, ReservationId, ScheduleId};
use crate::mysql;
use crate::time::datetime;

#[derive(FromRow)]
struct ConcertRow {
    id: String,
    version: u64,
    title: String,
    queue_id: String,
    hold_seconds: u32,
    payment_seconds: u32,
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
        "SELECT id, version, title, queue_id, hold_seconds, payment_seconds, max_seats_per_user, \
         cancel_until, archived_at FROM concerts ORDER BY id",
    )
    .fetch_all(&mut *connection)
    .await?;
    let schedules: Vec<ScheduleRow> = sqlx::query_as(
        "SELECT id, concert_id, starts_at, booking_opens_at, booking_closes_at, sections \
         FROM schedules ORDER BY starts_at, id",
    )
    .fetch_all(&mut *connection)
    .await?;
    let cancelled: Vec<String> = sqlx::query_scalar("SELECT schedule_id FROM cancelled_schedules")
        .fetch_all(&mut *connection)
        .await?;
    let cancelled: HashSet<String> = cancelled.into_iter().collect();
    let mut by_concert: HashMap<String, Vec<ConcertSchedule>> = HashMap::new();
    for row in schedules {
        let concert = row.concert_id.clone();
        if let Some(schedule) = read_schedule(row) {
            by_concert.entry(concert).or_default().push(schedule);
        }
    }
    Ok(concerts
        .into_iter()
        .filter_map(|row| read_concert(row, &mut by_concert, &cancelled))
        .collect())
}

/// Inserts or updates a concert and replaces its schedules.
pub(super) async fn save(
    connection: &mut MySqlConnection,
    concert: &Concert,
) -> Result<(), mysql::Error> {
    sqlx::query(
        "INSERT INTO concerts (id, version, title, queue_id, hold_seconds, payment_seconds, \
         max_seats_per_user, cancel_until) VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
         ON DUPLICATE KEY UPDATE version = VALUES(version), title = VALUES(title), \
         queue_id = VALUES(queue_id), hold_seconds = VALUES(hold_seconds), \
         payment_seconds = VALUES(payment_seconds), \
         max_seats_per_user = VALUES(max_seats_per_user), cancel_until = VALUES(cancel_until)",
    )
    .bind(concert.id.as_str())
    .bind(concert.version)
    .bind(&concert.title)
    .bind(concert.queue.as_str())
    .bind(concert.hold_seconds)
    .bind(concert.payment_seconds)
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

/// Records that a schedule is called off, and the new version of its concert.
pub(super) async fn cancel_schedule(
    connection: &mut MySqlConnection,
    concert: &Concert,
    schedule: &ScheduleId,
    reason: &str,
) -> Result<(), mysql::Error> {
    let insert = "INSERT INTO cancelled_schedules (schedule_id, reason, cancelled_at) \
                  VALUES (?, ?, UTC_TIMESTAMP(3))";
    sqlx::query(insert).bind(schedule.as_str()).bind(reason).execute(&mut *connection).await?;
    let update = sqlx::query("UPDATE concerts SET version = ? WHERE id = ?");
    update.bind(concert.version).bind(concert.id.as_str()).execute(connection).await?;
    Ok(())
}

pub(super) async fn delete(
    connection: &mut MySqlConnection,
    concert: &ConcertId,
) -> Result<(), mysql::Error> {
    for statement in
        ["DELETE FROM schedules WHERE concert_id = ?", "DELETE FROM concerts WHERE id = ?"]
    {
        sqlx::query(statement).bind(concert.as_str()).execute(&mut *connection).await?;
    }
    Ok(())
}

/// The number of sold seats of each schedule of the concerts. Schedules without one are left out.
pub(super) async fn sold_seats(
    pool: &MySqlPool,
    concerts: &[&ConcertId],
) -> Result<HashMap<ScheduleId, u32>, mysql::Error> {
    if concerts.is_empty() {
        return Ok(HashMap::new());
    }
    let mut select = QueryBuilder::new(
        "SELECT s.id, CAST(COUNT(*) AS UNSIGNED) FROM schedules s JOIN reservation_seats r \
         ON r.schedule_id = s.id WHERE s.concert_id IN (",
    );
    let mut list = select.separated(", ");
    for concert in concerts {
        list.push_bind(concert.as_str());
    }
    select.push(") GROUP BY s.id");
    let rows: Vec<(String, u64)> =
        select.build_query_as().persistent(false).fetch_all(pool).await?;
    let count = |(id, sold): (String, u64)| Some((id.parse().ok()?, u32::try_from(sold).ok()?));
    Ok(rows.into_iter().filter_map(count).collect())
}

/// The first reservations of sold seats of an archived concert, with their seats.
pub(super) async fn sold_reservations(
    connection: &mut MySqlConnection,
    concert: &ConcertId,
    limit: usize,
) -> Result<Vec<(ReservationId, Vec<u32>)>, mysql::Error> {
    let seats: Vec<(Uuid, u32)> = sqlx::query_as(
        "SELECT r.reservation_id, r.seat_number FROM schedules s JOIN reservation_seats r \
         ON r.schedule_id = s.id WHERE s.concert_id = ? ORDER BY s.id, r.seat_number",
    )
    .bind(concert.as_str())
    .fetch_all(connection)
    .await?;
    let mut found: Vec<(ReservationId, Vec<u32>)> = Vec::new();
    for (id, number) in seats {
        let id = ReservationId::from(id);
        match found.iter().position(|(other, _)| *other == id) {
            Some(at) => found[at].1.push(number),
            None if found.len() < limit => found.push((id, vec![number])),
            None => {}
        }
    }
    Ok(found)
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
    cancelled: &HashSet<String>,
) -> Option<Concert> {
    let id: ConcertId = row.id.parse().ok()?;
    let schedules = by_concert.remove(id.as_str()).unwrap_or_default();
    let ids = schedules.iter().map(|schedule| &schedule.id);
    let cancelled = ids.filter(|id| cancelled.contains(id.as_str())).cloned().collect();
    Some(Concert {
        version: row.version,
        title: row.title,
        queue: row.queue_id.parse().ok()?,
        hold_seconds: row.hold_seconds,
        payment_seconds: row.payment_seconds,
        max_seats_per_user: row.max_seats_per_user,
        cancel_until: row.cancel_until,
        archived: row.archived_at.is_some(),
        cancelled,
        schedules,
        id,
    })
}
