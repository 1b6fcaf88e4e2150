//! The admin routes of the catalogue.

use std::sync::Arc;

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::routes::ConcertDto;
use super::{CatalogueService, Concert, ConcertSchedule};
use crate::http::path::NewPathParams;
use crate::http::{JsonBody, ProblemDetails};
use crate::ids::{ConcertId, QueueId};

pub fn router() -> OpenApiRouter<Arc<CatalogueService>> {
    OpenApiRouter::new().routes(routes!(put))
}

/// The definition of a concert.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ConcertDefinition {
    /// 1–255 characters.
    title: String,
    /// The queue that admits users to the concert. It is created if it does not exist. Default:
    /// the queue with the id of the concert.
    queue_id: Option<QueueId>,
    /// How long a hold lasts, in seconds, 1…86,400. Default: 300.
    hold_seconds: Option<u32>,
    /// How many seats a user can hold and own in total, 1…100. Default: 4.
    max_seats_per_user: Option<u32>,
    /// Confirmed reservations can be cancelled until this time. Null means until the show starts.
    cancel_until: Option<DateTime<Utc>>,
    /// The dates of the concert, each with its seats. At most 400 dates with at most 20,000
    /// sections in all.
    schedules: Vec<ConcertSchedule>,
}

/// A concert with its schedules.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminConcert)]
struct AdminConcertDto {
    #[serde(flatten)]
    concert: ConcertDto,
    schedules: Vec<ConcertSchedule>,
}

/// Create a concert or replace its definition
///
/// A change that would remove a held or sold seat is refused with `in_use`, and so is any change of
/// an archived concert. Moving the concert to another queue, or removing a schedule, is refused with
/// `in_use` until MySQL has everything of the old queue; repeat it after a few seconds. An omitted
/// field takes its default.
#[utoipa::path(
    put,
    path = "/admin/concerts/{concert}",
    operation_id = "putConcert",
    tag = "catalogue",
    params(("concert" = ConcertId, Path)),
    request_body = ConcertDefinition,
    responses(
        (status = 200, body = AdminConcertDto),
        (status = 409, body = ProblemDetails, description = "`in_use`"),
        (status = 422, body = ProblemDetails),
    ),
    security(("admin" = []))
)]
async fn put(
    State(catalogue): State<Arc<CatalogueService>>,
    NewPathParams(id): NewPathParams<ConcertId>,
    JsonBody(definition): JsonBody<ConcertDefinition>,
) -> Result<JsonBody<AdminConcertDto>, ProblemDetails> {
    let own_queue = || id.as_str().parse().map_err(|_| ProblemDetails::internal());
    let concert = Concert {
        version: 0,
        title: definition.title,
        queue: definition.queue_id.map_or_else(own_queue, Ok)?,
        hold_seconds: definition.hold_seconds.unwrap_or(300),
        max_seats_per_user: definition.max_seats_per_user.unwrap_or(4),
        cancel_until: definition.cancel_until,
        archived: false,
        schedules: definition.schedules,
        id,
    };
    let response = AdminConcertDto {
        concert: ConcertDto::from(&concert),
        schedules: concert.schedules.clone(),
    };
    catalogue.put(concert).await?;
    Ok(JsonBody(response))
}

/// Parses the request bodies of these routes, for `fuzz_tests`.
#[cfg(test)]
pub(crate) fn read_bodies(bytes: &[u8]) {
    crate::http::json::parse_as::<ConcertDefinition>(bytes);
}
