//! The admin routes of reservations.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::SeatService;
use super::dto::ReservationDto;
use super::reservation::{Reservation, ReservationStatus};
use crate::http::page::{PageCursor, PageLimit};
use crate::http::path::PathParams;
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{ConcertId, ReservationId, UserName};
use crate::users::UserDirectory;

pub fn admin_router() -> OpenApiRouter<Arc<SeatService>> {
    super::queue_routes::router().routes(routes!(of_concert)).routes(routes!(show, release))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ConcertReservationsQuery {
    /// Return only reservations with this status.
    status: Option<ReservationStatus>,
    /// The maximum number of reservations, 1…500. The default is 50.
    #[serde(default)]
    limit: PageLimit,
    /// The `next` of the previous page.
    #[param(value_type = Option<String>)]
    before: Option<PageCursor>,
}

/// A reservation with its user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminReservation)]
pub struct AdminReservationDto {
    #[serde(flatten)]
    pub(super) reservation: ReservationDto,
    pub(super) user_id: UserName,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminReservations)]
struct AdminReservationsDto {
    items: Vec<AdminReservationDto>,
    #[schema(value_type = Option<String>)]
    next: Option<PageCursor>,
}

/// The responses for reservations, with their users. `now` is in milliseconds since 1970.
async fn with_users(
    seats: &SeatService,
    users: &UserDirectory,
    reservations: Vec<Reservation>,
    now: i64,
) -> Result<Vec<AdminReservationDto>, ProblemDetails> {
    let names = users.names(reservations.iter().map(|reservation| reservation.user)).await?;
    let dto = |reservation: Reservation| AdminReservationDto {
        user_id: names.of(reservation.user),
        reservation: seats.dto(reservation, now),
    };
    Ok(reservations.into_iter().map(dto).collect())
}

/// List the reservations of a concert, newest first
///
/// The list has reservations in every status, also holds and reservations that are being paid.
#[utoipa::path(
    get,
    path = "/admin/concerts/{concert}/reservations",
    operation_id = "listConcertReservations",
    tag = "reservation",
    params(("concert" = ConcertId, Path), ConcertReservationsQuery),
    responses(
        (status = 200, body = AdminReservationsDto),
        (status = 404, body = ProblemDetails),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn of_concert(
    State(seats): State<Arc<SeatService>>,
    PathParams(concert): PathParams<ConcertId>,
    Extension(users): Extension<Arc<UserDirectory>>,
    QueryParams(query): QueryParams<ConcertReservationsQuery>,
) -> Result<JsonBody<AdminReservationsDto>, ProblemDetails> {
    let before = query.before.unwrap_or(PageCursor::START);
    let (now, items, next) =
        seats.list_by_concert(&concert, query.status, query.limit, before).await?;
    let items = with_users(&seats, &users, items, now).await?;
    Ok(JsonBody(AdminReservationsDto { items, next }))
}

/// Get a reservation of any user
#[utoipa::path(
    get,
    path = "/admin/reservations/{id}",
    operation_id = "getAnyReservation",
    tag = "reservation",
    params(("id" = ReservationId, Path)),
    responses(
        (status = 200, body = AdminReservationDto),
        (status = 404, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn show(
    State(seats): State<Arc<SeatService>>,
    PathParams(id): PathParams<ReservationId>,
    Extension(users): Extension<Arc<UserDirectory>>,
) -> Result<JsonBody<AdminReservationDto>, ProblemDetails> {
    let (now, reservation) = seats.find_any(id).await?;
    let mut found = with_users(&seats, &users, vec![reservation], now).await?;
    found.pop().map(JsonBody).ok_or_else(ProblemDetails::not_found)
}

/// End a hold
///
/// The seats are free immediately. A hold that has already been released or has expired also
/// returns 204.
#[utoipa::path(
    delete,
    path = "/admin/reservations/{id}",
    operation_id = "endHold",
    tag = "reservation",
    params(("id" = ReservationId, Path)),
    responses(
        (status = 204),
        (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails,
            description = "`not_releasable`: it is being paid or was paid."),
    ),
    security(("admin" = []))
)]
async fn release(
    State(seats): State<Arc<SeatService>>,
    PathParams(id): PathParams<ReservationId>,
) -> Result<StatusCode, ProblemDetails> {
    let (_, reservation) = seats.find_any(id).await?;
    seats.release_found(&reservation).await?;
    Ok(StatusCode::NO_CONTENT)
}
