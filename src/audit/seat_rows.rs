//! What the checks of reservations and of seats read from both stores.

use std::collections::HashSet;

use bytes::Bytes;
use serde::Deserialize;
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::AuditContext;
use crate::ids::{ScheduleId, UserId};
use crate::partition::Partition;
use crate::store_error::StoreError;

/// The record in Redis.
#[derive(Deserialize)]
pub(super) struct AuditedReservation {
    pub(super) user: UserId,
    pub(super) schedule: ScheduleId,
    /// Those that are not cancelled.
    pub(super) seats: Vec<u32>,
    pub(super) amount: i64,
    pub(super) status: String,
    pub(super) held_until: i64,
}

#[derive(Deserialize)]
struct AuditedCancellation {
    seats: Vec<u32>,
    refund: i64,
}

/// The row in MySQL.
#[derive(sqlx::FromRow)]
pub(super) struct ReservationRow {
    pub(super) id: Uuid,
    pub(super) user_id: Uuid,
    pub(super) schedule_id: String,
    pub(super) seats: String,
    pub(super) amount: i64,
    pub(super) status: String,
    pub(super) cancellations: Option<String>,
}

impl ReservationRow {
    /// The numbers of the seats that are not cancelled, in order.
    pub(super) fn numbers(&self) -> Vec<u32> {
        #[derive(Deserialize)]
        struct AuditedSeat {
            number: u32,
        }
        let seats: Vec<AuditedSeat> = serde_json::from_str(&self.seats).unwrap_or_default();
        let cancelled: HashSet<u32> =
            self.cancellations().into_iter().flat_map(|cancellation| cancellation.seats).collect();
        let mut numbers: Vec<_> = seats
            .into_iter()
            .map(|seat| seat.number)
            .filter(|number| !cancelled.contains(number))
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// The sum of what cancelled seats gave back.
    pub(super) fn refunded(&self) -> i64 {
        self.cancellations().iter().map(|cancellation| cancellation.refund).sum()
    }

    fn cancellations(&self) -> Vec<AuditedCancellation> {
        serde_json::from_str(self.cancellations.as_deref().unwrap_or("[]")).unwrap_or_default()
    }
}

/// A sold seat in MySQL: schedule, number, reservation, and the status, seats and cancellations of
/// that reservation.
pub(super) type SoldSeats = (String, u32, Uuid, Option<String>, Option<String>, Option<String>);

pub(super) async fn sold_seats(
    context: &AuditContext<'_>,
    seats: &[(String, u32)],
) -> Result<Vec<SoldSeats>, StoreError> {
    if seats.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = QueryBuilder::new(
        "SELECT s.schedule_id, s.seat_number, s.reservation_id, r.status, CAST(r.seats AS CHAR), \
         CAST(r.cancellations AS CHAR) FROM reservation_seats s LEFT JOIN reservations r ON r.id = s.reservation_id WHERE \
         (s.schedule_id, s.seat_number) IN (",
    );
    let mut pairs = query.separated(", ");
    for (schedule, number) in seats {
        pairs.push("(").push_bind_unseparated(schedule.clone());
        pairs.push_unseparated(", ").push_bind_unseparated(*number).push_unseparated(")");
    }
    Ok(query.push(")").build_query_as().persistent(false).fetch_all(context.mysql).await?)
}

pub(super) async fn seat_values(
    context: &AuditContext<'_>,
    partition: Partition,
    schedule: &ScheduleId,
    numbers: &[u32],
) -> Result<Vec<Option<Bytes>>, StoreError> {
    let fields: Vec<Bytes> = numbers.iter().map(|number| number.to_string().into()).collect();
    Ok(context.redis.hash_fields(partition, &format!("s:{schedule}:seats"), &fields).await?)
}
