//! The routes of reservation lists, for users and for admins.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::SeatService;
use super::dto::ReservationDto;
use crate::http::identity::AuthenticatedUser;
use crate::http::page::{PageCursor, PageLimit};
use crate::http::path::PathParams;
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{ConcertId, UserName};
use crate::users::UserDirectory;

pub fn admin_router() -> OpenApiRouter<Arc<SeatService>> {
    super::queue_routes::router().routes(routes!(of_concert))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ReservationsQuery {
    /// The maximum number of reservations, 1…500. The default is 50.
    #[serde(default)]
    limit: PageLimit,
    /// The `next` of the previous page.
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

/// A reservation with its user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminReservation)]
struct AdminReservationDto {
    #[serde(flatten)]
    reservation: ReservationDto,
    user_id: UserName,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminReservations)]
struct AdminReservationsDto {
    items: Vec<AdminReservationDto>,
    #[schema(value_type = Option<String>)]
    next: Option<PageCursor>,
}

/// List the user's reservations, newest first
#[utoipa::path(
    get,
    path = "/v1/reservations/mine",
    operation_id = "listReservations",
    tag = "reservation",
    params(ReservationsQuery),
    responses(
        (status = 200, body = ReservationsDto),
        (status = 401, body = ProblemDetails),
        (status = 422, body = ProblemDetails),
    ),
    security(("user" = []))
)]
pub(super) async fn mine(
    State(seats): State<Arc<SeatService>>,
    AuthenticatedUser(user): AuthenticatedUser,
    QueryParams(page): QueryParams<ReservationsQuery>,
) -> Result<JsonBody<ReservationsDto>, ProblemDetails> {
    let (now, items, next) =
        seats.list_own(user, page.limit, page.before.unwrap_or(PageCursor::START)).await?;
    let items = items.into_iter().map(|reservation| seats.dto(reservation, now)).collect();
    Ok(JsonBody(ReservationsDto { items, next }))
}

/// List the reservations of a concert, newest first
///
/// The list has confirmed, released, expired and cancelled reservations. The seat map shows the
/// seats that are held now.
#[utoipa::path(
    get,
    path = "/admin/concerts/{concert}/reservations",
    operation_id = "listConcertReservations",
    tag = "reservation",
    params(("concert" = ConcertId, Path), ReservationsQuery),
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
    QueryParams(page): QueryParams<ReservationsQuery>,
) -> Result<JsonBody<AdminReservationsDto>, ProblemDetails> {
    let before = page.before.unwrap_or(PageCursor::START);
    let (now, items, next) = seats.list_by_concert(&concert, page.limit, before).await?;
    let names = users.names(items.iter().map(|reservation| reservation.user)).await?;
    let items = items.into_iter().map(|reservation| AdminReservationDto {
        user_id: names.of(reservation.user),
        reservation: seats.dto(reservation, now),
    });
    Ok(JsonBody(AdminReservationsDto { items: items.collect(), next }))
}
