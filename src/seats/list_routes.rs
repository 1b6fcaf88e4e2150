//! Lists of reservations over HTTP, for users and for operators.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Seats;
use super::routes::ReservationDto;
use crate::http::identity::User;
use crate::http::page::{Cursor, Limit};
use crate::http::path::Path;
use crate::http::query::Query;
use crate::http::{Json, Problem};
use crate::ids::{ConcertId, UserId};

/// The operators' routes of the seats.
pub fn admin_router() -> OpenApiRouter<Arc<Seats>> {
    OpenApiRouter::new().routes(routes!(of_concert))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// How many reservations, 1–500; 50 if left out.
    #[serde(default)]
    limit: Limit,
    /// The `next` of the page before.
    #[param(value_type = Option<String>)]
    before: Option<Cursor>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reservations)]
pub(super) struct ReservationsDto {
    items: Vec<ReservationDto>,
    #[schema(value_type = Option<String>)]
    next: Option<Cursor>,
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
    next: Option<Cursor>,
}

/// One's own reservations, newest first.
#[utoipa::path(get, path = "/v1/reservations/mine", tag = "reservation", params(Page),
    responses((status = 200, body = ReservationsDto), (status = 401, body = Problem), (status = 422, body = Problem)), security(("user" = [])))]
pub(super) async fn mine(
    State(seats): State<Arc<Seats>>,
    User(user): User,
    Query(page): Query<Page>,
) -> Result<Json<ReservationsDto>, Problem> {
    let (now, items, next) = seats.mine(user, page.limit, page.before.unwrap_or(Cursor::START)).await?;
    let items = items.into_iter().map(|reservation| seats.dto(reservation, now)).collect();
    Ok(Json(ReservationsDto { items, next }))
}

/// The reservations of a concert that have come to something, newest first. Holds that run are in the seat map.
#[utoipa::path(get, path = "/admin/concerts/{concert}/reservations", tag = "reservation", params(("concert" = ConcertId, Path), Page),
    responses((status = 200, body = AdminReservationsDto), (status = 404, body = Problem), (status = 422, body = Problem)),
    security(("admin" = [])))]
async fn of_concert(
    State(seats): State<Arc<Seats>>,
    Path(concert): Path<ConcertId>,
    Query(page): Query<Page>,
) -> Result<Json<AdminReservationsDto>, Problem> {
    let before = page.before.unwrap_or(Cursor::START);
    let (now, items, next) = seats.of_concert(&concert, page.limit, before).await?;
    let items = items.into_iter().map(|reservation| AdminReservationDto {
        user_id: reservation.user,
        reservation: seats.dto(reservation, now),
    });
    Ok(Json(AdminReservationsDto { items: items.collect(), next }))
}
