//! Lists of reservations over HTTP, for users and for operators.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::SeatService;
use super::routes::ReservationDto;
use crate::http::identity::AuthenticatedUser;
use crate::http::page::{PageCursor, PageLimit};
use crate::http::path::PathParams;
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{ConcertId, UserId};

/// The operators' routes of the seats.
pub fn admin_router() -> OpenApiRouter<Arc<SeatService>> {
    OpenApiRouter::new().routes(routes!(of_concert))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ReservationsQuery {
    /// How many reservations, 1–500; 50 if left out.
    #[serde(default)]
    limit: PageLimit,
    /// The `next` of the page before.
    #[param(value_type = Option<String>)]
    before: Option<PageCursor>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reservations)]
pub(super) struct ReservationsDto {
    items: Vec<ReservationDto>,
    #[schema(value_type = Option<String>)]
    next: Option<PageCursor>,
}

/// A reservation with its holder.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminReservation)]
struct AdminReservationDto {
    #[serde(flatten)]
    reservation: ReservationDto,
    user_id: UserId,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminReservations)]
struct AdminReservationsDto {
    items: Vec<AdminReservationDto>,
    #[schema(value_type = Option<String>)]
    next: Option<PageCursor>,
}

/// One's own reservations, newest first.
#[utoipa::path(get, path = "/v1/reservations/mine", tag = "reservation", params(ReservationsQuery),
    responses((status = 200, body = ReservationsDto), (status = 401, body = ProblemDetails), (status = 422, body = ProblemDetails)), security(("user" = [])))]
pub(super) async fn mine(
    State(seats): State<Arc<SeatService>>,
    AuthenticatedUser(user): AuthenticatedUser,
    QueryParams(page): QueryParams<ReservationsQuery>,
) -> Result<JsonBody<ReservationsDto>, ProblemDetails> {
    let (now, items, next) =
        seats.mine(user, page.limit, page.before.unwrap_or(PageCursor::START)).await?;
    let items = items.into_iter().map(|reservation| seats.dto(reservation, now)).collect();
    Ok(JsonBody(ReservationsDto { items, next }))
}

/// The reservations of a concert that have come to something, newest first. Holds that run are in the seat map.
#[utoipa::path(get, path = "/admin/concerts/{concert}/reservations", tag = "reservation", params(("concert" = ConcertId, Path), ReservationsQuery),
    responses((status = 200, body = AdminReservationsDto), (status = 404, body = ProblemDetails), (status = 422, body = ProblemDetails)),
    security(("admin" = [])))]
async fn of_concert(
    State(seats): State<Arc<SeatService>>,
    PathParams(concert): PathParams<ConcertId>,
    QueryParams(page): QueryParams<ReservationsQuery>,
) -> Result<JsonBody<AdminReservationsDto>, ProblemDetails> {
    let before = page.before.unwrap_or(PageCursor::START);
    let (now, items, next) = seats.of_concert(&concert, page.limit, before).await?;
    let items = items.into_iter().map(|reservation| AdminReservationDto {
        user_id: reservation.user,
        reservation: seats.dto(reservation, now),
    });
    Ok(JsonBody(AdminReservationsDto { items: items.collect(), next }))
}
