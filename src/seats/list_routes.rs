//! The list of a user's reservations.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::SeatService;
use super::dto::ReservationDto;
use crate::http::identity::AuthenticatedUser;
use crate::http::page::{PageCursor, PageLimit};
use crate::http::query::QueryParams;
use crate::http::{JsonBody, ProblemDetails};

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
