//! The route that lists the schedules of a concert.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::rules::{self, SalePhase};
use super::{Error, SeatService};
use crate::catalogue::ScheduledConcert;
use crate::http::path::PathParams;
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{ConcertId, ScheduleId};
use crate::queue::TokenHolder;
use crate::time::UnixMillis;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Schedule)]
pub(super) struct ScheduleDto {
    id: ScheduleId,
    concert_id: ConcertId,
    starts_at: UnixMillis,
    booking_opens_at: Option<UnixMillis>,
    /// Null means until the show starts.
    booking_closes_at: Option<UnixMillis>,
    total_seats: u32,
    available_seats: u32,
    /// Whether seats can be held now.
    bookable: bool,
    /// Why not. Null when seats can be held.
    not_bookable_reason: Option<NotBookableReason>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum NotBookableReason {
    /// Before `booking_opens_at`.
    NotOpen,
    /// The booking has ended, and the show has not started.
    Closed,
    /// The show has started.
    Past,
    /// No seat is available now.
    SoldOut,
    /// The date is called off.
    Cancelled,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Schedules)]
pub(super) struct SchedulesDto {
    items: Vec<ScheduleDto>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ScheduleFilter {
    /// Return all schedules, also those that can't be booked any more.
    #[serde(default)]
    all: bool,
}

/// List the schedules of a concert
///
/// Without `all`, the list has the schedules that are bookable or can still become so, also those
/// that are sold out. They are sorted by their start.
#[utoipa::path(
    get,
    path = "/v1/concerts/{concert}/schedules",
    operation_id = "listSchedules",
    tag = "catalogue",
    params(("concert" = ConcertId, Path), ScheduleFilter),
    responses(
        (status = 200, body = SchedulesDto),
        (status = 401, body = ProblemDetails),
        (status = 403, body = ProblemDetails),
        (status = 404, body = ProblemDetails),
        (status = 410, body = ProblemDetails),
        (status = 422, body = ProblemDetails),
    ),
    security(("queue_token" = []))
)]
pub(super) async fn schedules(
    State(seats): State<Arc<SeatService>>,
    PathParams(id): PathParams<ConcertId>,
    TokenHolder { claims, .. }: TokenHolder,
    QueryParams(filter): QueryParams<ScheduleFilter>,
) -> Result<JsonBody<SchedulesDto>, ProblemDetails> {
    let (now, mut schedules) = seats.schedules_of(&claims, &id).await?;
    if !filter.all {
        let is_over = |phase| matches!(phase, SalePhase::Over | SalePhase::Cancelled);
        schedules.retain(|scheduled| !is_over(rules::sale_phase(scheduled, now)));
    }
    let reads = schedules.iter().map(async |scheduled| {
        schedule_dto(scheduled, now, seats.available_seats(scheduled).await?)
    });
    let items = futures::future::try_join_all(reads).await?;
    Ok(JsonBody(SchedulesDto { items }))
}

fn schedule_dto(
    scheduled: &ScheduledConcert,
    now: i64,
    available_seats: u32,
) -> Result<ScheduleDto, Error> {
    let schedule = scheduled.schedule();
    let not_bookable_reason = match rules::sale_phase(scheduled, now) {
        SalePhase::Cancelled => Some(NotBookableReason::Cancelled),
        SalePhase::NotOpen => Some(NotBookableReason::NotOpen),
        SalePhase::Over if schedule.starts_at.timestamp_millis() <= now => {
            Some(NotBookableReason::Past)
        }
        SalePhase::Over => Some(NotBookableReason::Closed),
        SalePhase::Open => (available_seats == 0).then_some(NotBookableReason::SoldOut),
    };
    Ok(ScheduleDto {
        id: schedule.id.clone(),
        concert_id: scheduled.concert.id.clone(),
        starts_at: schedule.starts_at.into(),
        booking_opens_at: schedule.booking_opens_at.map(UnixMillis::from),
        booking_closes_at: schedule.booking_closes_at.map(UnixMillis::from),
        total_seats: schedule.seats(),
        available_seats,
        bookable: not_bookable_reason.is_none(),
        not_bookable_reason,
    })
}
